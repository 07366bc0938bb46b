"""The base class of executors, under its public path."""

from paxml.program.base_executor import BaseExecutor

__all__ = ["BaseExecutor"]
