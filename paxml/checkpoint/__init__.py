"""Saving and restoring of train states, on Orbax."""
