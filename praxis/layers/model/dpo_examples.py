"""Pairs of a preferred and another answer, as preference models read them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Shaped

from praxis import py_utils

NestedMap = py_utils.NestedMap
Row = Shaped[Array, "B T"]


@dataclasses.dataclass
class Labels:
    """What is to be predicted.

    Attributes:
      class_ids: [B, T], tokens.
      class_weights: [B, T], weight of each.
    """

    class_ids: Row
    class_weights: Row

    def as_map(self) -> NestedMap:
        """The labels as a model of tokens takes them."""
        return NestedMap(class_ids=self.class_ids, class_weights=self.class_weights)


def _value(example: Mapping[str, Any], key: str) -> Any:
    """An array of a flat batch.

    Raises:
      ValueError: if it is missing.
    """
    if key not in example:
        raise ValueError(
            f"DPO example: the batch has no field {key!r}, only {sorted(example.keys())}."
        )
    return example[key]


def _labels(example: Mapping[str, Any], prefix: str) -> Labels:
    return Labels(
        class_ids=_value(example, f"{prefix}/labels/ids"),
        class_weights=_value(example, f"{prefix}/labels/weights"),
    )


@dataclasses.dataclass
class DPOExampleHalf:
    """One of two answers, after its prompt, for a language model.

    Attributes:
      inputs: [B, T], tokens.
      paddings: [B, T], 1 marks padding.
      labels: The tokens after them, with weights on the answer.
      segment_ids: [B, T], 1, and 0 in the padding.
      segment_pos: [B, T], position of each token.
      inputs_indicator: [B, T], 1 on the prompt, or None.
      causal_attention_mask: [B, T], 0 on tokens that all see, or None.
    """

    inputs: Row
    paddings: Row
    labels: Labels
    segment_ids: Row
    segment_pos: Row
    inputs_indicator: Row | None = None
    causal_attention_mask: Row | None = None

    def as_xformer_lm_input(self) -> dict[str, Any]:
        """Arguments of a `TransformerLm`."""
        return {
            "inputs": self.inputs,
            "paddings": self.paddings,
            "labels": self.labels.as_map(),
            "segment_ids": self.segment_ids.astype(jnp.int32),
            "segment_pos": self.segment_pos.astype(jnp.int32),
            "causal_attention_mask": self.causal_attention_mask,
        }


@dataclasses.dataclass
class DPOExample:
    """A preferred and another answer to a prompt.

    Attributes:
      y_w: The preferred one.
      y_l: The other one.
    """

    y_w: DPOExampleHalf
    y_l: DPOExampleHalf

    @classmethod
    def from_feature_converter(cls, example: Mapping[str, Any]) -> "DPOExample":
        """Takes the arrays of a flat batch.

        Args:
          example: For both y in "y_w", "y_l": "y/inputs", "y/labels/ids", "y/labels/weights",
            "y/paddings", "y/segment_ids", "y/segment_pos", and maybe "y/inputs_indicator"; [B, T].

        Raises:
          ValueError: if one is missing.
        """
        fields = ("inputs", "paddings", "segment_ids", "segment_pos")
        halves = {}
        for half in ("y_w", "y_l"):
            halves[half] = DPOExampleHalf(
                labels=_labels(example, half),
                inputs_indicator=example.get(f"{half}/inputs_indicator"),
                **{field: _value(example, f"{half}/{field}") for field in fields},
            )
        return cls(**halves)


@dataclasses.dataclass
class DPOExampleHalfSeq2Seq:
    """One of two answers, for an encoder and decoder.

    Attributes:
      inputs: [B, S], tokens of the prompt.
      input_paddings: [B, S], 1 marks padding.
      targets: [B, T], tokens of the answer.
      target_paddings: [B, T], 1 marks padding.
      labels: The tokens after those of the answer.
    """

    inputs: Shaped[Array, "B S"]
    input_paddings: Shaped[Array, "B S"]
    targets: Row
    target_paddings: Row
    labels: Labels

    def as_xformer_encdec_input(self) -> dict[str, Any]:
        """Arguments of a `TransformerEncoderDecoder`."""
        return {
            "inputs": self.inputs,
            "input_paddings": self.input_paddings,
            "targets": self.targets,
            "target_paddings": self.target_paddings,
            "labels": self.labels.as_map(),
        }


@dataclasses.dataclass
class DPOExampleSeq2Seq:
    """A preferred and another answer to a prompt, for an encoder and decoder.

    Attributes:
      y_w: The preferred one.
      y_l: The other one.
    """

    y_w: DPOExampleHalfSeq2Seq
    y_l: DPOExampleHalfSeq2Seq

    @classmethod
    def from_feature_converter(cls, example: Mapping[str, Any]) -> "DPOExampleSeq2Seq":
        """Takes the arrays of a flat batch.

        Args:
          example: "inputs" and "input_paddings" [B, S]; and for both t in "targets_w", "targets_l":
            "t", "t/paddings", "t/labels/ids" and "t/labels/weights", [B, T].

        Raises:
          ValueError: if one is missing.
        """
        halves = {}
        for half, name in (("y_w", "targets_w"), ("y_l", "targets_l")):
            halves[half] = DPOExampleHalfSeq2Seq(
                inputs=_value(example, "inputs"),
                input_paddings=_value(example, "input_paddings"),
                targets=_value(example, name),
                target_paddings=_value(example, f"{name}/paddings"),
                labels=_labels(example, name),
            )
        return cls(**halves)
