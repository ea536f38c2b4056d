"""The nouns: frozen facts in the kernel's own names, units in the names, None for what was not said."""
