"""Mistakes of the user, told in one line instead of a traceback."""

import dis
import os
import sys
from collections.abc import Callable
from types import TracebackType

from absl import app, flags

import paxml
import praxis

EXIT_CODE = 2

_OWN = tuple(f"{os.path.dirname(str(one.__file__))}{os.sep}" for one in (paxml, praxis))
_IF_OWN = (ValueError, TypeError, AttributeError, ImportError, NotImplementedError)


def guarded(command: str, call: Callable[[], int | None], *, show_traceback: bool = False) -> int:
    """Runs a command; a mistake of the user is printed as one message.

    Args:
      command: Name of the command, for the message.
      call: Returns the exit code; None is 0.
      show_traceback: Whether mistakes are raised like any other error.

    Returns:
      The exit code, 2 for a mistake of the user.
    """
    try:
        return call() or 0
    except BrokenPipeError:  # the reader of the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if show_traceback or not is_mistake_of_user(error):
            raise
        text = " ".join([str(error), *getattr(error, "__notes__", [])])
        print(f"pax {command}: error: {text}", file=sys.stderr)
        return EXIT_CODE


def is_mistake_of_user(error: BaseException) -> bool:
    """Whether an error says by itself what the user did wrong.

    That holds for what this library raises on purpose, and for files that cannot be read or
    written. An error that Python, JAX or the user's own code raises needs its traceback.
    """
    if isinstance(error, app.UsageError | flags.Error) or _is_own(type(error)):
        return True
    if isinstance(error, OSError):
        return error.filename is not None or _raised_on_purpose(error.__traceback__)
    return isinstance(error, _IF_OWN) and _raised_on_purpose(error.__traceback__)


def _is_own(kind: type) -> bool:
    """Whether a class of errors belongs to this library."""
    return kind.__module__.partition(".")[0] in (paxml.__name__, praxis.__name__)


def _raised_on_purpose(trace: TracebackType | None) -> bool:
    """Whether the innermost frame is a `raise` of this library."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    if not code.co_filename.startswith(_OWN):
        return False
    at = (one for one in dis.get_instructions(code) if one.offset == trace.tb_lasti)
    return any(one.opname == "RAISE_VARARGS" for one in at)
