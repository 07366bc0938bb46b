"""Learners: from gradients to new weights."""
