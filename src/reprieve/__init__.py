"""reprieve: what Linux killed for memory, why, and what to do about it."""

__version__ = "0.1.0"
