"""Summaries as lines of JSON, for tools other than TensorBoard."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paxml.summary.writers.base import HParam, SummaryWriter
from paxml.summary.writers.media import histogram_of, wav_bytes

FILE_NAME = "metrics.jsonl"
_MEDIA = "media"


class JsonLinesWriter(SummaryWriter):
    """Appends to `metrics.jsonl` in its directory.

    All numbers of a step stand in one line, `{"step": 20, "time": ..., "loss": 0.5, ...}`; `time`
    is in seconds since 1970. Texts, histograms and settings have lines of their own, under `text`,
    `histogram` and `hparams`. Images and sound are files in `media/` that a line under `media`
    names. Numbers that JSON lacks are the strings "NaN", "Infinity" and "-Infinity".
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Opens the file for appending; the directory is created if needed."""
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._file = (self._directory / FILE_NAME).open("a", encoding="utf-8")
        self._scalars: dict[str, float | str] = {}
        self._step = 0

    def add_scalar(self, tag: str, value: float | int, step: int) -> None:
        if step != self._step:
            self._write_scalars()
        self._step = step
        self._scalars[tag] = _as_json(float(value))

    def add_text(self, tag: str, text: str, step: int) -> None:
        self._write(step, {"tag": tag, "text": text})

    def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        counts, edges = histogram_of(values)
        self._write(step, {"tag": tag, "histogram": {"counts": counts, "edges": edges}})

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        path = self._media_path(tag, step, ".npy")
        np.save(path, image)
        self._write_media(tag, step, path)

    def add_audio(self, tag: str, samples: np.ndarray, step: int, sample_rate: int) -> None:
        path = self._media_path(tag, step, ".wav")
        path.write_bytes(wav_bytes(samples, sample_rate))
        self._write_media(tag, step, path)

    def add_hparams(self, hparams: Mapping[str, HParam]) -> None:
        self._write(0, {"hparams": dict(hparams)})

    def flush(self) -> None:
        self._write_scalars()
        self._file.flush()

    def close(self) -> None:
        if not self._file.closed:
            self._write_scalars()
            self._file.close()

    def _write_scalars(self) -> None:
        if self._scalars:
            scalars, self._scalars = self._scalars, {}
            self._write(self._step, scalars)

    def _write(self, step: int, content: Mapping[str, Any]) -> None:
        line = {"step": int(step), "time": round(time.time(), 3), **content}
        self._file.write(json.dumps(line) + "\n")

    def _media_path(self, tag: str, step: int, suffix: str) -> Path:
        path = self._directory / _MEDIA / f"{tag}_{step}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write_media(self, tag: str, step: int, path: Path) -> None:
        self._write(step, {"tag": tag, "media": path.relative_to(self._directory).as_posix()})


def _as_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
