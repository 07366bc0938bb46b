"""One way to go wrong, and the list of all."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Situation:
    """One way to go wrong.

    Attributes:
      section: Heading it stands under.
      title: What is wrong.
      provoke: Makes the error.
    """

    section: str
    title: str
    provoke: Callable[[], Any]


SITUATIONS: list[Situation] = []


def situation(section: str, title: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Registers a function that makes an error."""

    def register(provoke: Callable[[], Any]) -> Callable[[], Any]:
        SITUATIONS.append(Situation(section, title, provoke))
        return provoke

    return register
