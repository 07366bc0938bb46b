"""Where summaries are written: TensorBoard, JSON lines, Weights & Biases."""
