"""Base of inference runners, under its public path."""

from paxml.evaljob.runner import BaseInferenceRunner
from paxml.train_states import TrainState

__all__ = ["BaseInferenceRunner", "TrainState"]
