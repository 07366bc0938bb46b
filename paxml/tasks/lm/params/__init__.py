"""Families of language-model experiments, one a file."""
