"""Sequences of symbols from noisy frames, with a bidirectional LSTM and the CTC loss."""

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from examples.toys.fit import evaluate, fit
from praxis import base_layer, pax_fiddle
from praxis.layers import activations, ctc_objectives, frnn, linears, rnn_cell
from praxis.py_utils import NestedMap

TASK = "LSTM and CTC, noisy symbols: 1 - label error rate"
THRESHOLD = 0.97
STEPS = 300
_BATCH_SIZE = 32
_NUM_TEST = 500
_NUM_SYMBOLS = 7  # beside 0, the blank
_NUM_LABELS = (3, 6)  # fewest and most in a sequence
_DURATION = (2, 5)  # frames of a symbol
_PAUSE = (1, 3)  # frames of noise between two symbols
_NUM_FRAMES = _NUM_LABELS[1] * (_DURATION[1] + _PAUSE[1])
_FEATURES = 12
_NOISE = 0.5  # standard deviation; a symbol's own features have 1
_WIDTH = 64


def examples(count: int, generator: np.random.Generator) -> NestedMap:
    """Frames and labels; a symbol is a vector that stays for some frames, noise is everywhere.

    Returns:
      `features` [count, T, F], `paddings` [count, T], `labels` [count, N], `label_paddings`.
    """
    vectors = np.random.default_rng(0).standard_normal((_NUM_SYMBOLS + 1, _FEATURES))
    vectors[0] = 0.0
    frames = np.zeros([count, _NUM_FRAMES], np.int32)
    paddings = np.ones([count, _NUM_FRAMES], np.float32)
    labels = np.zeros([count, _NUM_LABELS[1]], np.int32)
    label_paddings = np.ones([count, _NUM_LABELS[1]], np.float32)
    for row in range(count):
        symbols = generator.integers(1, _NUM_SYMBOLS + 1, generator.integers(*_NUM_LABELS) + 1)
        labels[row, : len(symbols)] = symbols
        label_paddings[row, : len(symbols)] = 0.0
        durations = generator.integers(_DURATION[0], _DURATION[1] + 1, len(symbols))
        pauses = generator.integers(_PAUSE[0], _PAUSE[1] + 1, len(symbols))
        runs = np.stack([durations, pauses], axis=1).ravel()
        line = np.repeat(np.stack([symbols, 0 * symbols], axis=1).ravel(), runs)
        frames[row, : len(line)] = line
        paddings[row, : len(line)] = 0.0
    features = vectors[frames] + _NOISE * generator.standard_normal((*frames.shape, _FEATURES))
    return NestedMap(
        features=np.float32(features),
        paddings=paddings,
        labels=labels,
        label_paddings=label_paddings,
    )


class Recognizer(base_layer.BaseLayer):
    """Logits of the blank and the symbols for each frame, [B, T, 1 + _NUM_SYMBOLS].

    Variables:
      rnn: as in `StackBiFrnn`
      output: as in `FeedForward`
    """

    def setup(self) -> None:
        cell = pax_fiddle.Config(rnn_cell.LstmCellSimple)
        rnn = pax_fiddle.Config(
            frnn.StackBiFrnn,
            frnn_tpl=pax_fiddle.Config(frnn.LstmFrnn, cell_tpl=cell),
            num_input_nodes=_FEATURES,
            num_output_nodes=_WIDTH,
        )
        output = pax_fiddle.Config(
            linears.FeedForward,
            input_dims=_WIDTH,
            output_dims=1 + _NUM_SYMBOLS,
            activation_tpl=pax_fiddle.Config(activations.Identity),
        )
        self.create_child("rnn", rnn)
        self.create_child("output", output)

    def __call__(self, batch: NestedMap) -> Float[Array, "B T K"]:
        paddings = batch.paddings[..., jnp.newaxis]
        hidden, _ = self.rnn(NestedMap(act=[batch.features], padding=paddings))
        return self.output(hidden)


def loss(logits: Float[Array, "B T K"], batch: NestedMap) -> Float[Array, ""]:
    """Nats a symbol."""
    nats, _ = ctc_objectives.ctc_loss_with_alignments(
        logits, batch.paddings, batch.labels, batch.label_paddings
    )
    return jnp.sum(nats) / jnp.sum(1 - batch.label_paddings)


def decode(logits: np.ndarray, paddings: np.ndarray) -> list[list[int]]:
    """The likeliest class of each frame, repetitions merged, then without the blank."""
    rows = []
    for likeliest, padded in zip(logits.argmax(-1), paddings, strict=True):
        classes = likeliest[padded == 0].tolist()
        rows.append([label for label, _ in itertools.groupby(classes) if label])
    return rows


def edit_distance(first: list[int], second: list[int]) -> int:
    """Fewest insertions, deletions and replacements from one list to the other."""
    above = list(range(len(second) + 1))
    for i, left in enumerate(first, 1):
        row = [i]
        for j, right in enumerate(second, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (left != right)))
        above = row
    return above[-1]


def reach(steps: int = STEPS) -> float:
    """One minus the label error rate on sequences that were not trained on."""
    generator = np.random.default_rng(1)
    batches = examples(steps * _BATCH_SIZE, generator)
    batches = batches.Transform(lambda x: x.reshape(steps, _BATCH_SIZE, *x.shape[1:]))
    model = pax_fiddle.build(pax_fiddle.Config(Recognizer, name="recognizer"))
    variables = fit(model, batches, loss, learning_rate=0.02)
    test = examples(_NUM_TEST, generator)
    found = decode(np.asarray(evaluate(model, variables, test)), test.paddings)
    wanted = [
        labels[padded == 0].tolist()
        for labels, padded in zip(test.labels, test.label_paddings, strict=True)
    ]
    errors = sum(edit_distance(*pair) for pair in zip(found, wanted, strict=True))
    return 1.0 - errors / sum(map(len, wanted))
