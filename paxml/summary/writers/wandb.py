"""Summaries in Weights & Biases; needs the extra `wandb`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paxml.summary.writers.base import HParam, SummaryWriter
from paxml.summary.writers.media import histogram_of, wav_bytes

# Beside the directories of the writers: a resumed job continues the same run.
ID_FILE = "wandb_run_id.txt"
_STEP = "step"


class WandbWriter(SummaryWriter):
    """Writes to the run of its job, under tags such as `train/loss` and `eval_test_dev/loss`.

    All writers of a job share one run, which the last of them finishes. The project, the entity and
    the mode are those of the environment: `WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_MODE=offline`.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Starts or continues the run.

        Args:
          directory: Such as `<job_log_dir>/summaries/train`; its last part starts the tags.

        Raises:
          ImportError: if wandb is not installed.
        """
        self._directory = Path(directory)
        self._wandb = _import()
        self._prefix = self._directory.name
        self._runs = _SharedRun.of(self._directory.parent, self._wandb)
        self._run = self._runs.acquire()
        self._pending: dict[str, Any] = {}
        self._step = 0
        self._closed = False

    @classmethod
    def check_available(cls) -> None:
        _import()

    def add_scalar(self, tag: str, value: float | int, step: int) -> None:
        self._add(tag, float(value), step)

    def add_text(self, tag: str, text: str, step: int) -> None:
        table = self._wandb.Table(columns=["text"], data=[[text]])
        self._add(tag, table, step)

    def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        counts, edges = histogram_of(values)
        self._add(tag, self._wandb.Histogram(np_histogram=(counts, edges)), step)

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        self._add(tag, self._wandb.Image(image), step)

    def add_audio(self, tag: str, samples: np.ndarray, step: int, sample_rate: int) -> None:
        # A file, since the library wants one more package to make it of samples.
        path = self._directory / "media" / f"{tag}_{step}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav_bytes(samples, sample_rate))
        self._add(tag, self._wandb.Audio(str(path)), step)

    def add_hparams(self, hparams: Mapping[str, HParam]) -> None:
        self._run.config.update(dict(hparams), allow_val_change=True)

    def flush(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, {}
            self._run.log({_STEP: self._step, **pending})

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.flush()
            self._runs.release()

    def _add(self, tag: str, value: Any, step: int) -> None:
        if step != self._step:
            self.flush()
        self._step = step
        self._pending[f"{self._prefix}/{tag}"] = value


class _SharedRun:
    """The run of a job, open as long as a writer uses it."""

    _by_directory: dict[str, "_SharedRun"] = {}  # noqa: RUF012  # shared on purpose

    def __init__(self, directory: Path, wandb: Any) -> None:
        self._directory = directory
        self._wandb = wandb
        self._run: Any = None
        self._users = 0

    @classmethod
    def of(cls, directory: Path, wandb: Any) -> "_SharedRun":
        return cls._by_directory.setdefault(str(directory.resolve()), cls(directory, wandb))

    def acquire(self) -> Any:
        self._users += 1
        if self._run is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            id_file = self._directory / ID_FILE
            known = id_file.read_text().strip() if id_file.exists() else None
            job = self._directory.resolve().parent
            self._run = self._wandb.init(
                dir=str(self._directory), name=job.name, id=known, resume="allow"
            )
            id_file.write_text(self._run.id)
            # Parts of a run write in any order of steps; their own step is the axis.
            self._run.define_metric("*", step_metric=_STEP)
        return self._run

    def release(self) -> None:
        self._users -= 1
        if self._users == 0:
            self._run.finish()
            self._run = None


def _import() -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]  # an extra
    except ModuleNotFoundError as error:
        raise ImportError(
            "--summary_writers=wandb needs the package wandb: pip install 'pax[wandb]'."
        ) from error
    return wandb
