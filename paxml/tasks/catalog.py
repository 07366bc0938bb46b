"""Imports every module of shipped experiments, which registers them."""

from paxml.contrib.gpu.scripts_gpu import configs
from paxml.tasks.lm.params import (
    bert,
    c4,
    c4_multislice,
    lm_cloud,
    nvidia,
    optimal_scaling,
)
from paxml.tasks.test import synthetic
from paxml.tasks.vision.params import imagenet_resnets, mnist

__all__ = [
    "bert",
    "c4",
    "c4_multislice",
    "configs",
    "imagenet_resnets",
    "lm_cloud",
    "mnist",
    "nvidia",
    "optimal_scaling",
    "synthetic",
]
