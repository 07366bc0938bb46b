"""The trainer: experiments, tasks, learners, checkpoints and programs for praxis models."""
