"""Text for language models: sources, tokenizers, one global order, full rows."""
