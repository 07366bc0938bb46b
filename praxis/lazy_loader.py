"""Import on first use, under its public path."""

from praxis.config.lazy import LazyLoader

__all__ = ["LazyLoader"]
