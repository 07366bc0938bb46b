"""Learners, gathered under their public path."""

from paxml.learner.learner import Learner, UpdateResult
from paxml.learner.multi import MultiOptimizerLearner

__all__ = ["Learner", "MultiOptimizerLearner", "UpdateResult"]
