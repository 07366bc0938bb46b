"""Plain sampling: one continuation of each prefix, without an axis of samples."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Array, Int, Shaped

from praxis import py_utils
from praxis.decoding.sample import sample_decode

NestedMap = py_utils.NestedMap


def vanilla_sample_decode(
    model: Any,
    fprop_fn: Callable[..., Any],
    extend_step_fn: Callable[..., Any],
    transform_state_fn: Callable[..., Any],
    next_token_sampler: Callable[..., NestedMap],
    prefix_ids: Int[Array, "B P"],
    prefix_paddings: Shaped[Array, "B P"],
    temperature: float | Shaped[Array, "..."] | None = 1.0,
    gumbel_prng_key: Shaped[Array, "..."] | None = None,
    max_decode_steps: int = 0,
    eos_id: int | Sequence[int] | Shaped[Array, "..."] | None = None,
    decode_loop_mesh_axes_transpose: dict[str, str] | None = None,
    model_var_pspecs: Any = None,
) -> NestedMap:
    """Draws one continuation of each prefix; arguments as in `sample_decode`.

    Args:
      model: The model.
      fprop_fn: Fills the caches with the prefixes.
      extend_step_fn: Adds a token to the caches.
      transform_state_fn: Replaces the caches.
      next_token_sampler: Chooses tokens.
      prefix_ids: [B, P], aligned to the right.
      prefix_paddings: [B, P], 1 marks padding.
      temperature: Of all rows, or [B].
      gumbel_prng_key: [B] or [B, 2].
      max_decode_steps: Most tokens to generate, at least 1.
      eos_id: What ends a text.
      decode_loop_mesh_axes_transpose: Real mesh axis by the annotated one, in the loop.
      model_var_pspecs: PartitionSpecs of the parameters, for that.

    Returns:
      `output_ids` and `logprobs` [B, P + max_decode_steps], `prefix_ids` [B, P], `prefix_lengths`
      and `decode_lengths` [B], as in `sample_decode` for the one sample.

    Raises:
      ValueError: if `max_decode_steps` is below 1, or arguments do not go together.
    """
    if max_decode_steps < 1:
        raise ValueError(
            f"vanilla_sample_decode: max_decode_steps is {max_decode_steps}, expected at least 1 "
            "token."
        )
    result = sample_decode(
        model,
        extend_step_fn,
        transform_state_fn,
        None,
        next_token_sampler,
        prefix_ids,
        prefix_paddings,
        prefix_ids.shape[1] + max_decode_steps,
        num_samples=1,
        fprop_fn=fprop_fn,
        fprop_for_prefix=True,
        temperature=temperature,
        gumbel_prng_key=gumbel_prng_key,
        max_decode_steps=max_decode_steps,
        eos_id=eos_id,
        decode_loop_mesh_axes_transpose=decode_loop_mesh_axes_transpose,
        model_var_pspecs=model_var_pspecs,
    )
    return result.Transform(lambda x: x[:, 0])
