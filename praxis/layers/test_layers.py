"""Small layers and models for tests: of training loops, checkpoints and sharding.

The models read batches of `inputs` [..., D] and `targets`, of the shape of their predictions.
"""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from praxis import base_layer, base_model, pax_fiddle, py_utils
from praxis.base_hyperparams import sub_config_field
from praxis.layers import linears
from praxis.layers.checks import check_last_axis, check_sizes
from praxis.layers.normalization.batch import BatchNorm
from praxis.layers.transformer.feed_forward import TransformerFeedForward
from praxis.pax_fiddle import template_field

NestedMap = py_utils.NestedMap
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams

__all__ = [
    "AddOneLayer",
    "ProjectionLayer",
    "TestBatchNormalizationModel",
    "TestLayer",
    "TestLinearRegressionModel",
    "TestModel01",
    "TestSpmdModel",
    "VarUnusedLayer",
    "sub_config_field",
    "template_field",
]


class AddOneLayer(base_layer.BaseLayer):
    """Adds 1; has no variables."""

    def __call__(self, inputs: Num[Array, "*B"]) -> Num[Array, "*B"]:
        """Returns `inputs + 1`, in their dtype."""
        return inputs + 1


class ProjectionLayer(base_layer.BaseLayer):
    """Computes `inputs @ w + b`, with children for both steps.

    Attributes:
      input_dims: D, at least 1. Required.
      output_dims: F, at least 1. Required.

    Variables:
      linear/w: [D, F]
      bias/b: [F]

    Raises:
      ValueError: during setup, if a size is missing or below 1; in `__call__`, if the last axis of
        the inputs is not D.
    """

    input_dims: int = 0
    output_dims: int = 0

    def setup(self) -> None:
        check_sizes(self, "input_dims", "output_dims")
        self.create_child(
            "linear",
            pax_fiddle.Config(
                linears.Linear, input_dims=self.input_dims, output_dims=self.output_dims
            ),
        )
        self.create_child("bias", pax_fiddle.Config(linears.Bias, dims=self.output_dims))

    def __call__(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        """Projects `inputs`, [..., D]; returns [..., F]."""
        return self.bias(self.linear(inputs))


class TestLayer(base_layer.BaseLayer):
    """A tree of layers, two deep: 2 columns to 3, plus 1, to 5.

    Variables:
      projections_0, projections_1: as in `ProjectionLayer`, of 2 to 3 and of 3 to 5 columns
    """

    __test__: ClassVar[bool] = False

    def setup(self) -> None:
        sizes = [(2, 3), (3, 5)]
        self.create_children(
            "projections",
            [
                pax_fiddle.Config(ProjectionLayer, input_dims=inputs, output_dims=outputs)
                for inputs, outputs in sizes
            ],
        )
        self.create_child("add_one", pax_fiddle.Config(AddOneLayer))

    def __call__(self, inputs: Float[Array, "*B _"]) -> Float[Array, "*B F"]:
        """Applies the layers to `inputs`, [..., 2]; returns [..., 5]."""
        first, second = self.projections
        return second(self.add_one(first(inputs)))


class VarUnusedLayer(base_layer.BaseLayer):
    """Computes `inputs @ var01` and leaves another variable unread, whose gradient is 0.

    Attributes:
      input_dims: D, at least 1. Required.
      output_dims: F, at least 1. Required.

    Variables:
      var01: [D, F]
      var02: [D, F], not read

    Raises:
      ValueError: during setup, if a size is missing or below 1; in `__call__`, if the last axis of
        the inputs is not D.
    """

    input_dims: int = 0
    output_dims: int = 0

    def setup(self) -> None:
        check_sizes(self, "input_dims", "output_dims")
        for name in ("var01", "var02"):
            self.create_variable(name, WeightHParams(shape=[self.input_dims, self.output_dims]))

    def __call__(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        """Multiplies `inputs`, [..., D], by one variable; returns [..., F]."""
        check_last_axis(self, inputs, "input_dims")
        return linears.project_last_dim(inputs, self.theta.var01)


def _input(model: base_layer.BaseLayer, input_batch: NestedMap) -> Any:
    if "inputs" not in input_batch:
        raise ValueError(
            f"{model.path_text}: the batch has no field 'inputs', only {sorted(input_batch)}."
        )
    return input_batch.inputs


def _squared_error(
    model: base_layer.BaseLayer, predictions: Array, input_batch: NestedMap
) -> tuple[NestedMap, NestedMap]:
    """The mean squared error, weighted by the number of examples, and the error of each example."""
    shape = None if "targets" not in input_batch else input_batch.targets.shape
    if shape != predictions.shape:
        raise ValueError(
            f"{model.path_text}: targets of the batch have shape {shape}, expected that of the "
            f"predictions, {predictions.shape}."
        )
    errors = jnp.square(predictions - input_batch.targets).astype(jnp.float32)
    loss = jnp.mean(errors)
    per_example = jnp.mean(errors.reshape(errors.shape[0], -1), axis=-1)
    return NestedMap(loss=(loss, jnp.float32(errors.shape[0]))), NestedMap(error=per_example)


class TestModel01(base_model.BaseModel):
    """Linear regression that counts its batches: trained and other variables, and a summary.

    Attributes:
      input_dims: D, at least 1. Required.
      output_dims: F, at least 1. Required.

    Variables:
      projection: as in `ProjectionLayer`
      batches: [], float32, not trainable, the number of batches it was trained on

    Raises:
      ValueError: during setup, if a size is missing or below 1; in calls, if a field of the batch
        is missing or has another shape.
    """

    __test__: ClassVar[bool] = False

    input_dims: int = 0
    output_dims: int = 0

    def setup(self) -> None:
        check_sizes(self, "input_dims", "output_dims")
        projection = pax_fiddle.Config(
            ProjectionLayer, input_dims=self.input_dims, output_dims=self.output_dims
        )
        self.create_child("projection", projection)
        count = WeightHParams(shape=[], init=WeightInit.Constant(0.0), dtype=jnp.float32)
        self.create_variable("batches", count, trainable=False)

    def compute_predictions(self, input_batch: NestedMap) -> Float[Array, "*B F"]:
        """Projects `inputs`, [..., D]; returns [..., F]."""
        if not self.do_eval:
            self.update_var("batches", self.get_var("batches") + 1)
        return self.projection(_input(self, input_batch))

    def compute_loss(
        self, predictions: Float[Array, "*B F"], input_batch: NestedMap
    ) -> tuple[NestedMap, NestedMap]:
        """Returns the mean squared error, and that of each example."""
        metrics, per_example = _squared_error(self, predictions, input_batch)
        self.add_summary("loss", metrics.loss[0])
        return metrics, per_example


class TestLinearRegressionModel(base_model.BaseModel):
    """Linear regression with a layer of choice.

    Attributes:
      linear_p: Config of the layer. D and F are filled in.
      input_dims: D, at least 1. Required.
      output_dims: F, at least 1. Required.

    Variables:
      linear: as in `linear_p`

    Raises:
      ValueError: during setup, if a size is missing or below 1; in calls, if a field of the batch
        is missing or has another shape.
    """

    __test__: ClassVar[bool] = False

    linear_p: LayerTpl = template_field(linears.Linear)
    input_dims: int = 0
    output_dims: int = 0

    def setup(self) -> None:
        check_sizes(self, "input_dims", "output_dims")
        linear = self.linear_p.clone().set(input_dims=self.input_dims, output_dims=self.output_dims)
        self.create_child("linear", linear)

    def compute_predictions(self, input_batch: NestedMap) -> Float[Array, "*B F"]:
        """Projects `inputs`, [..., D]; returns [..., F]."""
        return self.linear(_input(self, input_batch))

    def compute_loss(
        self, predictions: Float[Array, "*B F"], input_batch: NestedMap
    ) -> tuple[NestedMap, NestedMap]:
        """Returns the mean squared error, and that of each example."""
        return _squared_error(self, predictions, input_batch)


class TestBatchNormalizationModel(base_model.BaseModel):
    """A batch normalization, whose moving averages training changes without gradients.

    Attributes:
      input_dims: D, at least 1. Required.

    Variables:
      bn: as in `BatchNorm`

    Raises:
      ValueError: during setup, if the size is missing or below 1; in calls, if a field of the
        batch is missing or has another shape.
    """

    __test__: ClassVar[bool] = False

    input_dims: int = 0

    def setup(self) -> None:
        check_sizes(self, "input_dims")
        self.create_child("bn", pax_fiddle.Config(BatchNorm, dim=self.input_dims))

    def compute_predictions(self, input_batch: NestedMap) -> Float[Array, "*B D"]:
        """Normalizes `inputs`, [..., D]."""
        return self.bn(_input(self, input_batch))

    def compute_loss(
        self, predictions: Float[Array, "*B D"], input_batch: NestedMap
    ) -> tuple[NestedMap, NestedMap]:
        """Returns the mean squared error, and that of each example."""
        return _squared_error(self, predictions, input_batch)


class TestSpmdModel(base_model.BaseModel):
    """The feed-forward part of a transformer, whose sharding its config sets.

    Attributes:
      xformer_ffw: Config of the layer.

    Variables:
      ffw: as in `xformer_ffw`

    Raises:
      ValueError: in calls, if a field of the batch is missing or has another shape; and as in
        `xformer_ffw`.
    """

    __test__: ClassVar[bool] = False

    xformer_ffw: LayerTpl = template_field(TransformerFeedForward)

    def setup(self) -> None:
        self.create_child("ffw", self.xformer_ffw)

    def compute_predictions(self, input_batch: NestedMap) -> Float[Array, "*B D"]:
        """Applies the layer to `inputs`, [..., D]."""
        return self.ffw(_input(self, input_batch))

    def compute_loss(
        self, predictions: Float[Array, "*B D"], input_batch: NestedMap
    ) -> tuple[NestedMap, NestedMap]:
        """Returns the mean squared error, and that of each example."""
        return _squared_error(self, predictions, input_batch)
