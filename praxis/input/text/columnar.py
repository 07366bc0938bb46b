"""Sources with an index of their own: ArrayRecord and Parquet."""

import functools
from typing import Any

from praxis.input.text import extras, files
from praxis.input.text.source import TextSource, field_of_json


class ArrayRecords(TextSource):
    """ArrayRecord files, read record by record: for data of any size.

    Attributes:
      field: Where the text is in a record of JSON; None if the record is the text itself, in UTF-8.
    """

    field: str | None = None

    @functools.cached_property
    def _readers(self) -> list[Any]:
        import grain

        # Grain reads through the package array_record, which it brings except on Windows.
        extras.load("array_record.python.array_record_data_source", type(self).__name__)
        return [grain.sources.ArrayRecordDataSource([path]) for path in self._files]

    def sizes(self) -> list[int]:
        return [len(reader) for reader in self._readers]

    def read(self, file: int, index: int) -> str:
        origin = self.origin(file, index)
        text = files.decode(self._readers[file][index], origin)
        return text if self.field is None else field_of_json(text, self.field, origin)


class Parquet(TextSource):
    """A column of Parquet files, which every process holds in memory.

    Row groups cannot be read in any order at a good speed; ArrayRecords suits larger data.

    Attributes:
      field: Name of the column, of texts.

    Raises:
      ImportError: when built without the package pyarrow, of the extra `data`.
      ValueError: when the first text is read, if there is no such column.
      TypeError: then, if it does not hold texts.
    """

    field: str = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        extras.load("pyarrow.parquet", type(self).__name__)

    @functools.cached_property
    def _columns(self) -> list[Any]:
        return [self._column(path) for path in self._files]

    def _column(self, path: str) -> Any:
        arrow = extras.load("pyarrow", type(self).__name__)
        parquet = extras.load("pyarrow.parquet", type(self).__name__)
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            owner = f"{type(self).__name__} {path!r}"
            if self.field not in schema.names:
                raise ValueError(
                    f"{owner}: there is no field {self.field!r}; it has {sorted(schema.names)}. "
                    "Set field to one that holds the text."
                )
            kind = schema.field(self.field).type
            if not (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
                raise TypeError(f"{owner}: field {self.field!r} is a {kind}, expected a string.")
            return file.read(columns=[self.field]).column(self.field)

    def sizes(self) -> list[int]:
        return [len(column) for column in self._columns]

    def read(self, file: int, index: int) -> str:
        value = self._columns[file][index].as_py()
        if value is None:
            raise TypeError(
                f"{self.origin(file, index)}: field {self.field!r} is null, expected a text."
            )
        return value
