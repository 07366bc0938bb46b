"""Experiments for Fiddle's command line."""
