"""Convolutions over time, images and video."""
