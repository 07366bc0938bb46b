"""Records of an inference job, spread over several files."""

from collections.abc import Sequence

from etils import epath

from paxml.output.formats import OutputFormatType


def check_format(output_format: OutputFormatType) -> None:
    """Refuses a format that cannot be written.

    Raises:
      NotImplementedError: for TFRecord files.
    """
    if output_format != OutputFormatType.JSONL:
        raise NotImplementedError(
            f"output_format {output_format.name} needs TensorFlow and cannot be written. Set "
            "infer_writer.output_format = OutputFormatType.JSONL: one JSON object a line."
        )


class ShardedParallelWriter:
    """Writes records in turn to `<name>-00000-of-00032` and so on.

    The files have these names when `close` returns; until then they end in `.tmp`. A writer that
    is left by an exception removes them.

    Example:
      with ShardedParallelWriter("out/x.jsonl", 2, OutputFormatType.JSONL) as writer:
          writer.write([b'{"score": 1}', b'{"score": 2}'])
    """

    def __init__(
        self,
        fq_filename: epath.PathLike,
        num_shards: int,
        output_format: OutputFormatType = OutputFormatType.TFRECORD,
    ) -> None:
        """Opens the files.

        Args:
          fq_filename: Path without the number of the shard; the directory is made.
          num_shards: Number of files, at least 1.
          output_format: JSONL.

        Raises:
          NotImplementedError: for TFRecord files.
          ValueError: if there are no files to be.
        """
        check_format(output_format)
        if num_shards < 1:
            raise ValueError(f"{fq_filename}: num_shards is {num_shards}, expected at least 1.")
        path = epath.Path(fq_filename)
        path.parent.mkdir(parents=True, exist_ok=True)
        names = [f"{path.name}-{shard:05d}-of-{num_shards:05d}" for shard in range(num_shards)]
        self._paths = [path.parent / name for name in names]
        self._files = [_temporary(one).open("wb") for one in self._paths]
        self._next = 0
        self._closed = False

    def __enter__(self) -> "ShardedParallelWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon()

    def write(self, chunk: Sequence[bytes]) -> None:
        """Writes records, each to the next file.

        Raises:
          ValueError: if a record holds a line break.
        """
        for record in chunk:
            if b"\n" in record:
                raise ValueError(f"A record holds a line break: {record[:80]!r}. Write it escaped.")
            self._files[self._next].write(record + b"\n")
            self._next = (self._next + 1) % len(self._files)

    def close(self) -> None:
        """Gives the files their names."""
        if self._closed:
            return
        self._closed = True
        for file in self._files:
            file.close()
        for path in self._paths:
            _temporary(path).replace(path)

    def _abandon(self) -> None:
        self._closed = True
        for file, path in zip(self._files, self._paths, strict=True):
            file.close()
            _temporary(path).unlink(missing_ok=True)


def _temporary(path: epath.Path) -> epath.Path:
    return path.with_name(f"{path.name}.tmp")
