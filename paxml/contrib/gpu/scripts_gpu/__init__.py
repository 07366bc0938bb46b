"""Language models for GPUs, by size and data."""
