"""Base of all inputs: batches, peeking, padding, state."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh

from praxis import pax_fiddle, pytypes
from praxis.config.hparams_view import HParamsView
from praxis.config.parameterizable import FiddleBaseParameterizable
from praxis.input import batch as batch_lib
from praxis.input import state as state_lib
from praxis.utils import batches, devices

_NAME_PATTERN = re.compile(r"[a-zA-Z0-9.:_+-]+")


def end_of_data(error: BaseException) -> bool:
    """Whether an exception says that an input has no more batches.

    Besides StopIteration that is an OutOfRangeError, recognised by the name of its class so that
    the library it comes from is not needed.
    """
    return isinstance(error, StopIteration) or any(
        kind.__name__ == "OutOfRangeError" for kind in type(error).__mro__
    )


class BaseInput(FiddleBaseParameterizable):
    """One process's source of batches.

    The trainer makes one instance in each process. `get_next` returns a NestedMap of NumPy arrays
    [batch_size, ...]: the next batch of shard `infeed_host_index` of `num_infeed_hosts`. Data that
    ends raises StopIteration.

    A subclass implements `get_next`, or sets `dataset` to an iterable of batches. It implements
    `reset` (calling this one) where evaluation runs over the data repeatedly, and
    `_get_state_internal` and `_set_state_internal` so that training can be resumed exactly. All
    its randomness follows from `input_random_seed`.

    Attributes:
      name: Letters, digits and `.:_+-`. By default `train` or, if not `is_training`, `input`.
      batch_size: B, rows of a batch of this process. Required.
      is_training: Whether the batches are for training.
      num_infeed_hosts: Processes that read data; 0 becomes 1.
      infeed_host_index: Which of them this one is.
      reset_for_eval: Evaluate to the end of the data, then reset. Every process must then end
        after the same number of batches. Otherwise `get_next` must never end.
      eval_loop_num_batches: Batches in one evaluation, -1 or None for all.
      input_random_seed: Seed of all randomness.
      input_checkpointing_enabled: Whether the trainer saves the state of this input.
      batch_padding_size: Rows of zeros that `get_next_padded` adds, so that the rows divide over
        the devices.
      custom_device_order: Ids of all devices in the order of the rows of the global batch; by
        default that of the mesh.
      experimental_remote_input: Whether another machine reads the data.
      tf_data_service_address: Not used; kept for configs that set it.
      dataset: An iterable of batches, set by a subclass.

    Raises:
      ValueError: when built without a batch size, with an ill-formed name, or with a number of
        evaluation batches that is neither positive nor -1.
    """

    batch_size: int | None = None
    is_training: bool = False
    num_infeed_hosts: int = 0
    infeed_host_index: int = 0
    reset_for_eval: bool = False
    eval_loop_num_batches: int | None = 1
    input_random_seed: int | None = None
    input_checkpointing_enabled: bool = False
    batch_padding_size: int = 0
    custom_device_order: Sequence[int] | None = None
    experimental_remote_input: bool = False
    tf_data_service_address: str | None = None
    dataset: Any = dataclasses.field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._peek: Any = None
        self._state_before_peek: bytes | None = None
        self._iterator: Iterator[Any] | None = None
        if not self.name:
            self.name = "train" if self.is_training else "input"
        if not _NAME_PATTERN.fullmatch(self.name):
            raise ValueError(
                f"{self._text}: the name must match {_NAME_PATTERN.pattern!r}, got {self.name!r}."
            )
        self.num_infeed_hosts = self.num_infeed_hosts or 1
        self._check_batch_size()
        count = self.eval_loop_num_batches
        if count is not None and count != -1 and count < 1:
            raise ValueError(
                f"{self._text}: eval_loop_num_batches is {count}, expected a positive number, or "
                "-1 for all batches."
            )

    @property
    def _text(self) -> str:
        """Class and name, for error messages."""
        return f"{type(self).__name__} {self.name!r}"

    @property
    def _batch_rows(self) -> int:
        """`batch_size`, which is known to be set once the input is built."""
        assert self.batch_size is not None
        return self.batch_size

    def _check_batch_size(self) -> None:
        if self.batch_size is None:
            raise ValueError(
                f"{self._text}: batch_size is not set. Set it to the rows of one process's batch, "
                "e.g. config.batch_size = 8."
            )

    @classmethod
    def get_batch_size(cls, params: pax_fiddle.Config | HParamsView) -> int:
        """Rows of a batch of one process, before padding."""
        return params.batch_size

    @classmethod
    def get_global_batch_size(cls, params: pax_fiddle.Config | HParamsView) -> int:
        """Rows of a batch of all processes, before padding."""
        return cls.get_batch_size(params) * (params.num_infeed_hosts or 1)

    def get_next(self) -> Any:
        """The next batch of this process.

        Raises:
          StopIteration: at the end of the data.
          NotImplementedError: if the subclass neither overrides this nor sets `dataset`.
        """
        if self._iterator is None:
            if self.dataset is None:
                raise NotImplementedError(
                    f"{type(self).__name__} must implement get_next, or set self.dataset to an "
                    "iterable of batches."
                )
            self._iterator = iter(self.dataset)
        return batch_lib.to_batch(next(self._iterator))

    def get_next_padded(self) -> Any:
        """The peeked batch if there is one, else the next one with `batch_padding_size` more rows.

        Raises:
          StopIteration: at the end of the data.
        """
        if self._peek is not None:
            peeked = self._peek
            self._drop_peek()
            return peeked
        batch = self.get_next()
        if not self.batch_padding_size:
            return batch
        return batch_lib.pad_rows(batch, self.batch_padding_size)

    def peek_padded(self) -> Any:
        """The next padded batch, which stays the next one; None at the end of the data."""
        if self._peek is not None:
            return self._peek
        try:
            state = self.get_state()
        except NotImplementedError:
            state = None
        try:
            self._peek = self.get_next_padded()
        except Exception as error:
            if not end_of_data(error):
                raise
            logging.warning("%s: peeked at the end of the data.", self._text)
            return None
        self._state_before_peek = state
        return self._peek

    def _drop_peek(self) -> None:
        self._peek = None
        self._state_before_peek = None

    def reset(self) -> None:
        """Starts from the beginning; subclasses call this one too."""
        self._drop_peek()
        self._iterator = None

    def get_state(self) -> bytes:
        """The position in the data; a peeked batch counts as unread.

        Raises:
          NotImplementedError: if this input has no state.
          ValueError: if it has none and a batch was peeked.
        """
        if self._peek is None:
            return self._get_state_internal()
        if self._state_before_peek is None:
            raise ValueError(
                f"{self._text}: a batch was peeked, and this input could not give its state before "
                "that. Implement _get_state_internal, or take the batch first."
            )
        return self._state_before_peek

    def set_state(self, state: bytes) -> None:
        """Goes to a position given by `get_state`.

        Raises:
          NotImplementedError: if this input has no state.
          ValueError: if the state is not one of this input.
        """
        self._drop_peek()
        self._set_state_internal(state)

    def _get_state_internal(self) -> bytes:
        raise NotImplementedError(
            f"{type(self).__name__} has no state: it does not implement _get_state_internal."
        )

    def _set_state_internal(self, state: bytes) -> None:
        raise NotImplementedError(
            f"{type(self).__name__} has no state: it does not implement _set_state_internal."
        )

    def join_states(self, states: Sequence[bytes]) -> bytes:
        """One state of those of all processes, for a run with another number of them.

        Args:
          states: What `get_state` gave in each process, all after the same batch.

        Raises:
          NotImplementedError: if this input cannot continue with another number of processes.
        """
        raise NotImplementedError(
            f"{self._text} has no join_states: it continues with as many processes as saved it."
        )

    def save(self, checkpoint_path: str | pathlib.PurePath) -> None:
        """Writes the state to a file, which appears only when it is complete."""
        state_lib.write_atomically(checkpoint_path, self.get_state())

    def restore(self, checkpoint_path: str | pathlib.PurePath) -> None:
        """Reads the state from a file that `save` wrote.

        Raises:
          FileNotFoundError: if there is no file.
          ValueError: if it does not hold a state of this input.
        """
        state = pathlib.Path(checkpoint_path).read_bytes()
        try:
            self.set_state(state)
        except NotImplementedError:
            raise
        except Exception as error:
            raise ValueError(
                f"{self._text}: the {len(state)} bytes of {str(checkpoint_path)!r} are not a state "
                f"of this input: {error}"
            ) from error

    def __reduce__(self) -> Any:
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.init
        }
        try:
            state = self.get_state()
        except NotImplementedError:
            state = None
        return _rebuild, (type(self), values, state)

    def get_child(self, input_name: str) -> "BaseInput":
        """The input inside this one that has a name.

        Raises:
          NotImplementedError: if this input has no others inside.
        """
        raise NotImplementedError(f"{self._text} has no children, so no {input_name!r}.")

    def ids_to_strings(
        self, ids: pytypes.NpTensor, lengths: pytypes.NpTensor, key: str | None = None
    ) -> Sequence[str]:
        """The texts of rows of token ids.

        Args:
          ids: [B, T].
          lengths: [B]; only the first `length` ids of a row count.
          key: Which tokenizer, where an input has several.

        Raises:
          NotImplementedError: if the subclass does not implement it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement ids_to_strings.")

    def reshard_for_pmap(self, arrays: Any) -> Any:
        """Arrays [B, ...] as [n, B / n, ...] for n local devices."""
        return jax.tree.map(batches.reshard, arrays)

    def reshard_for_spmd(self, arrays: Any, global_mesh: Mesh, pspecs: Any) -> Any:
        """Makes global arrays of the batches of all processes.

        Args:
          arrays: The padded batch of this process.
          global_mesh: Over all devices.
          pspecs: PartitionSpec of each array.

        Returns:
          Tree of global arrays. With `custom_device_order`, their rows are in its order.
        """
        if self.custom_device_order is not None:
            return batch_lib.make_array_in_order(arrays, global_mesh, self.custom_device_order)
        shapes = jax.tree.map(devices.get_global_input_shape_dtype, arrays)
        return devices.make_array(arrays, shapes, global_mesh, pspecs)


def _rebuild(cls: type[BaseInput], values: dict[str, Any], state: bytes | None) -> BaseInput:
    rebuilt = cls(**values)
    if state is not None:
        rebuilt.set_state(state)
    return rebuilt
