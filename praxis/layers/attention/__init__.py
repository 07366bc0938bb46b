"""Bodies of the attention layers; import them from `praxis.layers.attentions`."""
