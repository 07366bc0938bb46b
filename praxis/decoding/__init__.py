"""Generation of text with a model that keeps a cache."""
