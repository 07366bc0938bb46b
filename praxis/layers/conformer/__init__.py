"""The Conformer, and attention with a limited context."""
