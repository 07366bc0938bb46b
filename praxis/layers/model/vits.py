"""Vision transformers."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import activations, linears
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.embedding.trainable_position import TrainablePositionalEmbedding
from praxis.layers.model.vit_patches import image_to_patch, interpolate_embedding_2d
from praxis.layers.normalization.layer import LayerNorm
from praxis.layers.poolings import GlobalPooling
from praxis.layers.stochastics import Dropout
from praxis.layers.transformer.stack import StackedTransformer

WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
SplitDimsMapping = base_layer.SplitDimsMapping
Config = pax_fiddle.Config
LayerTpl = Config[base_layer.BaseLayer]
template_field = base_layer.template_field


def _check_prob(layer: base_layer.BaseLayer, field: str) -> None:
    if not 0.0 <= getattr(layer, field) < 1.0:
        raise ValueError(
            f"{layer.path_text}: {field} is {getattr(layer, field)}, expected a probability of "
            "dropping, at least 0 and below 1."
        )


class VitEntryLayers(base_layer.BaseLayer):
    """Projects patches, adds position embeddings and then class tokens.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020, arXiv:2010.11929, section 3.1.
    Shapes: p is `patch_size`, N the number of patches, P = p * p * C is `input_dims`, D is
    `output_dims`.

    Attributes:
      pos_emb_shapes: (rows, columns) of the grid of patches that the embeddings are for. Images
        with another grid get interpolated ones.
      patch_size: p, in pixels. Required for images.
      input_dims: P, at least 1. Required.
      output_dims: D, at least 1. Required.
      pos_emb_dropout_prob: Probability of dropping an element, before the class tokens come.
      pos_emb_tpl: Config of the position embedding; None leaves it out. D is filled in.
      input_fc_has_bias: Whether the projection has a bias.
      cls_emb_init: Initializer of the class tokens.
      prepend_cls_tokens: Number of class tokens before the patches.
      append_cls_tokens: Number of class tokens after the patches.

    Variables:
      patch_projection/linear/w: [P, D]
      patch_projection/bias/b: [D], with `input_fc_has_bias`
      pos_emb: as in `pos_emb_tpl`
      prepend_cls_embs, append_cls_embs: [1, number of tokens, D], where there are any

    Raises:
      ValueError: during setup, if a size is missing or a field out of range; in `__call__`, if the
        inputs are neither images of whole patches, nor patches of P.
    """

    pos_emb_shapes: tuple[int, int] = (0, 0)
    patch_size: int = 0
    input_dims: int = 0
    output_dims: int = 0
    pos_emb_dropout_prob: float = 0.0
    pos_emb_tpl: LayerTpl | None = template_field(TrainablePositionalEmbedding)
    input_fc_has_bias: bool = True
    cls_emb_init: WeightInit = pax_fiddle.instance_field(
        pax_fiddle.auto_config(lambda: WeightInit.Constant(0.0))
    )
    prepend_cls_tokens: int = 0
    append_cls_tokens: int = 0

    def setup(self) -> None:
        check_sizes(self, "input_dims", "output_dims")
        _check_prob(self, "pos_emb_dropout_prob")
        projection = Config(
            linears.FeedForward,
            input_dims=self.input_dims,
            output_dims=self.output_dims,
            has_bias=self.input_fc_has_bias,
            activation_tpl=Config(activations.Identity),
        )
        self.create_child("patch_projection", projection)
        if self.pos_emb_tpl is not None:
            pos_emb = self.pos_emb_tpl.clone().set(embedding_dims=self.output_dims)
            self.create_child("pos_emb", pos_emb)
        if self.pos_emb_dropout_prob > 0.0:
            self.create_child("dropout", Config(Dropout, keep_prob=1.0 - self.pos_emb_dropout_prob))
        for name in ("prepend_cls", "append_cls"):
            if number := getattr(self, f"{name}_tokens"):
                shape = [1, number, self.output_dims]
                weight = WeightHParams(shape=shape, init=self.cls_emb_init)
                self.create_variable(f"{name}_embs", weight)

    def __call__(self, inputs: Float[Array, "B *N P"]) -> Float[Array, "B N_ D"]:
        """Embeds images or patches.

        Args:
          inputs: Images [B, H, W, C], or patches [B, N, P].

        Returns:
          [B, N + number of class tokens, D].
        """
        if inputs.ndim not in (3, 4):
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected images "
                "[B, H, W, C] or patches [B, N, P]."
            )
        grid = tuple(self.pos_emb_shapes)
        if inputs.ndim == 4:
            size = self.patch_size
            if size < 1 or inputs.shape[1] % size or inputs.shape[2] % size:
                raise ValueError(
                    f"{self.path_text}: inputs have shape {inputs.shape}, expected images "
                    f"[B, H, W, C] with H and W multiples of patch_size = {size}."
                )
            grid = (inputs.shape[1] // size, inputs.shape[2] // size)
            inputs = image_to_patch(inputs, size)
        check_last_axis(self, inputs, "input_dims")
        features = self.patch_projection(inputs)
        if self.pos_emb_tpl is not None:
            features = features + self._position_embeddings(grid, features)
        if self.pos_emb_dropout_prob > 0.0:
            features = self.dropout(features)
        return self._add_class_tokens(features)

    def _position_embeddings(
        self, grid: tuple[int, ...], features: Float[Array, "B N D"]
    ) -> Float[Array, "B N D"]:
        """Embeddings for a grid of patches."""
        rows, columns = self.pos_emb_shapes
        embeddings = self.pos_emb(seq_length=rows * columns)
        if grid != (rows, columns):
            embeddings = interpolate_embedding_2d(embeddings, (rows, columns), grid)
        if embeddings.shape[1:] != features.shape[1:]:
            raise ValueError(
                f"{self.path_text}: there are {features.shape[1]} patches, but position embeddings "
                f"for pos_emb_shapes = {(rows, columns)}. Set it to their grid, or pass images."
            )
        return jnp.broadcast_to(embeddings, features.shape)

    def _add_class_tokens(self, features: Float[Array, "B N D"]) -> Float[Array, "B N_ D"]:
        parts = [features]
        if self.prepend_cls_tokens:
            parts.insert(0, self.theta.prepend_cls_embs)
        if self.append_cls_tokens:
            parts.append(self.theta.append_cls_embs)
        batch = features.shape[0]
        return jnp.concatenate(
            [jnp.broadcast_to(part, (batch, *part.shape[1:])) for part in parts], axis=1
        )


class VitExitLayers(base_layer.BaseLayer):
    """Normalizes, pools over the tokens, and projects.

    Shapes: D is `hidden_dim`, F is `output_dim`.

    Attributes:
      hidden_dim: D, at least 1. Required.
      output_dim: F. Without `output_fc_tanh`, 0 or D leaves the projection out.
      output_dropout_prob: Probability of dropping an element at the end.
      pooled: Whether to pool over the tokens.
      output_fc_tanh: Whether the projection has a tanh.
      output_fc_has_bias: Whether it has a bias.
      pre_ln: Whether to normalize first.
      ln_tpl: Config of the normalization. D is filled in.
      pooling_tpl: Config of the pooling; its `pooling_dims` are [1], the tokens, unless set.

    Variables:
      ln: as in `ln_tpl`, with `pre_ln`
      fc_tanh or output_projection: as in `linears.FeedForward`, [D, F]

    Raises:
      ValueError: during setup, if a size is missing, a field out of range, or the pooling has no
        `pooling_dims`; in `__call__`, if the last axis of the inputs is not D.
    """

    hidden_dim: int = 0
    output_dim: int = 0
    output_dropout_prob: float = 0.0
    pooled: bool = True
    output_fc_tanh: bool = True
    output_fc_has_bias: bool = True
    pre_ln: bool = True
    ln_tpl: LayerTpl = template_field(LayerNorm)
    pooling_tpl: LayerTpl = template_field(GlobalPooling)

    def setup(self) -> None:
        check_sizes(self, "hidden_dim", *(["output_dim"] if self.output_fc_tanh else []))
        _check_prob(self, "output_dropout_prob")
        if self.pre_ln:
            self.create_child("ln", self.ln_tpl.clone().set(dim=self.hidden_dim))
        if self.pooled:
            pooling = self.pooling_tpl.clone()
            if getattr(pooling, "pooling_dims", ()) is None:
                pooling.pooling_dims = [1]  # the tokens
            self.create_child("pooling", pooling)
        if self.output_fc_tanh:
            self.create_child("fc_tanh", self._projection(Config(activations.Tanh)))
        elif self._has_projection:
            self.create_child("output_projection", self._projection(Config(activations.Identity)))
        if self.output_dropout_prob > 0.0:
            self.create_child("dropout", Config(Dropout, keep_prob=1.0 - self.output_dropout_prob))

    @property
    def _has_projection(self) -> bool:
        return not self.output_fc_tanh and self.output_dim not in (0, self.hidden_dim)

    def _projection(self, activation: Any) -> Config:
        return Config(
            linears.FeedForward,
            input_dims=self.hidden_dim,
            output_dims=self.output_dim,
            has_bias=self.output_fc_has_bias,
            activation_tpl=activation,
        )

    def __call__(self, inputs: Float[Array, "B N D"]) -> Float[Array, " B *_"]:
        """Maps tokens to features.

        Args:
          inputs: [B, N, D].

        Returns:
          [B, F], or [B, N, F] if not `pooled`; F is D where there is no projection.
        """
        check_last_axis(self, inputs, "hidden_dim")
        outputs = self.ln(inputs) if self.pre_ln else inputs
        if self.pooled:
            outputs = self.pooling(outputs)
        if self.output_fc_tanh:
            outputs = self.fc_tanh(outputs)
        elif self._has_projection:
            outputs = self.output_projection(outputs)
        return self.dropout(outputs) if self.output_dropout_prob > 0.0 else outputs


class VisionTransformer(base_layer.BaseLayer):
    """Entry layers, a stack of transformer layers, exit layers.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020, arXiv:2010.11929.

    Attributes:
      entry_layers_tpl: Config of what makes tokens of images or patches.
      transformer_layers_tpl: Config of the stack. Required.
      exit_layers_tpl: Config of what makes features of tokens.
      full_data_parallel_on_entry_exit: Shard the batch over all mesh axes in entry and exit layers.

    Variables:
      entry_stack, transformers_stack, exit_stack: as in their templates

    Raises:
      ValueError: during setup, if `transformer_layers_tpl` is None; in `__call__`, as the parts.
    """

    entry_layers_tpl: LayerTpl = template_field(VitEntryLayers)
    transformer_layers_tpl: LayerTpl = template_field(StackedTransformer)
    exit_layers_tpl: LayerTpl = template_field(VitExitLayers)
    full_data_parallel_on_entry_exit: bool = False

    class ActivationSharding(base_layer.BaseLayer.ActivationSharding):
        """Sharding of the activations.

        Attributes:
          network_inputs: Of the tokens that the stack gets, [B, N, D].
        """

        network_inputs: SplitDimsMapping = None

    activation_split_dims_mapping: Config[ActivationSharding] = (  # pyright: ignore[reportIncompatibleVariableOverride]
        template_field(ActivationSharding)
    )

    def setup(self) -> None:
        if self.transformer_layers_tpl is None:
            raise ValueError(
                f"{self.path_text}: transformer_layers_tpl is None. Set it to the config of a "
                "stack of transformer layers."
            )
        self.create_child("entry_stack", self.entry_layers_tpl)
        self.create_child("transformers_stack", self.transformer_layers_tpl)
        self.create_child("exit_stack", self.exit_layers_tpl)

    def shard_entry_exit(self, x: Shaped[Array, " B *_"]) -> Shaped[Array, " B *_"]:
        """Shards the batch over all mesh axes, with `full_data_parallel_on_entry_exit`."""
        names = self.mesh_axis_names
        if not self.full_data_parallel_on_entry_exit or names is None:
            return x
        return base_layer.maybe_shard(x, [tuple(names), *[None] * (x.ndim - 1)], names)

    def __call__(
        self,
        inputs: Float[Array, "B *N P"],
        paddings: Shaped[Array, "B N_"] | None = None,
        segment_pos: Int[Array, "B N_"] | None = None,
    ) -> Float[Array, " B *_"]:
        """Computes features.

        Args:
          inputs: Images [B, H, W, C], or patches [B, N, P].
          paddings: [B, N], of the tokens with class tokens; 1 marks padding. None: there is none.
          segment_pos: [B, N], position of each token in its segment, for the stack; or None.

        Returns:
          What the exit layers return, [B, F] by default.
        """
        tokens = self.shard_entry_exit(self.entry_stack(self.shard_entry_exit(inputs)))
        mapping = self.activation_split_dims_mapping.network_inputs
        tokens = base_layer.maybe_shard(tokens, mapping, self.mesh_axis_names)
        if paddings is None:
            paddings = jnp.zeros(tokens.shape[:-1], tokens.dtype)
        outputs = self.transformers_stack(tokens, paddings, segment_pos=segment_pos)
        return self.exit_stack(self.shard_entry_exit(outputs))


def build_vision_transformer_hparams_for_test(
    pos_emb_shapes: tuple[int, int],
    patch_size: int,
    image_channels: int,
    model_dims: int,
    mlp_dims: int,
    num_xformer_layers: int,
    num_heads: int,
) -> Config:
    """Returns the config of a small vision transformer.

    The pooling of its exit layers has no `pooling_dims`: set them, to [1] for the mean of tokens.

    Args:
      pos_emb_shapes: (rows, columns) of the grid of patches.
      patch_size: In pixels.
      image_channels: Channels of the images.
      model_dims: Width of the tokens and of the features.
      mlp_dims: Hidden width of the feed-forward layers.
      num_xformer_layers: Number of transformer layers.
      num_heads: Number of attention heads.
    """
    rows, columns = pos_emb_shapes
    entry = Config(
        VitEntryLayers,
        pos_emb_shapes=pos_emb_shapes,
        patch_size=patch_size,
        input_dims=patch_size * patch_size * image_channels,
        output_dims=model_dims,
        pos_emb_tpl=Config(
            TrainablePositionalEmbedding, max_seq_length=rows * columns, embedding_dims=model_dims
        ),
    )
    stack = Config(
        StackedTransformer,
        num_layers=num_xformer_layers,
        model_dims=model_dims,
        hidden_dims=mlp_dims,
        num_heads=num_heads,
    )
    exit_layers = Config(VitExitLayers, hidden_dim=model_dims, output_dim=model_dims)
    return Config(
        VisionTransformer,
        entry_layers_tpl=entry,
        transformer_layers_tpl=stack,
        exit_layers_tpl=exit_layers,
    )
