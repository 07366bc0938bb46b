"""Files that hold the outputs of evaluation, decoding and inference."""
