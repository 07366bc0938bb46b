"""Experiments for GPUs."""
