"""Jobs beside training: evaluation, decoding and inference of its checkpoints."""
