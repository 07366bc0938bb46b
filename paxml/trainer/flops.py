"""Arithmetic of a training step, counted from shapes alone."""

from collections.abc import Sequence
from typing import Any

from absl import logging

from praxis.core.layer import BaseLayer
from praxis.inspection.cost import Cost
from praxis.inspection.hardware import hardware_of
from praxis.inspection.layers import layer_costs

# A product with a weight has two more in the backward pass: by its input and by the weight.
_STEP_PER_FORWARD = 3


def train_step_cost(model: BaseLayer, batch_specs: Any) -> Cost:
    """Returns what one update on a global batch takes, without the optimizer.

    Three times the forward pass. What is computed twice to save memory does not count, as in the
    "model FLOPs" of Chowdhery et al., "PaLM", 2022, arXiv:2204.02311, appendix B.

    Args:
      model: The model of a task.
      batch_specs: Shapes and dtypes of a global batch.
    """
    return layer_costs(model, batch_specs, do_eval=False)[0].total * _STEP_PER_FORWARD


def train_step_flops(model: BaseLayer, batch_specs: Any) -> float:
    """Returns the floating-point operations of `train_step_cost`."""
    return train_step_cost(model, batch_specs).flops


def peak_flops(devices: Sequence[Any]) -> float | None:
    """Returns what devices can compute together, per second; None if one of them is not known."""
    known = [hardware_of(device.device_kind) for device in devices]
    peaks = [hardware.peak_flops for hardware in known if hardware is not None]
    return sum(peaks) if len(peaks) == len(known) else None


def utilization_per_step_rate(
    model: BaseLayer, batch_specs: Any, devices: Sequence[Any]
) -> float | None:
    """Returns what steps per second are multiplied by to get the share of the peak that is used.

    None where the peak of the devices is not known, or the arithmetic of the model cannot be
    counted.
    """
    peak = peak_flops(devices)
    if peak is None:
        return None
    try:
        return train_step_flops(model, batch_specs) / peak
    # A number for the user's eyes is not worth a run.
    except Exception as error:
        logging.warning("The FLOPs of a step are not known, so utilization is left out: %s", error)
        return None
