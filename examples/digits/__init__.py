"""Handwritten digits, and how well each optimizer learns them."""
