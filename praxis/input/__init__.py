"""Sources of batches, without TensorFlow."""
