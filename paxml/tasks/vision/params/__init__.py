"""Image experiments, one family a file."""
