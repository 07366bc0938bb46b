"""Experiments for tests of the registry and the trainer."""
