"""Hides random stretches of time and bands of frequency of a spectrogram."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from praxis import base_layer, py_utils


def draw_spans(
    length_key: PRNGKeyArray,
    start_key: PRNGKeyArray,
    *,
    ranges: Int[Array, " B"],
    size: int,
    max_length: int | None,
    num_spans: int,
    max_ratio: float,
    spans_per_place: float = 0.0,
) -> Bool[Array, "B _"]:
    """Draws spans of random lengths at random starts, and marks the places in any of them.

    A length is a whole number from 0 to below `max_length`, or without that to below `max_ratio`
    of the range; and at most `max_ratio` of the range, or 1 if that is none. Then all starts that
    keep the span within the range are equally likely.

    Args:
      length_key: For the lengths.
      start_key: For the starts.
      ranges: [B], places that spans may cover: the first ones of a row.
      size: n, the number of places of a row.
      max_length: Above all lengths; None: `max_ratio` alone is.
      num_spans: Drawn for each row.
      max_ratio: Largest share of the range that a span covers.
      spans_per_place: If above 0, only this many spans a place of the range count.

    Returns:
      [B, n], True in a span.
    """
    shape = (ranges.shape[0], num_spans)
    ranges = jnp.broadcast_to(ranges[:, jnp.newaxis], shape)
    # Whole numbers from here on, as shares of the range are rounded down.
    by_ratio = ranges.astype(jnp.float32) * max_ratio
    longest = by_ratio if max_length is None else jnp.float32(max_length)
    lengths = (jax.random.uniform(length_key, shape) * longest).astype(jnp.int32)
    lengths = jnp.minimum(lengths, jnp.maximum(by_ratio.astype(jnp.int32), 1))
    starts = jax.random.uniform(start_key, shape) * (ranges - lengths + 1).astype(jnp.float32)
    starts = starts.astype(jnp.int32)[:, :, jnp.newaxis]
    places = jnp.arange(size)[jnp.newaxis, jnp.newaxis]
    spans = (places >= starts) & (places < starts + lengths[:, :, jnp.newaxis])  # [B, spans, n]
    if spans_per_place > 0.0:
        allowed = (ranges.astype(jnp.float32) * spans_per_place).astype(jnp.int32)
        spans &= (jnp.arange(num_spans)[jnp.newaxis] < allowed)[:, :, jnp.newaxis]
    return jnp.any(spans, axis=1)


class SpectrumAugmenter(base_layer.BaseLayer):
    """Zeroes random spans of frames, and random bands of frequency bins, in training.

    Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition",
    2019, arXiv:1904.08779, without the warping of time; with spans that adapt to the length, as in
    "SpecAugment on Large Scale Datasets", 2019, arXiv:1912.05533. Spans may overlap.

    Attributes:
      freq_mask_max_bins: Bands are narrower than this, in bins; 0 hides no bands.
      freq_mask_count: Bands an example; 0 hides none.
      use_dynamic_time_mask_max_frames: Limit the spans by `time_mask_max_ratio` alone.
      time_mask_max_frames: Spans are shorter than this, in frames, unless the limit is dynamic; 0
        hides none.
      time_mask_count: Spans an example, at most; 0 hides none.
      time_mask_max_ratio: Largest share of the frames of an example that a span covers; 0 hides
        none. A span may have one frame in any case.
      time_masks_per_frame: If above 0, examples have this many spans a frame, rounded down, and at
        most `time_mask_count`.
      augment_at_eval: Augment in evaluation too.

    Raises:
      ValueError: during setup, if a field is out of range; in `__call__`, if the paddings do not
        fit.
    """

    freq_mask_max_bins: int = 27
    freq_mask_count: int = 2
    use_dynamic_time_mask_max_frames: bool = True
    time_mask_max_frames: int = 40
    time_mask_count: int = 10
    time_mask_max_ratio: float = 0.05
    time_masks_per_frame: float = 0.0
    augment_at_eval: bool = False

    def setup(self) -> None:
        for field in (
            "freq_mask_max_bins",
            "freq_mask_count",
            "time_mask_max_frames",
            "time_mask_count",
            "time_mask_max_ratio",
            "time_masks_per_frame",
        ):
            if (value := getattr(self, field)) < 0:
                raise ValueError(f"{self.path_text}: {field} is {value}, expected at least 0.")
        if self.time_mask_max_ratio > 1.0:
            raise ValueError(
                f"{self.path_text}: time_mask_max_ratio is {self.time_mask_max_ratio}, expected a "
                "share of the frames, at most 1."
            )

    def __call__(
        self, inputs: Float[Array, "B T F"], paddings: Shaped[Array, "..."]
    ) -> tuple[Float[Array, "B T F"], Shaped[Array, "B T"]]:
        """Hides parts of spectrograms.

        Args:
          inputs: [B, T, F], frames of frequency bins.
          paddings: [B, T], 1 marks padding, all of it after the frames.

        Returns:
          The inputs, with 0 where something is hidden, and the paddings.
        """
        if paddings.shape != inputs.shape[:2]:
            raise ValueError(
                f"{self.path_text}: paddings have shape {paddings.shape}, inputs have shape "
                f"{inputs.shape}; expected paddings [B, T] = {inputs.shape[:2]}."
            )
        if self.do_eval and not self.augment_at_eval:
            return inputs, paddings
        outputs = inputs
        if self._hides_frames():
            hidden = self._draw_frames(paddings)[:, :, jnp.newaxis]
            outputs = py_utils.apply_padding(outputs, hidden)
        if self.freq_mask_count > 0 and self.freq_mask_max_bins > 0:
            hidden = self._draw_bins(*inputs.shape[::2])[:, jnp.newaxis]
            outputs = py_utils.apply_padding(outputs, hidden)
        return outputs, paddings

    def _hides_frames(self) -> bool:
        has_length = self.use_dynamic_time_mask_max_frames or self.time_mask_max_frames > 0
        return has_length and self.time_mask_count > 0 and self.time_mask_max_ratio > 0.0

    def _draw_frames(self, paddings: Shaped[Array, "B T"]) -> Bool[Array, "B T"]:
        # Counted as integers: bfloat16 counts exactly only up to 256.
        lengths = jnp.sum(paddings == 0, axis=1, dtype=jnp.int32)
        dynamic = self.use_dynamic_time_mask_max_frames
        return draw_spans(
            self.next_prng_key(),
            self.next_prng_key(),
            ranges=lengths,
            size=paddings.shape[1],
            max_length=None if dynamic else self.time_mask_max_frames,
            num_spans=self.time_mask_count,
            max_ratio=self.time_mask_max_ratio,
            spans_per_place=self.time_masks_per_frame,
        )

    def _draw_bins(self, batch: int, num_bins: int) -> Bool[Array, "B F"]:
        return draw_spans(
            self.next_prng_key(),
            self.next_prng_key(),
            ranges=jnp.full([batch], num_bins),
            size=num_bins,
            max_length=self.freq_mask_max_bins,
            num_spans=self.freq_mask_count,
            max_ratio=1.0,
        )
