"""Encoder-decoder models and models with a task."""

import numpy as np

from praxis import py_utils
from praxis.layers import (
    embedding_softmax,
    linears,
    models,
    transformer_models,
)
from registry.entry import EVEN, B, Config, D, F, S, T, V, add, floats, ids, paddings
from registry.language import BATCH, LM, LM_FLOAT32, LM_LABELS
from registry.transformer import POSITIONS, SEGMENTS, stack

ENCODER_DECODER = Config(
    transformer_models.TransformerEncoderDecoder,
    encoder_stacked_transformer_tpl=stack(),
    decoder_stacked_transformer_tpl=stack(mask_self_attention=True, use_cross_attention=True),
    softmax_tpl=Config(embedding_softmax.SharedEmbeddingSoftmax, num_classes=V),
    model_dims=EVEN,
)
ENCODER_DECODER_ROWS = {
    "inputs": ids(B, S),
    "input_paddings": paddings(length=S),
    "targets": ids(B, T),
    "target_paddings": paddings(),
    "labels": LM_LABELS,
}
add(
    ENCODER_DECODER,
    ENCODER_DECODER_ROWS,
    float32_outputs=LM_FLOAT32,
    wrong={"target_segment_pos": POSITIONS},
)
add(
    Config(models.SequenceModel, model_tpl=ENCODER_DECODER),
    {
        "input_batch": py_utils.NestedMap(
            src=py_utils.NestedMap(ids=ids(B, S), paddings=paddings(length=S)), tgt=BATCH
        )
    },
    float32_outputs="all",
    wrong={"input_batch": py_utils.NestedMap(tgt=BATCH)},
)
ANSWER = {
    "/inputs": BATCH.ids,
    "/paddings": BATCH.paddings,
    "/labels/ids": BATCH.labels,
    "/labels/weights": BATCH.weights,
}
PAIR = {
    **{f"y_w{name}": array for name, array in ANSWER.items()},
    **{f"y_l{name}": array[::-1].copy() for name, array in ANSWER.items()},
    **{f"{half}/segment_ids": SEGMENTS for half in ("y_w", "y_l")},
    **{f"{half}/segment_pos": POSITIONS for half in ("y_w", "y_l")},
}
SMALL_LM = Config(transformer_models.TransformerLm, stacked_transformer_tpl=stack(), **LM)
add(
    Config(models.LanguageModelDPO, mdl=SMALL_LM, ref_mdl=SMALL_LM),
    {"input_batch": PAIR},
    float32_outputs="all",
    wrong={"input_batch": ANSWER},
)
TARGETS = {name.removesuffix("/inputs"): array for name, array in ANSWER.items()}
add(
    Config(models.SequenceModelDPO, model_tpl=ENCODER_DECODER),
    {
        "input_batch": {
            "inputs": ids(B, S),
            "input_paddings": paddings(length=S),
            **{f"targets_w{name}": array for name, array in TARGETS.items()},
            **{f"targets_l{name}": array[::-1].copy() for name, array in TARGETS.items()},
        }
    },
    float32_outputs="all",
    wrong={"input_batch": TARGETS},
)
HIDDEN = py_utils.NestedMap(
    **BATCH,
    segment_ids=SEGMENTS,
    segment_pos=POSITIONS,
    masked_ids=BATCH.ids[::-1].copy(),
    masked_pos=BATCH.weights,
)
add(
    Config(
        models.BertModel,
        lm_tpl=SMALL_LM.clone().set(
            packed_input=True, model_type=transformer_models.LanguageModelType.BIDIRECTIONAL
        ),
    ),
    {"input_batch": HIDDEN},
    float32_outputs="all",
    wrong={"input_batch": BATCH},
)
IMAGES = py_utils.NestedMap(image=floats(B, D), label_probs=np.eye(V, dtype=np.float32)[:B])
add(
    Config(
        models.ClassificationModel,
        network_tpl=Config(linears.Linear, input_dims=D, output_dims=F),
        softmax_tpl=Config(embedding_softmax.FullSoftmax, input_dims=F, num_classes=V),
    ),
    {"input_batch": IMAGES},
    float32_outputs=[
        f"0/{metric}/{part}"
        for metric in ("accuracy", "acc5", "avg_xent", "error", "error5", "num_predictions")
        for part in (0, 1)
    ],
    wrong={"input_batch": py_utils.NestedMap(image=IMAGES.image)},
)
add(
    Config(
        models.ClassificationMLPModel,
        mlp_tpl=Config(
            linears.MLPBlock,
            ff_tpl=Config(linears.FeedForward, input_dims=EVEN, output_dims=EVEN),
        ),
        softmax_tpl=Config(
            embedding_softmax.SharedEmbeddingSoftmax, input_dims=EVEN, num_classes=V
        ),
    ),
    {"input_batch": BATCH},
    float32_outputs="all",
    has_idle_params=True,
    wrong={"input_batch": py_utils.NestedMap(ids=BATCH.ids)},
)
