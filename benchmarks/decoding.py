"""Tokens a second of greedy decoding with a cache, against a hand-written loop of the same maths.

Both have the same weights, and have to give the same tokens.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import by_hand, frame, language_model
from benchmarks.frame import OURS, Row, Settings
from benchmarks.language_model import Sizes
from praxis import base_layer, decoder_hparams, py_utils

PROMPT = 32
LIMIT = frame.at_least(0.95)


def measure(settings: Settings) -> Iterator[Row]:
    steps = settings.choose(32, 128)
    for batch in (1, 16):
        sizes = Sizes(layers=settings.choose(2, 4), width=256, heads=4, batch=batch, length=PROMPT)
        both = programs(sizes, steps)
        frame.same("tokens", {name: program() for name, program in both.items()}, rtol=0)
        case = f"{steps} tokens after {PROMPT}, batch {batch}"
        yield frame.compare(case, both, settings, work=batch * steps, unit="tokens/s", limit=LIMIT)


def programs(sizes: Sizes, steps: int) -> dict[str, Callable[[], jax.Array]]:
    """Pax's decoding and that by hand, for the same weights and prompts."""
    options = decoder_hparams.GreedyDecoderHParams(
        seqlen=PROMPT + steps, max_decode_steps=steps, fprop_for_prefix=True, eos_id=-1
    )
    model = base_layer.instantiate(language_model.config(sizes, options))
    variables = language_model.initial(model, sizes)
    prompt = language_model.tokens(sizes)[:, 1:]
    inputs = py_utils.NestedMap(ids=prompt, paddings=jnp.zeros(prompt.shape))

    @jax.jit
    def decode(variables: Any, inputs: Any) -> jax.Array:
        hparams = base_layer.JaxContext.HParams(do_eval=True)
        with base_layer.JaxContext.new_context(hparams=hparams):
            (_, out, _), _ = model.apply(
                variables,
                inputs,
                method=model.decode,
                mutable=[base_layer.DECODE_CACHE],
                rngs={base_layer.RANDOM: jax.random.PRNGKey(2)},
            )
        return out.output_ids[:, 0, PROMPT:]

    weights = by_hand.weights_from_pax(variables["params"]["lm"], sizes)
    loop = jax.jit(lambda weights, prompt: by_hand.decode(weights, prompt, sizes, steps))
    return {OURS: lambda: decode(variables, inputs), "by hand": lambda: loop(weights, prompt)}
