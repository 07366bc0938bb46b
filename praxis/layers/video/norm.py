"""Group normalization of single frames, plain and conditional."""

from jaxtyping import Array, Float, Shaped

from praxis import base_layer, pax_fiddle
from praxis.layers import linears
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.normalization.group import GroupNorm

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field


class GroupNormSpatial(GroupNorm):
    """Group normalization whose moments are those of a frame, so that it is causal.

    Attributes:
      epsilon: Added to the variance.
      input_rank: Rank of the inputs after frames and examples are joined.
      num_ignored_dims: Number of axes behind the batch that count as examples, too.

    Variables:
      beta: [1, ..., 1, D], with `use_bias`; exempt from weight decay
      gamma: [1, ..., 1, D], with `use_scale`; exempt from weight decay

    Raises:
      ValueError: as `GroupNorm`; and in `__call__`, for inputs of another rank.
    """

    epsilon: float = 1e-6
    input_rank: int | None = 4
    num_ignored_dims: int = 1

    def __call__(
        self, inputs: Float[Array, "..."], paddings: Shaped[Array, "..."] | None = None
    ) -> Float[Array, "..."]:
        """Normalizes `inputs`, [B, T, ..., D]; the paddings are ignored."""
        rank = (self.input_rank or 0) + self.num_ignored_dims
        if inputs.ndim != rank:
            raise ValueError(
                f"{self.path_text}: inputs have shape {inputs.shape}, expected rank "
                f"input_rank + num_ignored_dims = {rank}."
            )
        frames = inputs.reshape(-1, *inputs.shape[1 + self.num_ignored_dims :])
        return super().__call__(frames).reshape(inputs.shape)


class CondNormLayer(base_layer.BaseLayer):
    """Normalizes, then scales and shifts by what an embedding of each position says.

    Computes `norm(x) * (1 + gamma(emb)) + beta(emb)`, as Perez et al., "FiLM: Visual Reasoning with
    a General Conditioning Layer", 2017, arXiv:1709.07871. Shapes: D is `dim`, E is `emb_dim`.

    Attributes:
      dim: D, at least 1. Required.
      emb_dim: E, at least 1. Required.
      group_norm_tpl: Config of the normalization. D is filled in; it has no scale and no bias.
      linear_tpl: Config of the projections of the embedding. D and E are filled in.
      bias_tpl: Config of what is added to them. D is filled in.

    Variables:
      gamma_linear/w, beta_linear/w: [E, D]
      gamma_bias/b, beta_bias/b: [D]

    Raises:
      ValueError: during setup, if a size is missing; in `__call__`, if the inputs or the embeddings
        do not fit.
    """

    dim: int = 0
    emb_dim: int = 0
    group_norm_tpl: LayerTpl = template_field(GroupNormSpatial)
    linear_tpl: LayerTpl = template_field(linears.Linear)
    bias_tpl: LayerTpl = template_field(linears.Bias)

    def setup(self) -> None:
        check_sizes(self, "dim", "emb_dim")
        norm = self.group_norm_tpl.clone().set(dim=self.dim, use_scale=False, use_bias=False)
        self.create_child("group_norm", norm)
        linear = self.linear_tpl.clone().set(input_dims=self.emb_dim, output_dims=self.dim)
        bias = self.bias_tpl.clone().set(dims=self.dim)
        for name in ("gamma", "beta"):
            self.create_child(f"{name}_linear", linear)
            self.create_child(f"{name}_bias", bias)

    def __call__(
        self, inputs: Float[Array, "B T H W D"], emb: Float[Array, "..."]
    ) -> Float[Array, "B T H W D"]:
        """Normalizes `inputs`, [B, T, H, W, D], with embeddings [B, T, H, W, E]."""
        check_last_axis(self, inputs, "dim")
        if emb.shape != (*inputs.shape[:-1], self.emb_dim):
            raise ValueError(
                f"{self.path_text}: emb has shape {emb.shape}, expected "
                f"{(*inputs.shape[:-1], self.emb_dim)}: the positions of the inputs, of shape "
                f"{inputs.shape}, and emb_dim = {self.emb_dim}."
            )
        gamma = self.gamma_bias(self.gamma_linear(emb))
        beta = self.beta_bias(self.beta_linear(emb))
        return self.group_norm(inputs) * (1 + gamma) + beta
