"""Feed-forward layers on synthetic tokens: the least that a mesh can be tried with."""

from typing import ClassVar

from paxml.task.single_task import SingleTask
from paxml.tasks.lm.optimizer import set_default_adam
from paxml.tasks.lm.spmd import BATCH_AXES
from paxml.tasks.lm.synthetic import SyntheticDataset
from praxis import pax_fiddle, py_utils
from praxis.layers import linears, models


class MlpOnMesh(SyntheticDataset):
    """Layers on several devices, each of which holds all weights and has a part of the batch.

    The model is the one of the library's own tests: its loss has no gradient.
    """

    NUM_LAYERS: ClassVar[int] = 8
    MODEL_DIMS: ClassVar[int] = 4096
    HIDDEN_DIMS: ClassVar[int] = 7168
    VOCAB_SIZE: ClassVar[int] = 32000
    ICI_MESH_SHAPE: ClassVar[tuple[int, ...]] = (8, 1, 1)
    MAX_STEPS: ClassVar[int] = 10

    def task(self) -> pax_fiddle.Config[SingleTask]:
        task = pax_fiddle.Config(SingleTask, name="classification_task")
        mlp = pax_fiddle.Config(
            linears.MLPBlock, num_layers=self.NUM_LAYERS, hidden_dims=self.HIDDEN_DIMS
        )
        mlp.ff_tpl.set(input_dims=self.MODEL_DIMS, output_dims=self.MODEL_DIMS)
        task.model = pax_fiddle.Config(
            models.ClassificationMLPModel,
            name="mlp",
            mlp_tpl=mlp,
            ici_mesh_shape=list(self.ICI_MESH_SHAPE),
            mesh_axis_names=[*BATCH_AXES, "mdl"],
        )
        task.model.softmax_tpl.set(input_dims=self.MODEL_DIMS, num_classes=self.VOCAB_SIZE)
        task.train.set(
            num_train_steps=self.MAX_STEPS,
            save_interval_steps=5,
            summary_interval_steps=5,
            inputs_split_mapping=py_utils.NestedMap(
                map_1d=(BATCH_AXES,), map_2d=(BATCH_AXES, None)
            ),
        )
        set_default_adam(task, learning_rate=1e-3, weight_decay=1e-3)
        return task
