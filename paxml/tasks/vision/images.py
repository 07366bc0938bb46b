"""Experiments that classify images, on random ones: the data sets are not shipped."""

import abc
from typing import Any, ClassVar

import jax
import numpy as np

from paxml.experiment.base import BaseExperiment
from paxml.task.single_task import SingleTask
from praxis import base_input, base_layer, pax_fiddle, py_utils
from praxis.layers import embedding_softmax, models

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


class RandomImages(base_input.BaseInput):
    """Batch n has noise of seed n as images, and labels that say nothing about it.

    Attributes:
      image_shape: Height, width and channels.
      num_classes: Number of labels.
    """

    image_shape: tuple[int, ...] = ()
    num_classes: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._taken = 0

    def get_next(self) -> py_utils.NestedMap:
        rng = np.random.default_rng((self.input_random_seed or 0, self._taken))
        self._taken += 1
        labels = rng.integers(self.num_classes, size=self._batch_rows)
        shape = (self._batch_rows, *self.image_shape)
        return py_utils.NestedMap(
            image=rng.standard_normal(shape, np.float32),
            label_probs=np.eye(self.num_classes, dtype=np.float32)[labels],
        )

    def reset(self) -> None:
        super().reset()
        self._taken = 0

    def _get_state_internal(self) -> bytes:
        return str(self._taken).encode()

    def _set_state_internal(self, state: bytes) -> None:
        self._taken = int(state)


class ImageSpecs(base_input.BaseInputSpecsProvider):
    """Shapes of a batch of images, without making any.

    Attributes:
      input_p: Config of the input.
    """

    input_p: pax_fiddle.Config | None = None

    def get_input_specs(self) -> py_utils.NestedMap:
        assert self.input_p is not None
        batch_size = self.input_p.batch_size
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype),
            self.input_p.clone().set(batch_size=1).Instantiate().get_next(),
        )


class ImageClassification(BaseExperiment):
    """Settings of an image classifier; override `datasets` for real images.

    Attributes:
      BATCH_SIZE: Rows of a global batch.
      IMAGE_SHAPE: Height, width and channels.
      NUM_CLASSES: Number of labels.
      MAX_STEPS: Updates in all.
    """

    BATCH_SIZE: ClassVar[int]
    IMAGE_SHAPE: ClassVar[tuple[int, int, int]]
    NUM_CLASSES: ClassVar[int]
    MAX_STEPS: ClassVar[int]
    ICI_MESH_SHAPE: ClassVar[tuple[int, int, int]]

    @abc.abstractmethod
    def network(self) -> tuple[LayerTpl, int]:
        """Config of what makes features of an image, and their number."""

    @abc.abstractmethod
    def optimizer(self) -> pax_fiddle.Config[Any]:
        """Config of the optimizer."""

    def datasets(self) -> list[pax_fiddle.Config[base_input.BaseInput]]:
        batch_size = max(1, self.BATCH_SIZE // jax.process_count())
        return [
            pax_fiddle.Config(
                RandomImages,
                name=name,
                is_training=is_training,
                batch_size=batch_size,
                image_shape=self.IMAGE_SHAPE,
                num_classes=self.NUM_CLASSES,
                input_random_seed=seed,
            )
            for seed, (name, is_training) in enumerate((("train", True), ("test", False)))
        ]

    def get_input_specs_provider_params(
        self,
    ) -> pax_fiddle.Config[base_input.BaseInputSpecsProvider]:
        return pax_fiddle.Config(ImageSpecs, input_p=self._only_training_input())

    def task(self) -> pax_fiddle.Config[SingleTask]:
        network, num_features = self.network()
        task = pax_fiddle.Config(SingleTask, name="classifier_task")
        task.model = pax_fiddle.Config(
            models.ClassificationModel,
            name="classifier",
            network_tpl=network,
            softmax_tpl=pax_fiddle.Config(
                embedding_softmax.FullSoftmax,
                input_dims=num_features,
                num_classes=self.NUM_CLASSES,
            ),
            ici_mesh_shape=list(self.ICI_MESH_SHAPE),
            mesh_axis_names=["replica", "data", "mdl"],
        )
        task.train.num_train_steps = self.MAX_STEPS
        task.train.learner.set(loss_name="avg_xent", optimizer=self.optimizer())
        return task
