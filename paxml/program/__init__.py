"""Programs that run steps on batches, and the executor that interleaves them."""
