"""Differentially private gradients: clipped example by example, with noise."""
