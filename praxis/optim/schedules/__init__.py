"""Schedules: multipliers of the learning rate as functions of the step."""
