"""Programs here are compiled without most optimizations."""

from fast_compiles import fast_compiles

__all__ = ["fast_compiles"]
