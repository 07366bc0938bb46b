"""Contributed experiments."""
