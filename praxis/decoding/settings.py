"""The settings of one call of `sample_decode`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from praxis.decoding.constraint import BaseSampleTerminationConstraint
from praxis.decoding.steps import DecodeSteps, decode_steps


@dataclasses.dataclass(frozen=True)
class SampleSettings:
    """The arguments of `sample_decode_after_fprop` but the model, checked; documented there."""

    extend_step_fn: Callable[..., Any]
    transform_state_fn: Callable[..., Any]
    lazy_broadcast_prefix_fn: Callable[..., Any] | None
    next_token_sampler: Callable[..., Any]
    prefix_ids: Int[Array, "B P"]
    prefix_paddings: Shaped[Array, "B P"]
    seq_len: int
    num_samples: int
    cf_guidance_scale: Any
    fprop_for_prefix: bool
    temperature: Any
    gumbel_prng_key: Any
    per_example_top_p: Any
    per_example_top_k: Any
    max_prefix_len: int | None
    max_decode_steps: DecodeSteps
    per_example_max_decode_steps: Any
    prefix_lengths: Int[Array, " B"] | None
    eos_id: int | Sequence[int] | Shaped[Array, "..."] | None
    result_callback: Any
    return_result_for_suffix_score: bool
    sort_samples: bool | None
    top_k_recall_target: float
    early_exit: bool
    use_top_k_for_logprobs: bool
    controlled_decoding: Any
    return_entropy_score: bool
    optimize_eos: bool
    sample_constraint: BaseSampleTerminationConstraint | None
    enforce_sample_constraints: Any
    num_per_token_logprobs: Any
    min_decode_steps: int

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "SampleSettings":
        """Picks the settings out of the arguments of a function."""
        return cls(**{field.name: arguments[field.name] for field in dataclasses.fields(cls)})

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(
                f"sample_decode: num_samples is {self.num_samples}, expected at least 1."
            )
        if (self.sample_constraint is None) != (self.enforce_sample_constraints is None):
            raise ValueError(
                "sample_decode: sample_constraint and enforce_sample_constraints go together, got "
                f"{self.sample_constraint} and {self.enforce_sample_constraints}."
            )
        needs_prefill = {
            "lazy_broadcast_prefix_fn": self.lazy_broadcast_prefix_fn is not None,
            "controlled_decoding": self.controlled_decoding is not None,
        }
        for name, is_set in needs_prefill.items():
            if is_set and not self.fprop_for_prefix:
                raise ValueError(
                    f"sample_decode: {name} needs fprop_for_prefix = True: prefixes that the loop "
                    "feeds token by token have no cache of their own."
                )
        if self.optimize_eos and (self.eos_id is None or getattr(self.eos_id, "ndim", 0) == 2):
            raise ValueError(
                f"sample_decode: optimize_eos = True needs eos_id, a token or tokens that end a "
                f"text, got {self.eos_id}."
            )
        self._check_controlled()

    def _check_controlled(self) -> None:
        if self.controlled_decoding is None:
            return
        for field in ("interval", "block_num_samples"):
            if (value := getattr(self.controlled_decoding, field)) < 1:
                raise ValueError(
                    f"sample_decode: controlled_decoding.{field} is {value}, expected at least 1."
                )
        if not isinstance(self.max_decode_steps, int):
            raise ValueError(
                "sample_decode: controlled_decoding needs max_decode_steps to be an int, the most "
                f"tokens to generate, got {self.max_decode_steps}."
            )

    @property
    def steps(self) -> list[int]:
        """The limits of tokens to generate, see `decode_steps`."""
        return decode_steps(self.max_decode_steps, self.seq_len)

    @property
    def room(self) -> int:
        """Steps that caches of the prefixes, or of one token, lack for the first loop."""
        if self.fprop_for_prefix:
            return self.steps[0]
        if not self.early_exit:
            return self.seq_len - 1
        # No row generates more than the limit after the widest prefix.
        return min(self.seq_len, self.prefix_ids.shape[1] + self.steps[-1]) - 1

    @property
    def copies(self) -> int:
        """Beginnings that are kept of each row."""
        if self.controlled_decoding is None:
            return self.num_samples
        return self.num_samples * self.controlled_decoding.block_num_samples

    @property
    def original_lengths(self) -> Int[Array, " B"]:
        """[B], tokens of each row that are not padding."""
        return jnp.sum((self.prefix_paddings == 0).astype(jnp.int32), axis=1)
