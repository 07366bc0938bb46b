"""Command line: flags, modes and the two entry points."""
