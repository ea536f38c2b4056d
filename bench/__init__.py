"""What reprieve costs, measured side by side with what people use today: `python -m bench [GROUP …]`."""
