"""Version of the checkpoint format, under its public path."""

from paxml.checkpoint.version import get_version, get_version_key

__all__ = ["get_version", "get_version_key"]
