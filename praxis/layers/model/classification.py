"""Models that classify, images or tokens."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from praxis import base_layer, base_model, metric_utils, pax_fiddle, py_utils
from praxis.layers import linears
from praxis.layers.embedding.shared import SharedEmbeddingSoftmax
from praxis.layers.embedding.softmax import FullSoftmax
from praxis.layers.model.batch_fields import check_fields
from praxis.layers.model.resnets import ResNet

NestedMap = py_utils.NestedMap
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
template_field = base_layer.template_field

# With more classes than this, a label among that many likeliest ones is reported too.
MANY = 5


class Accuracy(struct.PyTreeNode):
    """Share of correct predictions over batches.

    Attributes:
      correct: Weighted number of correct predictions.
      total: Weighted number of predictions.
    """

    correct: Any
    total: Any

    def merge(self, other: "Accuracy") -> "Accuracy":
        """The accuracy over both."""
        return Accuracy(self.correct + other.correct, self.total + other.total)

    def compute(self) -> Any:
        """The share; 0 without predictions."""
        return self.correct / jnp.maximum(self.total, 1e-9)


class ClassificationModel(base_model.BaseModel):
    """Classifies what a network makes of an input.

    A batch has the input, [B, ...], and probabilities of labels [B, C], in fields that are named
    here; and may have `weight` [B], of the examples.

    Attributes:
      network_tpl: Config of the network, which maps the input to features [B, D].
      softmax_tpl: Config of the output layer.
      input_field: Name of the field of inputs.
      label_field: Name of the field of labels.

    Variables:
      network: as in `network_tpl`
      softmax: as in `softmax_tpl`

    Raises:
      ValueError: during setup, without a network; in calls, if the batch lacks a field, or its
        weights do not fit.
    """

    network_tpl: LayerTpl | None = template_field(ResNet)
    softmax_tpl: LayerTpl = template_field(FullSoftmax)
    input_field: str = "image"
    label_field: str = "label_probs"

    def setup(self) -> None:
        if self.network_tpl is None:
            raise ValueError(
                f"{self.path_text}: network_tpl is None. Set it to the config of a layer that maps "
                f"the field {self.input_field!r} of a batch to features [B, D]."
            )
        self.create_child("network", self.network_tpl)
        self.create_child("softmax", self.softmax_tpl)

    def compute_predictions(self, input_batch: NestedMap) -> NestedMap:
        """Classifies a batch.

        Args:
          input_batch: As the class says.

        Returns:
          `features` [B, D], `softmax_output`, see the softmax, and `example_weights` [B].
        """
        check_fields(self, input_batch, (self.input_field, self.label_field))
        features = self.network(input_batch[self.input_field])
        weights = self._example_weights(input_batch, features.shape[0])
        softmax_output = self.softmax(
            features,
            weights[:, jnp.newaxis],
            class_probabilities=input_batch[self.label_field],
        )
        return NestedMap(features=features, softmax_output=softmax_output, example_weights=weights)

    def _example_weights(self, input_batch: NestedMap, batch_size: int) -> Float[Array, " B"]:
        if "weight" not in input_batch:
            return jnp.ones([batch_size], jnp.float32)
        weights = input_batch.weight
        if weights.shape != (batch_size,):
            raise ValueError(
                f"{self.path_text}: weight of the batch has shape {weights.shape}, expected [B] = "
                f"{(batch_size,)}, one for each example."
            )
        return weights

    def compute_loss(
        self, predictions: NestedMap, input_batch: NestedMap
    ) -> tuple[NestedMap, NestedMap]:
        """Collects the loss and the metrics of predictions.

        Args:
          predictions: From `compute_predictions`.
          input_batch: As the class says.

        Returns:
          Weighted scalars, each (value, weight): `avg_xent`, nats an example; `num_predictions`,
          weighted; `accuracy` and `error`; with more than 5 classes `acc5` and `error5`, of labels
          among the 5 likeliest classes. And, for each example, `labels` and `scores` (logits), both
          [B, C].
        """
        outputs, labels = predictions.softmax_output, input_batch[self.label_field]
        total = outputs.total_weight
        metrics = NestedMap(
            avg_xent=(outputs.avg_xent, total),
            num_predictions=(total, jnp.ones([], jnp.float32)),
        )
        accuracies = {1: ("accuracy", "error")}
        if labels.shape[-1] > MANY:
            accuracies[MANY] = (f"acc{MANY}", f"error{MANY}")
        for top_k, (accuracy_name, error_name) in accuracies.items():
            accuracy = metric_utils.top_k_accuracy(
                top_k, outputs.logits, label_probs=labels, weights=predictions.example_weights
            )
            metrics[accuracy_name] = (accuracy, total)
            metrics[error_name] = (1.0 - accuracy, total)
            self.add_summary(f"acc{top_k}", accuracy)
        return metrics, NestedMap(labels=labels, scores=outputs.logits)

    def predict(self, input_batch: NestedMap) -> NestedMap:
        """Classifies a batch without labels.

        Args:
          input_batch: The field of inputs.

        Returns:
          `logits` and `logp`, log-probabilities in nats, both [B, C].
        """
        check_fields(self, input_batch, (self.input_field,))
        logits = self.softmax.get_logits(self.network(input_batch[self.input_field]))
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
        return NestedMap(logits=logits, logp=log_probs.astype(logits.dtype))

    def decode(self, input_batch: NestedMap) -> tuple[NestedMap, NestedMap, NestedMap]:
        """Evaluates a batch.

        Returns:
          The weighted scalars of `compute_loss`, an empty map, and the metric `accuracy`.
        """
        predictions = self.compute_predictions(input_batch)
        losses, _ = self.compute_loss(predictions, input_batch)
        likeliest = jnp.argmax(predictions.softmax_output.logits, axis=-1)
        labels = jnp.argmax(input_batch[self.label_field], axis=-1)
        weights = predictions.example_weights.astype(jnp.float32)
        correct = jnp.where(likeliest == labels, weights, 0.0)
        accuracy = Accuracy(jnp.sum(correct), jnp.sum(weights))
        return losses, NestedMap(), NestedMap(accuracy=accuracy)

    def process_decode_out(
        self, input_obj: Any, decode_out: NestedMap
    ) -> tuple[NestedMap, list[tuple[str, Any]], NestedMap]:
        """There is nothing to write down: returns empty maps and an empty list."""
        del input_obj, decode_out
        return NestedMap(), [], NestedMap()


class ClassificationMLPModel(base_model.BaseModel):
    """Classifies tokens one by one: a small model for tests.

    A batch has `ids`, `labels` and `weights`, all [B, T].

    Attributes:
      mlp_tpl: Config of what is between embedding and softmax.
      softmax_tpl: Config of the output layer, which embeds tokens too.

    Variables:
      mlp_layers_0: as in `mlp_tpl`
      softmax: as in `softmax_tpl`

    Raises:
      ValueError: in calls, if the batch lacks a field.
    """

    mlp_tpl: LayerTpl = template_field(linears.MLPBlock)
    softmax_tpl: LayerTpl = template_field(SharedEmbeddingSoftmax)

    def setup(self) -> None:
        self.create_children("mlp_layers", [self.mlp_tpl])
        self.create_child("softmax", self.softmax_tpl)

    def compute_predictions(self, input_batch: NestedMap) -> NestedMap:
        """Predicts the labels of a batch; returns what the softmax returns."""
        check_fields(self, input_batch, ("ids", "labels", "weights"))
        x = self.softmax.emb_lookup(input_batch.ids)
        for layer in self.mlp_layers:
            x = layer(x)
        return self.softmax(
            x,
            input_batch.weights[..., jnp.newaxis],
            class_ids=input_batch.labels[..., jnp.newaxis],
        )

    def compute_loss(
        self, predictions: NestedMap, input_batch: NestedMap
    ) -> tuple[NestedMap, NestedMap]:
        """Returns `total_loss`, which is the accuracy here, with itself as weight; and nothing."""
        weights = input_batch.weights
        correct = jnp.where(predictions.per_example_argmax == input_batch.labels, weights, 0.0)
        accuracy = jnp.sum(correct) / jnp.maximum(predictions.total_weight, 1)
        return NestedMap(total_loss=(accuracy, accuracy)), NestedMap()
