"""The input that feeds language models with text."""

import enum
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from praxis import pax_fiddle, pytypes
from praxis.config.fields import template_field
from praxis.input import batch as batch_lib
from praxis.input.base import BaseInput
from praxis.input.text import order, sequence
from praxis.input.text import state as state_lib
from praxis.input.text.source import TextSource
from praxis.input.text.tokenizer import ByteTokenizer, Tokenizer


class Packing(enum.Enum):
    """How sequences become rows.

    SPLIT: one after the other into full rows; a sequence that does not fit goes on in the next.
    NONE: one sequence a row, and padding behind it.
    """

    SPLIT = "split"
    NONE = "none"


class TextInput(BaseInput):
    """Batches for language models from text files, tokenized while they are read.

    All sources together have one global order. Row r of a global batch of G rows reads the examples
    r, r + G, r + 2 G, ... of it, and process i of n fills the rows i G / n to (i + 1) G / n - 1.
    So a global batch depends on its number alone, and a run can go on with another number of
    processes, as long as G stays (`join_states`).

    A batch has, [B, T] each: `ids`, `labels` (the tokens after), `segment_ids` (which sequence of
    the row, from 1; 0 is padding), `segment_pos` (position in that part of the sequence), `weights`
    and `paddings` (1 marks padding). Models take it with `packed_input`.

    Data with an end: the last batches are filled up with rows of padding, weights 0, so that all
    processes give the same number of batches and each token counts once.

    Attributes:
      sources: Config of a TextSource, or several. Required.
      weights: How often each source is drawn from, up to a factor; data with an end then ends with
        the first source that does. None for each example once in a pass.
      tokenizer: Config of a Tokenizer.
      row_length: T, positions of a row. Required.
      packing: Whether rows are shared.
      truncate: With Packing.NONE, cut off sequences of more than T positions; else they are errors.
      shuffle: Whether each pass has another order; by `input_random_seed`, in which None counts
        as 0 so that all processes agree.
      num_epochs: Passes over the data. None for no end, or for one pass with `reset_for_eval`.

    Raises:
      ValueError: when built, if a field is missing or out of range; when the first batch is read,
        if a source is empty or there are fewer examples than processes; from `get_next`, naming
        file and line, if a text is ill-formed or too long.
      FileNotFoundError: when built, if a file is not there.
      ImportError: when built, if a source or tokenizer needs a package of the extra `data`.

    Example:
      >>> import pathlib, tempfile
      >>> from praxis.input.text.plain import TextFiles
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
      >>> _ = path.write_text("one")
      >>> config = TextInput.config(
      ...     batch_size=1, row_length=6, sources=[TextFiles.config(paths=path)], num_epochs=1
      ... )
      >>> batch = config.Instantiate().get_next()
      >>> batch.ids.tolist(), batch.labels.tolist()  # 256 begins a text, 257 ends it.
      ([[256, 111, 110, 101, 0, 0]], [[111, 110, 101, 257, 0, 0]])
      >>> batch.segment_ids.tolist()
      [[1, 1, 1, 1, 0, 0]]
    """

    sources: pax_fiddle.Config | Sequence[pax_fiddle.Config] = ()
    weights: Sequence[float] | None = None
    tokenizer: pax_fiddle.Config = template_field(ByteTokenizer)
    row_length: int = 0
    packing: Packing = Packing.SPLIT
    truncate: bool = False
    shuffle: bool = False
    num_epochs: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        sources = self.sources
        configs = [sources] if isinstance(sources, pax_fiddle.Config) else list(sources)
        self._check_fields(len(configs))
        self._sources: list[TextSource] = [config.Instantiate() for config in configs]
        self._tokenizer: Tokenizer = self.tokenizer.Instantiate()
        self._taken = 0
        self._rows: list[Any] | None = None

    def _check_fields(self, num_sources: int) -> None:
        if not num_sources:
            raise ValueError(
                f"{self._text}: sources is empty, expected configs of text sources, e.g. "
                "config.sources = [TextFiles.config(paths='data/*.txt')]."
            )
        if self.row_length < 1:
            raise ValueError(
                f"{self._text}: row_length is {self.row_length}, expected at least 1. Set it to "
                "the positions of a row, e.g. config.row_length = 512."
            )
        if self.num_epochs is not None and self.num_epochs < 1:
            raise ValueError(
                f"{self._text}: num_epochs is {self.num_epochs}, expected at least 1, or None for "
                "no end."
            )
        if not 0 <= self.infeed_host_index < self.num_infeed_hosts:
            raise ValueError(
                f"{self._text}: infeed_host_index is {self.infeed_host_index}, expected one of "
                f"num_infeed_hosts = {self.num_infeed_hosts}, counted from 0."
            )
        self._check_weights(num_sources)

    def _check_weights(self, num_sources: int) -> None:
        if self.weights is None:
            return
        if len(self.weights) != num_sources:
            raise ValueError(
                f"{self._text}: weights has {len(self.weights)} entries, expected one for each of "
                f"the {num_sources} sources."
            )
        if not all(0 < weight < float("inf") for weight in self.weights):
            raise ValueError(
                f"{self._text}: weights is {list(self.weights)}, expected positive numbers. Leave "
                "a source out to draw nothing from it."
            )

    @property
    def _global_rows(self) -> int:
        return self._batch_rows * self.num_infeed_hosts

    @property
    def _own_rows(self) -> range:
        first = self.infeed_host_index * self._batch_rows
        return range(first, first + self._batch_rows)

    @property
    def _pack_to(self) -> int | None:
        return self.row_length if self.packing is Packing.SPLIT else None

    @functools.cached_property
    def _order(self) -> Any:
        """All sequences, a `grain.MapDataset`; opens the sources."""
        for source in self._sources:
            source.check_not_empty()
        count = sum(map(len, self._sources))
        if count < self.num_infeed_hosts:
            raise ValueError(
                f"{self._text}: {count} examples are too few for {self.num_infeed_hosts} "
                "processes: each needs one at least."
            )
        sequences = [
            sequence.Sequences(
                source,
                self._tokenizer,
                max_length=None if self._pack_to else self.row_length,
                truncate=self.truncate,
            )
            for source in self._sources
        ]
        return order.global_order(
            sequences,
            weights=self.weights,
            shuffle=self.shuffle,
            seed=self.input_random_seed or 0,
            num_epochs=1 if self.num_epochs is None and self.reset_for_eval else self.num_epochs,
        )

    @property
    def _ends(self) -> bool:
        return self.num_epochs is not None or self.reset_for_eval

    @functools.cached_property
    def _num_batches(self) -> int | None:
        """Batches of each process until the data ends; None if it ends with the own rows, or never.

        How many rows packing makes of other processes' examples is only known by reading them:
        with several processes, packing and an end, each reads all the data once.
        """
        if not self._ends or self.num_infeed_hosts == 1:
            return None
        rows = self._global_rows
        if self._pack_to is None:
            return -(-len(self._order) // rows)
        lengths = np.zeros(rows, np.int64)
        for i in range(len(self._order)):
            lengths[i % rows] += len(self._order[i]["ids"])
        return int(-(-lengths.max() // self._pack_to))

    @property
    def vocab_size(self) -> int:
        """V of the tokenizer; what the model needs at least."""
        return self._tokenizer.vocab_size

    def _row_iterators(self) -> list[Any]:
        if self._rows is None:
            self._rows = [
                order.row_iterator(self._order, row, self._global_rows, pack_to=self._pack_to)
                for row in self._own_rows
            ]
        return self._rows

    def get_next(self) -> Any:
        iterators = self._row_iterators()
        if self._num_batches is not None and self._taken >= self._num_batches:
            raise StopIteration
        rows = [next(iterator, None) for iterator in iterators]
        if self._num_batches is None and not any(rows):
            raise StopIteration
        self._taken += 1
        full = [sequence.fill_row(row, self.row_length) for row in rows]
        return batch_lib.to_batch(sequence.stack_rows(full))

    def reset(self) -> None:
        super().reset()
        self._rows = None
        self._taken = 0

    def _identity(self) -> dict[str, Any]:
        return {
            "num_examples": [len(source) for source in self._sources],
            "weights": None if self.weights is None else list(self.weights),
            "tokenizer": [type(self._tokenizer).__name__, self.vocab_size],
            "row_length": self.row_length,
            "packing": self.packing.value,
            "truncate": self.truncate,
            "shuffle": self.shuffle,
            "input_random_seed": self.input_random_seed or 0,
            "global_batch_size": self._global_rows,
        }

    def _get_state_internal(self) -> bytes:
        states = [iterator.get_state() for iterator in self._row_iterators()]
        rows = {str(row): state for row, state in zip(self._own_rows, states, strict=True)}
        return state_lib.Position(self._taken, rows, self._identity()).encode()

    def _set_state_internal(self, state: bytes) -> None:
        position = state_lib.decode(state)
        state_lib.check_identity(position.identity, self._identity(), self._text)
        states = state_lib.own_rows(position, self._own_rows, self._text)
        self.reset()
        for iterator, row_state in zip(self._row_iterators(), states, strict=True):
            iterator.set_state(row_state)
        self._taken = position.batches

    def join_states(self, states: Sequence[bytes]) -> bytes:
        """One state of those of all processes, which any number of processes can continue from.

        Args:
          states: Of each process that saved, all after the same batch.

        Raises:
          ValueError: if they are not of one moment of one run.
        """
        try:
            return state_lib.join(states)
        except ValueError as error:
            raise ValueError(f"{self._text}: {error}") from error

    def ids_to_strings(
        self, ids: pytypes.NpTensor, lengths: pytypes.NpTensor, key: str | None = None
    ) -> Sequence[str]:
        return [
            self._tokenizer.decode(row[:length].tolist())
            for row, length in zip(ids, lengths, strict=True)
        ]
