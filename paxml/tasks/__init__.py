"""The experiments that come with the trainer, runnable by name."""
