"""Language models."""

from praxis import py_utils
from praxis.layers import (
    embedding_softmax,
    models,
    normalizations,
    transformer_models,
    transformers,
)
from registry.embedding import XENT_FLOAT32
from registry.entry import EVEN, B, Config, T, V, add, ids, paddings
from registry.transformer import POSITIONS, SEGMENTS, rotary_gated, stack

LM = {"model_dims": EVEN, "vocab_size": V}
LM_LABELS = py_utils.NestedMap(class_ids=ids(B, T), class_weights=1 - paddings())
LM_ROWS = {"inputs": ids(B, T), "paddings": paddings(), "labels": LM_LABELS}
LM_FLOAT32 = [
    *XENT_FLOAT32,
    *("per_token_xent", "per_sequence_xent", "total_loss", "aux_loss", "aux_loss_weight"),
]
WRONG_SEGMENTS = {"segment_ids": None, "segment_pos": POSITIONS}
add(
    Config(transformer_models.TransformerLm, stacked_transformer_tpl=stack(), **LM),
    LM_ROWS,
    float32_outputs=LM_FLOAT32,
    wrong=WRONG_SEGMENTS,
)
add(
    Config(
        transformer_models.TransformerLm,
        stacked_transformer_tpl=Config(
            transformers.StackedTransformerRepeated,
            block=rotary_gated(stack()),
            x_times=3,
        ),
        position_emb_tpl=None,
        separate_embedding_tpl=Config(embedding_softmax.Embedding),
        softmax_tpl=Config(embedding_softmax.FullSoftmax),
        final_ln_tpl=Config(normalizations.RmsNorm),
        packed_input=True,
        **LM,
    ),
    {**LM_ROWS, "segment_ids": SEGMENTS, "segment_pos": POSITIONS},
    "packed_rotary_repeated",
    float32_outputs=LM_FLOAT32,
    wrong=WRONG_SEGMENTS,
)
BATCH = py_utils.NestedMap(
    ids=ids(B, T), labels=ids(B, T), paddings=paddings(), weights=1 - paddings()
)
for language_model in (models.LanguageModel, models.LanguageModelContinuousBatching):
    add(
        Config(
            language_model,
            lm_tpl=Config(transformer_models.TransformerLm, stacked_transformer_tpl=stack(), **LM),
            count_tokens=True,
        ),
        {"input_batch": BATCH},
        float32_outputs="all",
        wrong={"input_batch": py_utils.NestedMap(ids=BATCH.ids, paddings=BATCH.paddings)},
    )
