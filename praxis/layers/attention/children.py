"""Templates of the children of attention layers, with sizes and sharding filled in."""

from typing import Any

from praxis import base_layer, pax_fiddle

WeightInit = base_layer.WeightInit
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


def input_projection(layer: Any, name: str, width: int) -> LayerTpl:
    """Config of the projection to the heads of "query", "key" or "value".

    Args:
      layer: An attention layer.
      name: Of the projection.
      width: Of its inputs.
    """
    tpl = layer.proj_tpl.clone().set(
        input_dim=width,
        num_heads=layer.num_heads,
        dim_per_head=layer.head_dims,
        use_bias=layer.use_bias,
    )
    tpl.weight_split_dims_mapping.wt = layer.weight_split_dims_mapping.proj
    if layer.internal_gshard_gaussian_init:
        fan = width * (layer.head_dims if name == "query" else 1)
        tpl.params_init = WeightInit.Gaussian(fan**-0.5)
    return tpl


def combined_projection(layer: Any, width: int) -> LayerTpl:
    """Config of the one projection to queries, keys and values."""
    tpl = layer.combined_qkv_proj_tpl.clone().set(
        input_dim=width,
        num_heads=layer.num_heads,
        dim_per_head=layer.head_dims,
        use_bias=layer.use_bias,
    )
    tpl.weight_split_dims_mapping.wt = layer.weight_split_dims_mapping.proj
    return tpl


def output_projection(layer: Any, width: int) -> LayerTpl:
    """Config of the projection from the heads, `post`."""
    tpl = layer.proj_tpl.clone().set(
        input_dim=width,
        num_heads=layer.num_heads,
        dim_per_head=layer.head_dims,
        is_output_projection=True,
        use_bias=layer.use_bias,
        use_nhd_shape=layer.output_proj_use_nhd_shape,
    )
    split = layer.weight_split_dims_mapping.proj
    if split is not None and layer.output_proj_use_nhd_shape:
        split = [*split[1:], split[0]]
    tpl.weight_split_dims_mapping.wt = split
    if layer.internal_gshard_gaussian_init:
        tpl.params_init = WeightInit.Gaussian((layer.num_heads * layer.head_dims) ** -0.5)
    return tpl


def depthwise_convolution(layer: Any) -> LayerTpl:
    """Config of the convolution of queries, keys or values over time."""
    tpl = layer.causal_depthwise_conv1d_tpl.clone().set(
        kernel_size=layer.dconv_kernel_size, hidden_dims=[layer.num_heads, layer.head_dims]
    )
    tpl.weight_split_dims_mapping.wt = layer.weight_split_dims_mapping.dconv
    return tpl


def rotation(layer: Any) -> LayerTpl:
    """Config of the rotation of queries and keys by position."""
    return layer.rotary_position_emb_tpl.clone().set(
        embedding_dims=layer.head_dims, cast_as_fprop_dtype=layer.cast_rotary_position_emb
    )
