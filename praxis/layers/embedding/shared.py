"""Softmax output layers whose weight is the embedding table of the input tokens, too.

Press and Wolf, "Using the Output Embedding to Improve Language Models", 2017, arXiv:1608.05859.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, base_ops, linears
from praxis.layers.checks import check_last_axis
from praxis.layers.embedding import lookup, losses
from praxis.layers.embedding.softmax import FullSoftmax, LayerTpl
from praxis.layers.sharding import shard_output

template_field = base_layer.template_field


class SharedEmbeddingSoftmax(FullSoftmax):
    """A `FullSoftmax` that also looks tokens up in its own weight.

    Shapes: D is `input_dims`, V is `num_classes`.

    Attributes:
      array_lookup_tpl: Config of the op of `lookup_style` 'index'.
      einsum_tpl: Config of the op of `lookup_style` 'matmul'.
      lookup_style: 'index' or 'matmul', which differ for ids outside [0, V): see `Embedding`.
      scale_sqrt_depth: Whether looked up rows are multiplied by sqrt(D).

    Variables:
      logits_ffn/linear/w: [D, V]; the embedding table is its transpose
      logits_ffn/bias/b: [V]

    Raises:
      ValueError: as `FullSoftmax`; and during setup, if `lookup_style` is unknown.
      TypeError: as `FullSoftmax`; and in a lookup, if the ids are not integers.
    """

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          emb_out_split_dims_mapping: Of looked up rows, [B, T, D].
          extend_step_out: Of looked up rows and of logits in decoding, [B, D] and [B, V].
        """

        emb_out_split_dims_mapping: base_layer.SplitDimsMapping = None
        extend_step_out: base_layer.SplitDimsMapping = None

    array_lookup_tpl: LayerTpl = template_field(base_ops.ArrayLookup)
    einsum_tpl: LayerTpl = template_field(base_ops.EinsumOp)
    lookup_style: str = lookup.INDEX
    scale_sqrt_depth: bool = False

    def setup(self) -> None:
        super().setup()
        lookup.check_style(self, self.lookup_style)
        self.create_child("array_lookup", self.array_lookup_tpl)
        self.create_child("einsum", self.einsum_tpl)

    def _embedding_table(self) -> Float[Array, "V D"]:
        """The weight as a table of rows."""
        if self.feed_forward_tpl is None:
            raise ValueError(
                f"{self.path_text}: feed_forward_tpl is None, so there is no table to look ids up "
                "in. Set feed_forward_tpl, or look them up in an Embedding."
            )
        return jnp.transpose(self.logits_ffn.linear.theta.w)

    def emb_lookup(self, ids: Shaped[Array, "*B"]) -> Float[Array, "*B D"]:
        """Looks up the rows of input tokens.

        Args:
          ids: [...], integers.

        Returns:
          [..., D], in `fprop_dtype`.
        """
        lookup.check_ids(self, ids)
        rows = lookup.lookup_rows(
            self._embedding_table(),
            ids,
            style=self.lookup_style,
            array_lookup=self.array_lookup,
            einsum=self.einsum,
        )
        if self.scale_sqrt_depth:
            rows *= math.sqrt(self.input_dims)
        return lookup.shard_rows(self, rows)

    def extend_step(
        self, ids: Shaped[Array, "*B"], *, time_step: Shaped[Array, "..."] | int
    ) -> Float[Array, "*B D"]:
        """Looks up the rows of one decoding step; the result does not depend on the step.

        Args:
          ids: [B] or [B, P], integers.
          time_step: [], the number of the step.

        Returns:
          [B, D] or [B, P, D], in `fprop_dtype`.
        """
        del time_step
        return self.emb_lookup(ids)


class NClassMajorSharedEmbeddingSoftmax(SharedEmbeddingSoftmax):
    """A `SharedEmbeddingSoftmax` that stores its table by rows, [V, D].

    Logits are `activation(inputs @ w^T + b)`. `feed_forward_tpl` and `scale_before_logits` have no
    effect: there is no `logits_ffn`, and the inputs are never scaled.

    Attributes:
      use_bias: Whether there is a bias.
      activation_tpl: Config of the activation of the logits.

    Variables:
      w: [V, D], sharded by `weight_split_dims_mapping.wt` reversed: the config gives it for [D, V]
      bias/b: [V]

    Raises:
      ValueError: as `SharedEmbeddingSoftmax`.
      TypeError: as `SharedEmbeddingSoftmax`.
    """

    use_bias: bool = True
    activation_tpl: pax_fiddle.Config[activations.BaseActivation] = template_field(
        activations.Identity
    )

    def _create_projection(self) -> None:
        wt = self.weight_split_dims_mapping.wt
        self.create_variable(
            "w",
            base_layer.WeightHParams(
                shape=[self.num_classes, self.input_dims],
                mesh_shape=self.mesh_shape,
                tensor_split_dims_mapping=None if wt is None else list(reversed(wt)),
            ),
        )
        if self.use_bias:
            out = self.activation_split_dims_mapping.out
            bias = pax_fiddle.Config(linears.Bias, dims=self.num_classes, bias_init=self.bias_init)
            if self.mesh_shape is not None and out is not None:
                bias.weight_split_dims_mapping.wt = [out[-1]]
            self.create_child("bias", bias)
        self.create_child("activation", self.activation_tpl)

    def _embedding_table(self) -> Float[Array, "V D"]:
        return self.theta.w

    def get_logits(
        self,
        inputs: Float[Array, "*B D"],
        input_ids: Shaped[Array, "..."] | None = None,
    ) -> Float[Array, "*B V"]:
        """Projects to the classes.

        Args:
          inputs: [..., D].
          input_ids: [...], not read.

        Returns:
          [..., V], in `fprop_dtype`, after the soft cap.
        """
        del input_ids
        check_last_axis(self, inputs, "input_dims")
        logits = self.einsum("...d,vd->...v", inputs, self.theta.w)
        logits = shard_output(self, logits)
        if self.use_bias:
            logits = self.bias(logits)
        return losses.soft_cap(self.activation(logits), self.soft_cap_logits)
