"""The commands of `pax` that run no experiment: arguments in, text out."""
