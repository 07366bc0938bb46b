"""Metrics as plain numbers: weighted scalars, numbers, and objects with `compute()`."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

MetricValue = Any


def is_scalar(v: Any) -> bool:
    """Whether it is a number or an array with one element."""
    if isinstance(v, numbers.Number):
        return True
    return isinstance(v, jax.Array | np.ndarray | np.generic) and v.size == 1


def is_weighted_scalar(v: Any) -> bool:
    """Whether it is a pair (value, weight) of numbers or arrays."""
    if not isinstance(v, tuple) or len(v) != 2:
        return False
    return all(isinstance(part, numbers.Number | jax.Array | np.ndarray | np.generic) for part in v)


def _is_clu_metric(v: Any) -> bool:
    """CLU's metrics, known by what they can do, since CLU need not be installed."""
    return callable(getattr(v, "compute", None)) and callable(getattr(v, "merge", None))


def _pairs(v: Any) -> list[tuple[Any, Any]] | None:
    """Returns a weighted scalar, or a list of them, as a list; None if it is neither."""
    if is_weighted_scalar(v):
        return [v]
    if isinstance(v, Sequence) and v and all(map(is_weighted_scalar, v)):
        return list(v)
    return None


def _number(v: Any) -> Any:
    """The number in a metric that wraps one in `value`, such as SeqIO's Scalar."""
    return getattr(v, "value", v)


def is_float_convertible(metric_value: MetricValue) -> bool:
    """Whether `as_float` takes it."""
    return _pairs(metric_value) is not None or is_scalar(_number(metric_value))


def as_float(metric_value: MetricValue) -> float:
    """Returns a metric as a number.

    Args:
      metric_value: A number, an object with such a `value`, or weighted scalars, of which the
        weighted mean is taken (NaN if the weights are all zero).

    Raises:
      TypeError: for anything else.
    """
    pairs = _pairs(metric_value)
    if pairs is None:
        if is_scalar(number := _number(metric_value)):
            return float(np.asarray(number).item())
        raise TypeError(
            f"A metric is {metric_value!r}, expected a number or pairs (value, weight)."
        )
    values = np.array([np.asarray(value, np.float64) for value, _ in pairs])
    weights = np.array([np.asarray(weight, np.float64) for _, weight in pairs])
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.sum(values * weights) / np.sum(weights))


def as_float_dict(
    metric_output: Mapping[str, MetricValue], raise_on_non_float_convertible: bool = False
) -> dict[str, float]:
    """Returns the metrics as numbers; leaves out, or refuses, those that are none.

    Raises:
      TypeError: if asked to refuse, naming the metric.
    """
    floats = {}
    for key, value in metric_output.items():
        if is_float_convertible(value):
            floats[key] = as_float(value)
        elif raise_on_non_float_convertible:
            raise TypeError(
                f"Metric {key!r} is {value!r}, expected a number or pairs (value, weight)."
            )
    return floats


def update_float_dict(
    target: dict[str, float], source: Mapping[str, float], prefix: str | None = None
) -> dict[str, float]:
    """Adds `source` to `target`, under `prefix/` if one is given, and returns it."""
    for key, value in source.items():
        target[key if prefix is None else f"{prefix}/{key}"] = value
    return target


def extract_weighted_scalars_and_clu_metrics(
    metrics: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits metrics into weighted scalars and CLU metrics, one of which is empty.

    Raises:
      TypeError: if both kinds are there, or a metric is of neither, naming one.
    """
    scalars = {key: value for key, value in metrics.items() if is_weighted_scalar(value)}
    clu = {key: value for key, value in metrics.items() if _is_clu_metric(value)}
    for key in metrics.keys() - scalars.keys() - clu.keys():
        raise TypeError(
            f"Metric {key!r} is {metrics[key]!r}, expected a pair (value, weight) or a CLU metric."
        )
    if scalars and clu:
        raise TypeError(
            f"Metrics mix pairs (value, weight), such as {next(iter(scalars))!r}, and CLU metrics, "
            f"such as {next(iter(clu))!r}. Use one kind for all."
        )
    return scalars, clu


def compute_metric_values(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Computes CLU metrics.

    A metric that computes a dict gives `name/key` for each of its keys (`name/key_i` where that is
    a list), one that computes a list gives `name/name_i`.

    Raises:
      ValueError: if a metric computes anything else than numbers or arrays in these forms.
    """
    computed: dict[str, Any] = {}

    def put(name: str, value: Any) -> None:
        if not isinstance(value, numbers.Number | jax.Array | np.ndarray | np.generic):
            raise ValueError(
                f"Metric {name!r} computed a {type(value).__name__}, expected a number, an array, "
                "or a list or dict of them."
            )
        computed[name] = value

    for name, metric in metrics.items():
        value = metric.compute()
        entries = value.items() if isinstance(value, Mapping) else [(name, value)]
        nested = isinstance(value, Mapping | list | tuple)
        for key, entry in entries:
            full = f"{name}/{key}" if nested else name
            if isinstance(entry, list | tuple):
                for index, element in enumerate(entry):
                    put(f"{full}_{index}", element)
            else:
                put(full, entry)
    return computed


def merge_clu_metrics(
    metrics: Mapping[str, Any], updated_metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """Merges two sets of CLU metrics; an empty first one is replaced.

    Raises:
      ValueError: if their names differ.
    """
    if not metrics:
        return dict(updated_metrics)
    if different := metrics.keys() ^ updated_metrics.keys():
        raise ValueError(
            f"Metrics of two batches have other names: {', '.join(sorted(different))} are only in "
            "one of them."
        )
    return {key: metrics[key].merge(updated_metrics[key]) for key in metrics}
