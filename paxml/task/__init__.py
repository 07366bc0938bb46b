"""Tasks: a model with its learner and the settings of a run."""
