"""Losses of adversarial training against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers.video import losses
from praxis.py_utils import NestedMap

close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
REAL, FAKE = np.array([[0.7], [-0.4], [1.5]]), np.array([[-0.2], [0.9], [0.1]])
START = {"ema_real_pred": 0.6, "ema_fake_pred": -0.3}


def layer(**fields):
    return pax_fiddle.build(pax_fiddle.Config(losses.VQGANLoss, name="gan", **fields))


def arguments(**more):
    rng = np.random.default_rng(0)
    video, reconstruction = rng.standard_normal((2, 3, 2, 4, 5, 3))
    predictions = NestedMap(
        reconstruction=reconstruction, real_logits=REAL, fake_logits=FAKE, quantizer_loss=0.37
    )
    predictions.update(more)
    return jax.tree.map(jnp.float32, (predictions, NestedMap(video=video)))


def softplus(x):
    return np.log1p(np.exp(x))


def run(module, predictions, batch, *, do_eval, mutable):
    """Losses and changed variables."""
    variables = {"non_trainable": {name: jnp.float32(value) for name, value in START.items()}}
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=do_eval)):
        return module.apply(variables, predictions, batch, mutable=mutable)


@pytest.mark.parametrize("do_eval", [False, True])
def test_losses_and_their_sums(do_eval):
    """Behaviour "GAN losses in train/eval" of the video layers."""
    predictions, batch = arguments(grad_penalty=0.8)
    module = layer(polyak_decay=0.9, lecam_weight=0.05)
    got, updated = run(module, predictions, batch, do_eval=do_eval, mutable=["non_trainable"])
    real_mean = 0.9 * 0.6 + 0.1 * REAL.mean()
    fake_mean = 0.9 * -0.3 + 0.1 * FAKE.mean()
    lecam = (np.maximum(REAL - fake_mean, 0) ** 2).mean()
    lecam += (np.maximum(real_mean - FAKE, 0) ** 2).mean()
    want = {
        "grad_penalty": 0.8,
        "lecam_loss": lecam,
        "d_adversarial_loss": softplus(-REAL).mean() + softplus(FAKE).mean(),
        "g_adversarial_loss": softplus(-FAKE).mean(),
        "reconstruction_loss": np.square(predictions.reconstruction - batch.video).mean(),
        "perceptual_loss": 0.0,
        "quantizer_loss": 0.0 if do_eval else 0.37,
    }
    want["d_loss"] = want["d_adversarial_loss"] + 0.8 + 0.05 * lecam
    want["g_loss"] = 5 * want["reconstruction_loss"] + 0.1 * want["g_adversarial_loss"]
    want["g_loss"] += want["quantizer_loss"]
    assert set(got) == set(want)
    for name, value in want.items():
        close(got[name], value, err_msg=name)
    close(updated["non_trainable"]["ema_real_pred"], real_mean)
    close(updated["non_trainable"]["ema_fake_pred"], fake_mean)


def test_without_mutable_variables_the_means_stay_and_the_losses_are_the_same():
    predictions, batch = arguments()
    kept, updated = run(layer(), predictions, batch, do_eval=True, mutable=[])
    changed, _ = run(layer(), predictions, batch, do_eval=True, mutable=["non_trainable"])
    assert not updated
    close(kept.lecam_loss, changed.lecam_loss)
    close(kept.grad_penalty, 0)


def test_missing_entries_are_named():
    predictions, batch = arguments()
    del predictions.fake_logits, predictions.quantizer_loss
    with pytest.raises(ValueError, match=r"VQGANLoss 'gan': .* not fake_logits, quantizer_loss"):
        run(layer(), predictions, batch, do_eval=False, mutable=[])
    predictions, batch = arguments()
    with pytest.raises(ValueError, match=r"'gan': input_batch has \['x'\], but not video"):
        run(layer(), predictions, NestedMap(x=batch.video), do_eval=False, mutable=[])
    with pytest.raises(ValueError, match=r"reconstruction has shape .*expected \(3, 1, 4, 5, 3\)"):
        short = NestedMap(video=batch.video[:, :1])
        run(layer(), predictions, short, do_eval=False, mutable=[])


def test_r1_gradient_penalty_of_a_linear_function():
    """Behaviour "r1 penalty on a linear function" of the video layers."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 2, 5)), rng.standard_normal((2, 5))
    logits, penalty = losses.r1_gradient_penalty(
        jnp.float32(x), lambda x: jnp.einsum("btd,td->b", x, jnp.float32(w))[:, None], 3.0
    )
    close(logits, np.einsum("btd,td->b", x, w)[:, None])
    close(penalty, 3 * (w**2).sum())


def test_r1_gradient_penalty_is_the_mean_over_examples_and_in_float32():
    x = jnp.array([[1.0, 2.0], [3.0, -1.0]], jnp.bfloat16)
    logits, penalty = losses.r1_gradient_penalty(x, lambda x: jnp.sum(x * x, axis=-1))
    assert logits.dtype == jnp.bfloat16 and penalty.dtype == jnp.float32
    close(penalty, 10 * 4 * np.mean([5, 10]))
