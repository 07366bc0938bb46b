"""Names of inputs that needed TensorFlow; using one says what replaces it."""

import dataclasses
from typing import Any, ClassVar

from praxis.input.base import BaseInput


class LingvoInputAdaptor(BaseInput):
    """Gone with TensorFlow: use IterableInput, GrainInput or NumpyInput.

    Raises:
      NotImplementedError: when built; names the replacement.
    """

    REPLACEMENT: ClassVar[str] = "IterableInput, GrainInput or NumpyInput"

    input: Any = None
    num_batches: int | None = None
    cluster_do_eval: bool = False
    allow_fixed_file_random_seed: bool = False
    input_inst: Any = dataclasses.field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        raise self._gone()

    def _gone(self) -> NotImplementedError:
        return NotImplementedError(
            f"{type(self).__name__} read its data with TensorFlow, which this library does not "
            f"use. Use praxis.base_input.{self.REPLACEMENT} instead."
        )

    @property
    def num_samples(self) -> int:
        """Raises, like everything here."""
        raise self._gone()


class LingvoInputAdaptorNewBatchSize(LingvoInputAdaptor):
    """Gone with TensorFlow: use RebatchInput."""

    REPLACEMENT: ClassVar[str] = "RebatchInput"


class LingvoEvalAdaptor(LingvoInputAdaptor):
    """Gone with TensorFlow: use EvalAdaptor."""

    REPLACEMENT: ClassVar[str] = "EvalAdaptor"


class LingvoLazyEvalAdaptor(LingvoInputAdaptor):
    """Gone with TensorFlow: use EvalAdaptor, whose `data` may be a source that reads lazily."""

    REPLACEMENT: ClassVar[str] = "EvalAdaptor"

    computed_num_batches: Any = dataclasses.field(init=False, default=None, repr=False)
