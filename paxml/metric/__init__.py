"""Metrics over batches, and the loss among them."""
