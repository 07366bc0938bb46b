"""Language models: settings shared by families of experiments, and the families."""
