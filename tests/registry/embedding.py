"""Embeddings and softmax."""

import numpy as np

from praxis.layers import (
    embedding_softmax,
    losses,
)
from registry.entry import EVEN, B, Config, D, N, S, T, V, add, floats, ids, paddings
from registry.linear import WRONG_WIDTH

add(
    Config(embedding_softmax.TokenCounter),
    {"inputs": ids(B, T), "paddings": paddings()},
    wrong="counts the zeros of `paddings`, of any shape",
)
TOKENS = {"ids": ids(B, T)}
for style in ("index", "matmul"):
    add(
        Config(embedding_softmax.Embedding, num_classes=V, input_dims=D, lookup_style=style),
        TOKENS,
        style,
        wrong="ids of any shape",
    )
LABELS = {
    "inputs": floats(B, T, D),
    "class_weights": 1 - paddings()[..., np.newaxis],
    "class_ids": ids(B, T, 1),
}
XENT_FLOAT32 = [
    *("per_example_xent", "total_xent", "total_weight"),
    *("avg_xent", "avg_xent_weight", "accuracy", "z_loss"),
]
CLASSES = {"input_dims": D, "num_classes": V}
for softmax in (
    embedding_softmax.FullSoftmax,
    embedding_softmax.SharedEmbeddingSoftmax,
    embedding_softmax.NClassMajorSharedEmbeddingSoftmax,
    embedding_softmax.GShardSharedEmbeddingSoftmax,
):
    add(Config(softmax, **CLASSES), LABELS, wrong=WRONG_WIDTH, float32_outputs=XENT_FLOAT32)
add(
    Config(
        embedding_softmax.FullSoftmax,
        soft_cap_logits=3.0,
        label_smoothing_prob=0.1,
        z_loss_weight=0.1,
        chunk_size=5,
        **CLASSES,
    ),
    LABELS,
    "chunked",
    wrong=WRONG_WIDTH,
    float32_outputs=XENT_FLOAT32,
)
add(Config(embedding_softmax.SigmoidCrossEntropy, **CLASSES), LABELS, wrong=WRONG_WIDTH)

add(
    Config(losses.BiTemperedLoss, t1=0.8, t2=1.2, label_smoothing=0.1),
    {"logits": floats(B, T, V), "labels": np.eye(V, dtype=np.float32)[ids(B, T)]},
    wrong={"labels": np.eye(V + 1, dtype=np.float32)[ids(B, T)]},
    float32_outputs="all",
)

SINES = {"embedding_dims": EVEN}
add(
    Config(embedding_softmax.PositionalEmbedding, **SINES),
    {"seq_length": T},
    wrong={"seq_length": None},
)
add(
    Config(embedding_softmax.PositionalEmbedding, **SINES),
    {"position": ids(B, T)},
    "position",
    wrong={"position": None},
)
add(
    Config(embedding_softmax.PositionalEmbedding2D, h=3, w=5, embedding_dims=8),
    {"seq_length": 15},
    wrong={"seq_length": 14},
)
add(
    Config(embedding_softmax.TrainablePositionalEmbedding, max_seq_length=S, **SINES),
    {"position": ids(B, T, below=S)},
    wrong={"position": None},
)
add(
    Config(embedding_softmax.RotaryPositionalEmbedding, **SINES),
    {"inputs": floats(B, T, N, EVEN), "position": ids(B, T)},
    wrong={"inputs": floats(B, T, N, EVEN + 2)},
)
