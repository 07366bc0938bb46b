"""The base class of tasks."""

from praxis import base_hyperparams


class BaseTask(base_hyperparams.FiddleBaseParameterizable):
    """A problem to train or evaluate.

    Raises:
      ValueError: at construction, without a name.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            raise ValueError(
                f"{type(self).__name__} has no name. Set it in the config, e.g. "
                "task_config.name = 'my_task'."
            )
