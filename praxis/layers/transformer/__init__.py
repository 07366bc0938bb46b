"""Bodies of the transformer layers; import them from `praxis.layers.transformers`."""
