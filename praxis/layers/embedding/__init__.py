"""Embedding tables, softmax output layers and position embeddings."""
