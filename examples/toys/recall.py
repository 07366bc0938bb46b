"""One symbol out of a long sequence, recalled at its end, with state space layers."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from examples.toys.fit import evaluate, fit, one_hot
from praxis import base_layer, pax_fiddle
from praxis.layers import embedding_softmax, models, ssm_transformers
from praxis.py_utils import NestedMap

TASK = "state space layers, symbol of 150 to 200 steps ago: share of right answers"
THRESHOLD = 0.97
STEPS = 300
_BATCH_SIZE = 32
_NUM_TEST = 500
_LENGTH = 200
_EARLY = 50  # the symbol is before this position
_NUM_SYMBOLS = 6
_NUM_DISTRACTORS = 3
_WIDTH = 32
_NUM_LAYERS = 2
_STEP_SIZE = 0.01  # time between two positions: the whole sequence takes 2 of it


def examples(count: int, generator: np.random.Generator) -> NestedMap:
    """Random distractors with one symbol among the early ones, which is asked for.

    Returns:
      `ids` [count, T], distractors behind the symbols; `label_probs` [count, symbols].
    """
    ids = _NUM_SYMBOLS + generator.integers(0, _NUM_DISTRACTORS, (count, _LENGTH))
    symbols = generator.integers(0, _NUM_SYMBOLS, count)
    ids[np.arange(count), generator.integers(0, _EARLY, count)] = symbols
    return NestedMap(ids=ids.astype(np.int32), label_probs=one_hot(symbols, _NUM_SYMBOLS))


class LastState(base_layer.BaseLayer):
    """Embeds ids [B, T] and returns what state space layers make of the last one, [B, D].

    Variables:
      embedding: as in `Embedding`
      layers_0, layers_1: as in `SSMTransformer`
    """

    def setup(self) -> None:
        self.create_child(
            "embedding",
            pax_fiddle.Config(
                embedding_softmax.Embedding,
                num_classes=_NUM_SYMBOLS + _NUM_DISTRACTORS,
                input_dims=_WIDTH,
            ),
        )
        self.create_children(
            "layers",
            [
                pax_fiddle.Config(
                    ssm_transformers.SSMTransformer,
                    input_dims=_WIDTH,
                    hidden_dims=2 * _WIDTH,
                    ssm_dim=_WIDTH,
                    ssm_nheads=16,
                    ssm_l_max=_LENGTH,
                    ssm_step_size=_STEP_SIZE,
                )
                for _ in range(_NUM_LAYERS)
            ],
        )

    def __call__(self, ids: Int[Array, "B T"]) -> Float[Array, "B D"]:
        hidden = self.embedding.emb_lookup(ids)
        for layer in self.layers:
            hidden, _ = layer(hidden, jnp.zeros(ids.shape), None)
        return hidden[:, -1]


def config() -> pax_fiddle.Config[models.ClassificationModel]:
    """The state after the last symbol, and a softmax."""
    return pax_fiddle.Config(
        models.ClassificationModel,
        name="recall",
        network_tpl=pax_fiddle.Config(LastState),
        softmax_tpl=pax_fiddle.Config(
            embedding_softmax.FullSoftmax, input_dims=_WIDTH, num_classes=_NUM_SYMBOLS
        ),
        input_field="ids",
    )


def reach(steps: int = STEPS) -> float:
    """Share of right answers for sequences that were not trained on."""
    generator = np.random.default_rng(0)
    batches = examples(steps * _BATCH_SIZE, generator)
    batches = batches.Transform(lambda x: x.reshape(steps, _BATCH_SIZE, *x.shape[1:]))
    model = pax_fiddle.build(config())
    variables = fit(model, batches, lambda outputs, _: outputs[0].avg_xent[0], learning_rate=0.02)
    metrics, _ = evaluate(model, variables, examples(_NUM_TEST, generator))
    return float(metrics.accuracy[0])
