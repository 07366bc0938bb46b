"""Arguments of rows, repeated for each of their samples."""

from typing import Any

import jax.numpy as jnp

from praxis.decoding.samplers import DUMMY_PRNG_KEY


class Repeater:
    """Repeats what belongs to a row for each of its samples, so that these are neighbours.

    With guidance rows come in pairs, and what belongs to a pair is repeated for both rows.
    """

    def __init__(self, batch: int, num_samples: int, *, pairs: bool = False) -> None:
        """For `batch` rows, or half as many pairs of rows, and `num_samples` of each row.

        Raises:
          ValueError: if rows do not come in pairs.
        """
        if pairs and batch % 2:
            raise ValueError(
                f"sample_decode: the batch has {batch} rows, but cf_guidance_scale needs pairs: a "
                "row with the condition, and then the same row without it."
            )
        self.rows = batch
        self.batch = batch // 2 if pairs else batch
        self.num_samples = num_samples
        self.pairs = pairs

    def rows_of(self, name: str, x: Any) -> Any:
        """Repeats what is given for each row, also of pairs: [B, ...] to [B * n, ...].

        Raises:
          ValueError: if the first axis is not B.
        """
        x = jnp.asarray(x)
        if x.ndim < 1 or x.shape[0] != self.rows:
            raise ValueError(
                f"sample_decode: {name} has shape {x.shape}, expected one entry for each of the "
                f"{self.rows} rows of the batch."
            )
        return jnp.repeat(x, self.num_samples, axis=0)

    def __call__(self, name: str, x: Any) -> Any:
        """Repeats [B, ...], or [B / 2, ...] of pairs, to [B * n, ...]; None stays None.

        Raises:
          ValueError: if the first axis is another.
        """
        if x is None:
            return None
        x = jnp.asarray(x)
        if x.ndim < 1 or x.shape[0] != self.batch:
            of = f"{self.batch} pairs of rows" if self.pairs else f"{self.batch} rows"
            raise ValueError(
                f"sample_decode: {name} has shape {x.shape}, expected one entry for each of the "
                f"{of} of the batch."
            )
        return jnp.repeat(x, self.num_samples * (2 if self.pairs else 1), axis=0)

    def given(self, **values: Any) -> dict[str, Any]:
        """Repeats those of the values that are not None."""
        return {name: self(name, value) for name, value in values.items() if value is not None}

    def temperature(self, value: Any) -> Any:
        """A number as it is; [B] and [B, n] as [B * n]."""
        if value is None or isinstance(value, int | float):
            return value
        value = jnp.asarray(value)
        if value.ndim == 0:
            return value
        if value.ndim == 2 and value.shape == (self.batch, self.num_samples):
            both = jnp.repeat(value, 2, axis=0) if self.pairs else value
            return both.reshape(-1)
        return self("temperature", value.reshape(-1) if value.shape[1:] == (1,) else value)

    def seeds(self, value: Any) -> dict[str, Any]:
        """A seed [B] or a key [B, 2] of each row, different for each of its samples, by name."""
        repeated = self("gumbel_prng_key", value)
        if repeated is None:
            return {}
        if self.num_samples > 1:
            sample = jnp.tile(jnp.arange(self.num_samples, dtype=jnp.uint32), self.rows)
            sample = sample.reshape(-1, *(1,) * (repeated.ndim - 1))
            # An odd factor, so that the seeds of neighbouring rows do not meet. Dummies stay.
            varied = repeated.astype(jnp.uint32) + sample * jnp.uint32(0x9E3779B1)
            is_dummy = jnp.all(repeated == DUMMY_PRNG_KEY)
            repeated = jnp.where(is_dummy, DUMMY_PRNG_KEY, varied)
        return {"gumbel_prng_key": repeated}
