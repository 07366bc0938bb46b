"""Sources that need no index beside them: text files and JSON lines."""

import enum
import functools
import os

from praxis.input.text import files
from praxis.input.text.source import TextSource, field_of_json


class Unit(enum.Enum):
    """What makes one text of a file."""

    LINE = "line"
    DOCUMENT = "document"


class _LineSource(TextSource):
    """Texts found line by line."""

    @functools.cached_property
    def _lines(self) -> list[files.Lines]:
        return [files.find_lines(path) for path in self._files]

    def sizes(self) -> list[int]:
        return [len(lines.begin) for lines in self._lines]

    def read(self, file: int, index: int) -> str:
        lines = self._lines[file]
        begin, end = int(lines.begin[index]), int(lines.end[index])
        return files.read_text(self._files[file], begin, end, self.origin(file, index))

    def origin(self, file: int, index: int) -> str:
        number = self._lines[file].number[index]
        return f"{type(self).__name__} {self._files[file]!r}, line {number}"


class TextFiles(_LineSource):
    r"""Text files in UTF-8.

    Attributes:
      unit: LINE makes each line that is not empty a text, without its line break; DOCUMENT makes
        each file that is not empty one text.

    Example:
      >>> import pathlib, tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> _ = (folder / "a.txt").write_text("one\n\ntwo\n")
      >>> list(TextFiles(paths=folder / "*.txt"))
      ['one', 'two']
    """

    unit: Unit = Unit.LINE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit is Unit.DOCUMENT:
            self._documents = [path for path in self._files if os.path.getsize(path)]

    def sizes(self) -> list[int]:
        return super().sizes() if self.unit is Unit.LINE else [len(self._documents)]

    def read(self, file: int, index: int) -> str:
        if self.unit is Unit.LINE:
            return super().read(file, index)
        return files.read_text(self._documents[index], 0, None, self.origin(file, index))

    def origin(self, file: int, index: int) -> str:
        if self.unit is Unit.LINE:
            return super().origin(file, index)
        return f"{type(self).__name__} {self._documents[index]!r}"


class JsonLines(_LineSource):
    """Files with one JSON object a line.

    Attributes:
      field: Where the text is; dots lead into nested objects.
    """

    field: str = "text"

    def read(self, file: int, index: int) -> str:
        return field_of_json(super().read(file, index), self.field, self.origin(file, index))
