"""A byte-level language model of Python's own standard library."""
