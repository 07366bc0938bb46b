"""Writes one summary of any type."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from paxml.summary.writers.base import SummaryWriter
from praxis.core.summaries import (
    SummaryType,
    get_summary_base_type,
    get_summary_type_from_key,
    get_summary_type_suffix,
    trim_summary_type_from_key,
)

# Samples per second of audio without a rate of its own.
AUDIO_SUMMARY_SAMPLE_RATE = 44000
MAX_AUDIOS_PER_SUMMARY = 64
MAX_IMAGES_PER_SUMMARY = 64
MAX_TEXTS_PER_SUMMARY = 64

_CAPPED = {
    SummaryType.IMAGE: MAX_IMAGES_PER_SUMMARY,
    SummaryType.AUDIO: MAX_AUDIOS_PER_SUMMARY,
    SummaryType.TEXT: MAX_TEXTS_PER_SUMMARY,
}


def get_summary_display_name_from_key(key: str) -> str:
    """Returns the tag of a key: the same, but for "aggregate", which is not shown.

    Example:
      >>> get_summary_display_name_from_key("loss_aggregate_scalar")
      'loss_scalar'
    """
    shown = get_summary_base_type(get_summary_type_from_key(key))
    return trim_summary_type_from_key(key) + get_summary_type_suffix(shown)


def should_cap_summary(summary_tensors: Mapping[str, Any], key: str) -> bool:
    """Whether as many entries of an image summary were collected as are shown."""
    kind = get_summary_base_type(get_summary_type_from_key(key))
    if kind != SummaryType.IMAGE or key not in summary_tensors:
        return False
    collected = summary_tensors[key]
    batches = collected if isinstance(collected, list) else [collected]
    return sum(len(batch) for batch in batches) >= MAX_IMAGES_PER_SUMMARY


def flatten_summary_dict(
    summary_dict: Mapping[str, Any], parent_key: str | None = None
) -> list[tuple[str, Any]]:
    """Lists nested summaries with keys joined by slashes.

    A list, one value a layer of a stack, gives one summary an element: `x_scalar` becomes
    `x_0_scalar`, `x_1_scalar`.

    Args:
      summary_dict: Nested by layer; the innermost keys end in the suffix of a type.
      parent_key: What the keys are under.
    """
    return list(_flatten(summary_dict, parent_key))


def _flatten(summaries: Mapping[str, Any], parent: str | None) -> Iterator[tuple[str, Any]]:
    for name, value in summaries.items():
        key = name if parent is None else f"{parent}/{name}"
        if isinstance(value, Mapping):
            yield from _flatten(value, key)
        elif isinstance(value, list | tuple):
            suffix = get_summary_type_suffix(get_summary_type_from_key(key))
            stem = trim_summary_type_from_key(key)
            yield from ((f"{stem}_{index}{suffix}", each) for index, each in enumerate(value))
        else:
            yield key, value


def flatten_flax_summaries(summary_tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested summaries of a model as one dict, see `flatten_summary_dict`."""
    return dict(flatten_summary_dict(summary_tensors))


def write_tensor(
    writer: SummaryWriter,
    step_i: int,
    key: str,
    tensor: Any,
    summary_type: SummaryType,
    metadata: Any = None,
    sample_rate: int = AUDIO_SUMMARY_SAMPLE_RATE,
) -> None:
    """Writes a summary; images, audio and texts as one entry each, under `key/i`.

    Args:
      writer: Where to.
      step_i: Step of the entry.
      key: Tag.
      tensor: A number, or several whose mean is written; [B, height, width, channels] for images,
        of floats in [0, 1] or uint8; [B, time] or [B, time, channels] for audio, in [-1, 1]; texts;
        any shape for histograms.
      summary_type: What it is.
      metadata: Not used by these types.
      sample_rate: Of audio, samples per second.

    Raises:
      NotImplementedError: for video.
      ImportError: for images, if Pillow is not installed.
    """
    del metadata
    kind = get_summary_base_type(summary_type)
    if kind == SummaryType.SCALAR:
        writer.add_scalar(key, float(np.mean(np.asarray(tensor, np.float64))), step_i)
    elif kind == SummaryType.HISTOGRAM:
        values = np.asarray(tensor, np.float64).reshape(-1)
        # A histogram of NaN cannot be drawn, and has no business to stop a run.
        writer.add_histogram(key, values[np.isfinite(values)], step_i)
    elif kind in _CAPPED:
        write_one = {
            SummaryType.IMAGE: _write_image,
            SummaryType.AUDIO: _write_audio,
            SummaryType.TEXT: _write_text,
        }[kind]
        for index, entry in enumerate(_entries(tensor, kind)[: _CAPPED[kind]]):
            write_one(writer, f"{key}/{index}", entry, step_i, sample_rate)
    else:
        raise NotImplementedError(f"Summary {key!r}: {summary_type.name} cannot be written yet.")


def _entries(tensor: Any, kind: SummaryType) -> Any:
    if kind == SummaryType.TEXT:
        return [tensor] if isinstance(tensor, str | bytes) else list(np.asarray(tensor).reshape(-1))
    return np.asarray(tensor)


def _write_image(
    writer: SummaryWriter, tag: str, image: np.ndarray, step: int, sample_rate: int
) -> None:
    del sample_rate
    if not np.issubdtype(image.dtype, np.integer):
        image = np.asarray(image, np.float32)
    writer.add_image(tag, image, step)


def _write_audio(
    writer: SummaryWriter, tag: str, audio: np.ndarray, step: int, sample_rate: int
) -> None:
    samples = np.atleast_2d(np.asarray(audio, np.float64).T).T  # [T, channels]
    writer.add_audio(tag, samples, step, sample_rate)


def _write_text(writer: SummaryWriter, tag: str, text: Any, step: int, sample_rate: int) -> None:
    del sample_rate
    writer.add_text(tag, text.decode() if isinstance(text, bytes) else str(text), step)
