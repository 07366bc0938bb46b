"""A layer that keeps a moving average of its inputs."""

import jax
import jax.numpy as jnp
from absl.testing import absltest

from praxis import base_layer, pax_fiddle, test_utils

PARAMS = base_layer.PARAMS
NON_TRAINABLE = base_layer.NON_TRAINABLE
WeightHParams = base_layer.WeightHParams


class Centered(base_layer.BaseLayer):
    """Takes the mean of the batch away in training, its moving average in evaluation."""

    dim: int = 0
    decay: float = 0.9

    def setup(self):
        mean = WeightHParams(
            shape=[self.dim],
            init=base_layer.WeightInit.Constant(0.0),
            dtype=jnp.float32,
            collections=[base_layer.WeightHParamsCollection.REQUIRES_MEAN_SYNC],
        )
        self.create_variable("moving_mean", mean, trainable=False)
        self.create_variable("gain", WeightHParams([self.dim]))

    def __call__(self, inputs):
        moving_mean = self.get_var("moving_mean")
        if self.do_eval:
            mean = moving_mean
        else:
            mean = jnp.mean(inputs, axis=0)
            self.update_var("moving_mean", self.decay * moving_mean + (1.0 - self.decay) * mean)
        return (inputs - mean[jnp.newaxis, :]) * self.theta.gain[jnp.newaxis, :]


class CenteredTest(test_utils.TestCase):
    def test_updates_in_training_only(self):
        p = pax_fiddle.Config(Centered, name="c", dim=2)
        p.params_init = base_layer.WeightInit.Constant(1.0)
        layer = base_layer.instantiate(p)
        x = jnp.asarray([[1.0, 10.0], [3.0, 30.0]])
        context_p = base_layer.JaxContext.HParams(do_eval=False)
        with base_layer.JaxContext.new_context(hparams=context_p):
            theta = layer.init(jax.random.PRNGKey(0), x)
            out, updated = layer.apply(theta, x, mutable=[NON_TRAINABLE])
        self.assertAllClose(out, [[-1.0, -10.0], [1.0, 10.0]])
        self.assertAllClose(updated[NON_TRAINABLE]["moving_mean"], [0.2, 2.0])
        theta = {PARAMS: theta[PARAMS], **updated}
        context_p = base_layer.JaxContext.HParams(do_eval=True)
        with base_layer.JaxContext.new_context(hparams=context_p):
            out, updated = layer.apply(theta, x, mutable=[NON_TRAINABLE])
        self.assertAllClose(out, [[0.8, 8.0], [2.8, 28.0]])
        self.assertAllClose(updated[NON_TRAINABLE]["moving_mean"], [0.2, 2.0])

    def test_metadata(self):
        layer = pax_fiddle.instantiate(pax_fiddle.Config(Centered, name="c", dim=2))
        meta = layer.abstract_init_with_metadata(jnp.ones([3, 2]))
        hparams = meta[NON_TRAINABLE]["moving_mean"]
        self.assertTrue(base_layer.var_not_trainable(hparams))
        self.assertTrue(base_layer.var_requires_mean_sync(hparams))
        self.assertFalse(base_layer.var_not_trainable(meta[PARAMS]["gain"]))


if __name__ == "__main__":
    absltest.main()
