"""Ways to go wrong, a file for each heading of docs/errors.md."""
