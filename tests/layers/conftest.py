"""Layers are compiled often here, so compile fast."""

from fast_compiles import fast_compiles

__all__ = ["fast_compiles"]
