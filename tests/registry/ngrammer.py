"""N-grammers."""

from praxis.layers import (
    bregman,
    ngrammer,
)
from registry.entry import B, Config, D, H, N, T, V, add, floats, ids, paddings
from registry.linear import sharded
from registry.transformer import POSITIONS

NGRAM_HEADS = {"num_heads": N, "dim_per_head": H}
NGRAMS = {"ngram_vocab_size": 23, "ngram_emb_dim": 2, **NGRAM_HEADS}
NGRAM_ROWS = {
    "input_ids": ids(B, T),
    "input_embs": floats(B, T, N * H),
    "paddings": paddings(),
}
WRONG_NGRAMS = {"input_embs": floats(B, T, N * H + 1)}
add(
    sharded(Config(ngrammer.Ngrammer, unigram_vocab_size=V, **NGRAMS), wt=["mdl", "data"]),
    {**NGRAM_ROWS, "segment_pos": POSITIONS},
    wrong=WRONG_NGRAMS,
)
add(
    Config(ngrammer.VQNgrammer, num_clusters=5, unigram_vocab_size=V, concat_ngrams=True, **NGRAMS),
    NGRAM_ROWS,
    wrong=WRONG_NGRAMS,
)
add(Config(ngrammer.NgrammerStub, **NGRAM_HEADS), NGRAM_ROWS, wrong=WRONG_NGRAMS)
PCA = {"num_components": 2, "end_step": 7}
add(Config(ngrammer.BregmanNgrammer, **NGRAMS, **PCA), NGRAM_ROWS, wrong=WRONG_NGRAMS)
HEADS_OF_ROWS = {"inputs": floats(B, T, N, H), "paddings": paddings()}
WRONG_HEADS_OF_ROWS = {"inputs": floats(B, T, N, H + 1)}
add(
    Config(ngrammer.BregmanCompression, **NGRAM_HEADS, **PCA),
    HEADS_OF_ROWS,
    float32_outputs="all",
    wrong=WRONG_HEADS_OF_ROWS,
)
add(
    Config(ngrammer.VectorQuantization, num_clusters=5, **NGRAM_HEADS),
    HEADS_OF_ROWS,
    float32_outputs=["0"],
    wrong=WRONG_HEADS_OF_ROWS,
)
add(
    Config(bregman.BregmanPCA, input_dims=D, **PCA),
    {"inputs": floats(B, D)},
    float32_outputs=["1"],
    wrong={"inputs": floats(B, D + 1)},
)
