"""Autoencoders of video with quantized codes."""
