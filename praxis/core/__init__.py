"""Foundation of the layer library: layers, variables, nested maps."""
