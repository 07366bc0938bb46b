"""Pipelines, adapters and chains."""

import numpy as np

from praxis.layers import (
    activations,
    adapters,
    chain,
    linears,
    pipeline,
    transformers,
)
from registry.entry import B, Config, D, F, T, add, floats, paddings
from registry.linear import WIDE, WRONG_WIDTH
from registry.transformer import BLOCK_ROWS, WRONG_BLOCK, stack

FEED_FORWARD = Config(linears.FeedForward, input_dims=D, output_dims=D)
add(
    Config(
        pipeline.LayerwiseShardablePipelined,
        single_stage_body=FEED_FORWARD,
        num_stages=3,
        num_microbatches=2,
    ),
    WIDE,
    wrong=WRONG_WIDTH,
)
add(
    Config(
        pipeline.CircularLayerwiseShardablePipelined,
        single_stage_body=FEED_FORWARD,
        num_stages=2,
        microbatch_size=1,
        circular_repeat=3,
    ),
    WIDE,
    wrong=WRONG_WIDTH,
)
PIPELINE = {"num_pipeline_stages": 2, "num_pipeline_microbatches": 2}
add(
    Config(
        transformers.PipelinedTransformer,
        pipeline_stage=stack(mask_self_attention=True, residual_dropout_prob=0.3),
        circular_repeat=2,
        **PIPELINE,
    ),
    BLOCK_ROWS,
    streams=["random"],
    wrong=WRONG_BLOCK,
)
add(
    Config(
        transformers.PipelineCompatibleStackedTransformerRepeated,
        block=stack(mask_self_attention=True),
        x_times=4,
        nd_prefix_shape=(2, 2),
    ),
    BLOCK_ROWS,
    wrong=WRONG_BLOCK,
)
ADAPTER = Config(adapters.MultitaskResidualAdapter, bottleneck_dims=F, num_tasks=3)
TASK_ROWS = {**WIDE, "paddings": paddings(), "tasks": np.array([2, 0], np.int32)}
add(ADAPTER.clone().set(input_dims=D), TASK_ROWS, wrong=WRONG_WIDTH)
add(
    Config(
        adapters.AdaptedTransformerFeedForward,
        input_dims=D,
        hidden_dims=F,
        adapter_tpl=ADAPTER,
    ),
    TASK_ROWS,
    wrong=WRONG_WIDTH,
)
ITS_LAYERS = "the errors are those of its layers, whose arguments are its own"
POSITIONAL = {"positional": (floats(B, T, D),), "wrong": ITS_LAYERS}
add(chain.chain(FEED_FORWARD, Config(activations.Tanh), FEED_FORWARD), {}, **POSITIONAL)
add(chain.add_residual(FEED_FORWARD), {}, **POSITIONAL)
add(
    chain.apply_padding(),
    {**WIDE, "paddings": paddings()},
    wrong="the error is that of py_utils.apply_padding",
)
add(
    chain.dict_to_args("x", "paddings"),
    {"input_batch": {"x": floats(B, T, D), "paddings": paddings()}},
    wrong={"input_batch": {"x": floats(B, T, D)}},
)
add(chain.full_like(7.0), WIDE, wrong="takes any array")
add(chain.log_args("arguments"), {}, positional=(floats(B, T, D),), wrong="takes anything")
