"""Losses of an autoencoder that is trained against a discriminator."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from praxis import base_layer, py_utils

WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
PREDICTIONS = ("reconstruction", "real_logits", "fake_logits")


def r1_gradient_penalty(
    inputs: Float[Array, "*B"],
    logits_fn: Callable[[Float[Array, "*B"]], Float[Array, "..."]],
    grad_penalty_cost: float = 10.0,
) -> tuple[Float[Array, "..."], Float[Array, ""]]:
    """Keeps a discriminator flat around real data.

    Mescheder et al., "Which Training Methods for GANs do actually Converge?", 2018,
    arXiv:1801.04406.

    Args:
      inputs: [B, ...], real data.
      logits_fn: The discriminator; each logit depends on its own example alone.
      grad_penalty_cost: Weight.

    Returns:
      The logits, and the cost times the mean over the batch of the squared length of the gradient
      of an example's logit, in float32.
    """

    def total(inputs: Float[Array, "*B"]) -> tuple[Float[Array, ""], Float[Array, "..."]]:
        logits = logits_fn(inputs)
        return jnp.sum(logits.astype(jnp.float32)), logits

    gradients, logits = jax.grad(total, has_aux=True)(inputs)
    gradients = gradients.astype(jnp.float32).reshape(len(inputs), -1)
    return logits, grad_penalty_cost * jnp.mean(jnp.sum(jnp.square(gradients), axis=-1))


class VQGANLoss(base_layer.BaseLayer):
    """Losses of the discriminator and of the autoencoder that it judges.

    With the non-saturating losses of Goodfellow et al., "Generative Adversarial Networks", 2014,
    arXiv:1406.2661, the discriminator has `mean(softplus(-real)) + mean(softplus(fake))`, and the
    autoencoder `mean(softplus(-fake))`.

    Attributes:
      reconstruction_loss_weight: Of the mean squared difference of input and output.
      g_adversarial_loss_weight: Of the loss that wants to be judged real.
      lecam_weight: Of `lecam_loss`.
      polyak_decay: Share of their old value that the running means keep at each step.

    Variables:
      ema_real_pred, ema_fake_pred: [], running means of the logits, float32, not trained

    Raises:
      ValueError: in `__call__`, if an entry of the arguments is missing or shapes do not fit.
    """

    reconstruction_loss_weight: float = 5.0
    g_adversarial_loss_weight: float = 0.1
    lecam_weight: float = 0.001
    polyak_decay: float = 0.999

    def setup(self) -> None:
        for name in ("ema_real_pred", "ema_fake_pred"):
            hparams = WeightHParams(
                shape=[],
                init=WeightInit.Constant(0.0),
                dtype=jnp.float32,
                collections=[base_layer.WeightHParamsCollection.REQUIRES_MEAN_SYNC],
            )
            self.create_variable(name, hparams, trainable=False)

    def _update_mean(self, name: str, logits: Float[Array, "..."]) -> Float[Array, ""]:
        old = self.get_var(name)
        # What the discriminator says now is its past for the losses, not a way for gradients.
        now = jax.lax.stop_gradient(jnp.mean(logits.astype(jnp.float32)))
        new = self.polyak_decay * old + (1 - self.polyak_decay) * now
        self.update_var(name, new)
        return new

    def lecam_loss(
        self, real_pred: Float[Array, "..."], fake_pred: Float[Array, "..."]
    ) -> Float[Array, ""]:
        """Keeps logits of real data near the past ones of decoded data, and the reverse.

        Tseng et al., "Regularizing Generative Adversarial Networks under Limited Data", 2021,
        arXiv:2104.03310; as in their implementation, logits on the wrong side of the other mean
        cost nothing. Also updates the running means, which `update_var` ignores in evaluation, and
        uses the updated ones. Not weighted.
        """
        ema_real = self._update_mean("ema_real_pred", real_pred)
        ema_fake = self._update_mean("ema_fake_pred", fake_pred)
        real = jax.nn.relu(real_pred.astype(jnp.float32) - ema_fake)
        fake = jax.nn.relu(ema_real - fake_pred.astype(jnp.float32))
        return jnp.mean(jnp.square(real)) + jnp.mean(jnp.square(fake))

    def _check(self, predictions: py_utils.NestedMap, input_batch: py_utils.NestedMap) -> None:
        missing = [name for name in PREDICTIONS if name not in predictions]
        if not self.do_eval and "quantizer_loss" not in predictions:
            missing.append("quantizer_loss")
        if missing:
            raise ValueError(
                f"{self.path_text}: predictions have {sorted(predictions)}, but not "
                f"{', '.join(missing)}. Put them there under these names."
            )
        if "video" not in input_batch:
            raise ValueError(
                f"{self.path_text}: input_batch has {sorted(input_batch)}, but not video, the "
                "input of the autoencoder."
            )
        if predictions.reconstruction.shape != input_batch.video.shape:
            raise ValueError(
                f"{self.path_text}: predictions.reconstruction has shape "
                f"{predictions.reconstruction.shape}, expected {input_batch.video.shape} as "
                "input_batch.video."
            )

    def __call__(
        self, predictions: py_utils.NestedMap, input_batch: py_utils.NestedMap
    ) -> py_utils.NestedMap:
        """Computes both losses; take gradients of each for its own network alone.

        Args:
          predictions: A NestedMap of
            - reconstruction: [B, T, H, W, C], output of the autoencoder
            - real_logits, fake_logits: [B, 1], of the discriminator for input and output
            - quantizer_loss: [], of the quantizer; not needed in evaluation
            - grad_penalty: [], of `r1_gradient_penalty`; 0 if missing
          input_batch: A NestedMap of
            - video: [B, T, H, W, C]

        Returns:
          A NestedMap of numbers in float32: the terms as they are before they are weighted,
          - d_adversarial_loss, g_adversarial_loss, reconstruction_loss
          - lecam_loss: see the method
          - grad_penalty, quantizer_loss: as given; the latter 0 in evaluation
          - perceptual_loss: 0, there is no network that could judge it
          and what is trained,
          - d_loss: of the discriminator
          - g_loss: of the autoencoder
        """
        self._check(predictions, input_batch)

        def number(name: str) -> Float[Array, ""]:
            return jnp.asarray(predictions.get(name, 0.0), jnp.float32)

        real, fake = (predictions[name].astype(jnp.float32) for name in PREDICTIONS[1:])
        error = predictions.reconstruction.astype(jnp.float32) - input_batch.video
        losses = py_utils.NestedMap(
            grad_penalty=number("grad_penalty"),
            lecam_loss=self.lecam_loss(real, fake),
            d_adversarial_loss=jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)),
            g_adversarial_loss=jnp.mean(jax.nn.softplus(-fake)),
            reconstruction_loss=jnp.mean(jnp.square(error)),
            perceptual_loss=jnp.zeros([], jnp.float32),
            quantizer_loss=jnp.zeros([], jnp.float32) if self.do_eval else number("quantizer_loss"),
        )
        losses.d_loss = (
            losses.d_adversarial_loss + losses.grad_penalty + self.lecam_weight * losses.lecam_loss
        )
        losses.g_loss = (
            self.reconstruction_loss_weight * losses.reconstruction_loss
            + self.g_adversarial_loss_weight * losses.g_adversarial_loss
            + losses.perceptual_loss
            + losses.quantizer_loss
        )
        return losses
