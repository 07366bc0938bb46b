"""The base class of tasks, under its public path."""

from paxml.task.base import BaseTask

__all__ = ["BaseTask"]
