"""What the commands of `pax` do, as functions."""
