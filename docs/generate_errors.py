"""Writes docs/errors.md: what Pax says when something is wrong, by provoking each error.

Run `make docs-errors`. A test compares the page with what this program writes.
"""

import dataclasses
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paxml import base_metrics, checkpoint_paths, learners, metric_utils, tasks_lib
from paxml.experiment import registry
from praxis import (
    base_hyperparams,
    base_input,
    base_layer,
    base_model,
    inspection,
    optimizers,
    pax_fiddle,
    py_utils,
)
from praxis.layers import attentions, linears, repeats, transformer_models, transformers

Config = pax_fiddle.Config
PAGE = pathlib.Path(__file__).with_name("errors.md")
KEY = jax.random.PRNGKey(0)

HEAD = """\
# Errors

What Pax says when something is wrong. Each message starts with the layer (class and path) or the
config it is about, then the field or argument, what was given, what was expected, and what to do.
This page is written by `make docs-errors`, which provokes every error on it; the wording is not
part of the public API.

An exception that leaves a layer has notes under its message: the innermost layer with the method
that was running, its arguments as dtype and shape, and the outermost layer. `error.__notes__` has
them as a list. They cost nothing until something fails. An exception that leaves a constructor
while a config is built says at its end where in the config that was (`Fiddle context`, left out
here).
"""


@dataclasses.dataclass(frozen=True)
class Situation:
    """One way to go wrong.

    Attributes:
      section: Heading it stands under.
      title: What is wrong.
      provoke: Makes the error.
    """

    section: str
    title: str
    provoke: Callable[[], Any]


SITUATIONS: list[Situation] = []


def situation(section: str, title: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Registers a function that makes an error."""

    def register(provoke: Callable[[], Any]) -> Callable[[], Any]:
        SITUATIONS.append(Situation(section, title, provoke))
        return provoke

    return register


def linear(**fields: Any) -> Any:
    """Config of a small layer."""
    return Config(linears.Linear, name="lin", **{"input_dims": 3, "output_dims": 5, **fields})


def language_model(**fields: Any) -> Any:
    """Config of a small language model."""
    stack = Config(
        transformers.StackedTransformer, num_layers=1, num_heads=2, model_dims=8, hidden_dims=16
    )
    return Config(
        transformer_models.TransformerLm,
        name="lm",
        vocab_size=11,
        model_dims=8,
        stacked_transformer_tpl=stack,
    ).set(**fields)


def initialise(config: Any, *args: Any, **kwargs: Any) -> Any:
    """Builds a layer and makes its variables."""
    return pax_fiddle.build(config).init(KEY, *args, **kwargs)


class Counter(base_layer.BaseLayer):
    """A layer with one variable of each kind, that does what `then` says."""

    then: Callable[[Any], Any] | None = None

    def setup(self) -> None:
        self.create_variable("weight", base_layer.WeightHParams([2]))
        self.create_variable("count", base_layer.WeightHParams([2]), trainable=False)

    def __call__(self, inputs: Any = None) -> Any:
        return self.then(self) if self.then is not None else inputs


def counter(then: Callable[[Any], Any] | None = None) -> Any:
    """Runs a `Counter`."""
    return initialise(Config(Counter, name="counter", then=then))


class Declares(base_layer.BaseLayer):
    """A layer whose `setup` is given."""

    declare: Callable[[Any], Any] | None = None

    def setup(self) -> None:
        assert self.declare is not None
        self.declare(self)

    def __call__(self) -> None:
        pass


def declares(declare: Callable[[Any], Any], **fields: Any) -> Any:
    """Runs a layer with that `setup`."""
    return initialise(Config(Declares, name="layer", declare=declare, **fields))


CONFIGS = "Configs"


@situation(CONFIGS, "A field that does not exist")
def _() -> None:
    linear().inptu_dims = 8


@situation(CONFIGS, "The same when a config is made")
def _() -> None:
    Config(linears.Linear, output_dim=8)


@situation(CONFIGS, "The same in `set`")
def _() -> None:
    language_model().set(vocabsize=8)


@situation(CONFIGS, "Reading a field that does not exist")
def _() -> None:
    _ = linear().weights


@situation(CONFIGS, "Calling a method of the class on its config")
def _() -> None:
    linear().init(KEY, jnp.ones([2, 3]))


@situation(CONFIGS, "A layer made from its config by calling the class")
def _() -> None:
    linears.Linear(linear())


@situation(CONFIGS, "Positional arguments for a layer")
def _() -> None:
    Config(linears.Linear, jnp.bfloat16)


@situation(CONFIGS, "A config of a config")
def _() -> None:
    Config(linear())


@situation(CONFIGS, "A config of something that is neither class nor function")
def _() -> None:
    Config(3)


@situation(CONFIGS, "A config that contains itself")
def _() -> None:
    config = Config(attentions.DotProductAttention)
    config.proj_tpl = None
    config.params_init = [config]
    pax_fiddle.build(config)


@situation(CONFIGS, "Another class that lacks some fields")
def _() -> None:
    linear().cls = linears.Bias


@situation(CONFIGS, "Copying fields from another kind of object")
def _() -> None:
    linear().copy_fields_from({"input_dims": 3})


@situation(CONFIGS, "Copying a field that the target lacks")
def _() -> None:
    Config(linears.Bias).copy_fields_from(linear())


@situation(CONFIGS, "A mesh shape without names of its axes")
def _() -> None:
    _ = linear(ici_mesh_shape=[2, 4], dcn_mesh_shape=[2]).mesh_shape


@situation(CONFIGS, "Old nested `HParams`")
def _() -> None:
    type("Old", (base_layer.BaseLayer,), {"HParams": type("HParams", (), {})})


@situation(CONFIGS, "A function without a name in a module, written as JSON")
def _() -> None:
    inspection.config_to_json(linear(params_init=lambda: 3))


@situation(CONFIGS, "Another text read as JSON of a config")
def _() -> None:
    inspection.config_from_json('{"a": 1}')


@situation(CONFIGS, "Positional arguments for an input, learner or dataset")
def _() -> None:
    base_hyperparams.FiddleBaseParameterizable("train")  # pyright: ignore[reportCallIssue]


SIZES = "Sizes and shapes of layers"


@situation(SIZES, "A size that was not set")
def _() -> None:
    initialise(linear(input_dims=0), jnp.ones([2, 3]))


@situation(SIZES, "Inputs of another width")
def _() -> None:
    initialise(linear(), jnp.ones([2, 4]))


@situation(SIZES, "Arrays that do not fit each other, deep in a model")
def _() -> None:
    config = language_model()
    block = config.stacked_transformer_tpl.transformer_layer_params_tpl
    block.tr_fflayer_tpl.fflayer_tpl.linear_tpl.cls = Mistaken
    initialise(config, jnp.zeros([2, 7], jnp.int32), jnp.zeros([2, 7]))


class Mistaken(linears.Linear):
    """Adds something of a shape of its own."""

    def __call__(self, inputs: Any) -> Any:
        return super().__call__(inputs) + jnp.ones([3, 5])


@situation(SIZES, "Heads that do not divide the width")
def _() -> None:
    config = Config(
        attentions.DotProductAttention, name="atten", input_dim=8, hidden_dim=8, num_heads=3
    )
    x = jnp.ones([2, 5, 8])
    initialise(config, x, x, x, jnp.zeros([1, 1, 5, 5]))


@situation(SIZES, "A mask of integers")
def _() -> None:
    py_utils.apply_mask_to_logits(jnp.ones([2, 3]), jnp.ones([2, 3], jnp.int32))


@situation(SIZES, "A size that is no number")
def _() -> None:
    initialise(linear(output_dims="5"), jnp.ones([2, 3]))


@situation(SIZES, "A stack of no layers")
def _() -> None:
    config = language_model()
    config.stacked_transformer_tpl.num_layers = 0
    initialise(config, jnp.zeros([2, 7], jnp.int32), jnp.zeros([2, 7]))


@situation(SIZES, "A repeated layer without a template")
def _() -> None:
    initialise(Config(repeats.Repeat, name="stack", x_times=3), jnp.ones([2]))


VARIABLES = "Variables, children, random streams"


@situation(VARIABLES, "A variable that does not exist")
def _() -> None:
    counter(lambda layer: layer.theta.weigth)


@situation(VARIABLES, "A non-trainable variable that does not exist")
def _() -> None:
    counter(lambda layer: layer.get_var("counts"))


@situation(VARIABLES, "A new value of another shape")
def _() -> None:
    counter(lambda layer: layer.update_var("count", jnp.ones([3])))


@situation(VARIABLES, "A name that is taken")
def _() -> None:
    declares(lambda layer: layer.create_variable("dtype", base_layer.WeightHParams([2])))


@situation(VARIABLES, "Two variables of one name")
def _() -> None:
    declares(
        lambda layer: [layer.create_variable("w", base_layer.WeightHParams([2])) for _ in range(2)]
    )


@situation(VARIABLES, "A shape with an axis of length 0")
def _() -> None:
    declares(lambda layer: layer.create_variable("w", base_layer.WeightHParams([2, 0])))


@situation(VARIABLES, "A declaration that is none")
def _() -> None:
    declares(lambda layer: layer.create_variable("w", [2, 3]))


@situation(VARIABLES, "An initializer that does not exist")
def _() -> None:
    init = base_layer.WeightInit("xaviar", 1.0)
    declares(lambda layer: layer.create_variable("w", base_layer.WeightHParams([2], init=init)))


@situation(VARIABLES, "A child whose config is a layer")
def _() -> None:
    declares(lambda layer: layer.create_child("lin", pax_fiddle.build(linear())))


@situation(VARIABLES, "A child whose config is a class")
def _() -> None:
    declares(lambda layer: layer.create_child("lin", linears.Linear))


@situation(VARIABLES, "Two children of one name")
def _() -> None:
    declares(lambda layer: [layer.create_child("lin", linear()) for _ in range(2)])


@situation(VARIABLES, "One template where a list is expected")
def _() -> None:
    declares(lambda layer: layer.create_children("lin", linear()))


@situation(VARIABLES, "Two configs under one `shared_weight_layer_id`")
def _() -> None:
    def declare(layer: Any) -> None:
        for index in range(2):
            config = linear(shared_weight_layer_id="table", output_dims=5 + index)
            layer.create_child(f"lin_{index}", config)

    with base_layer.JaxContext.new_context():
        declares(declare)


@situation(VARIABLES, "Variables of another config")
def _() -> None:
    variables = {"params": {"w": jnp.ones([3, 4])}}
    pax_fiddle.build(linear()).apply(variables, jnp.ones([2, 3]))


@situation(VARIABLES, "Variables that were not given")
def _() -> None:
    pax_fiddle.build(linear()).apply({"params": {"weight": jnp.ones([3, 5])}}, jnp.ones([2, 3]))


@situation(VARIABLES, "No key for random numbers")
def _() -> None:
    layer = pax_fiddle.build(Config(Counter, name="net", then=lambda net: net.next_prng_key()))
    variables = {"params": {"weight": jnp.ones([2])}, "non_trainable": {"count": jnp.ones([2])}}
    layer.apply(variables)


@situation(VARIABLES, "A child, or a variable, outside of `init` and `apply`")
def _() -> None:
    _ = pax_fiddle.build(linear()).einsum


@situation(VARIABLES, "Variables of a layer outside of `init` and `apply`")
def _() -> None:
    _ = pax_fiddle.build(linear()).theta.w


@situation(VARIABLES, "A child that does not exist")
def _() -> None:
    counter(lambda layer: layer.wieght)


@situation(VARIABLES, "Decoding without a cache")
def _() -> None:
    counter(lambda layer: layer.get_decode_state("key"))


@situation(VARIABLES, "No context")
def _() -> None:
    base_layer.cur_jax_context()


@situation(VARIABLES, "A summary of a wrong rank")
def _() -> None:
    def report(layer: Any) -> None:
        layer.add_summary("picture", jnp.ones([2]), base_layer.SummaryType.IMAGE)

    layer = pax_fiddle.build(Config(Counter, name="net", then=report))
    variables = {"params": {"weight": jnp.ones([2])}, "non_trainable": {"count": jnp.ones([2])}}
    layer.apply(variables, mutable=["summaries"])


SHARDING = "Meshes and sharding"


@situation(SHARDING, "A sharding with too few entries")
def _() -> None:
    weight = base_layer.WeightHParams([2, 3], tensor_split_dims_mapping=["data"])
    declares(lambda layer: layer.create_variable("w", weight))


@situation(SHARDING, "A mesh axis that does not exist")
def _() -> None:
    base_layer.to_partition_spec(["data", "model"], ["data", "mdl"])


@situation(SHARDING, "The same, asked of a layer")
def _() -> None:
    layer = pax_fiddle.build(linear(ici_mesh_shape=[2, 4], mesh_axis_names=["data", "mdl"]))
    layer.get_shard_count_on_dim("model")


@situation(SHARDING, "An index of a mesh axis that does not exist")
def _() -> None:
    base_layer.to_partition_spec([0, 2], ["data", "mdl"])


@situation(SHARDING, "An array of another rank than its sharding")
def _() -> None:
    base_layer.maybe_shard(jnp.ones([4, 6]), ["data"], ["data", "mdl"])


@situation(SHARDING, "Mesh shape and axis names of different lengths")
def _() -> None:
    base_layer.var_partition_specs({}, [2], ["data", "mdl"])


@situation(SHARDING, "A mesh for more devices than there are")
def _() -> None:
    py_utils.create_device_mesh([64, 1024])


DATA = "Inputs and batches"


@situation(DATA, "No batch size")
def _() -> None:
    pax_fiddle.build(Config(base_input.BaseInput, name="train"))


@situation(DATA, "A name with a space")
def _() -> None:
    pax_fiddle.build(Config(base_input.BaseInput, name="my data", batch_size=2))


@situation(DATA, "An input without data")
def _() -> None:
    pax_fiddle.build(Config(base_input.BaseInput, name="train", batch_size=2)).get_next()


@situation(DATA, "A field of an input that does not exist")
def _() -> None:
    Config(base_input.NumpyInput, batchsize=4)


@situation(DATA, "Arrays of different lengths")
def _() -> None:
    data = {"ids": np.zeros([5, 3]), "labels": np.zeros([4])}
    pax_fiddle.build(
        Config(base_input.NumpyInput, name="train", batch_size=2, data=data)
    ).get_next()


@situation(DATA, "A key that no batch has")
def _() -> None:
    _ = py_utils.NestedMap(ids=1, paddings=2).idz


@situation(DATA, "A key that a NestedMap cannot have")
def _() -> None:
    py_utils.NestedMap(items=1)


@situation(DATA, "Paddings of another length than the inputs")
def _() -> None:
    py_utils.apply_padding(jnp.ones([2, 5, 3]), jnp.zeros([2, 4]))


@situation(DATA, "A batch that does not divide over the devices")
def _() -> None:
    py_utils.reshape_with_outer_batch_size(np.ones([5, 3]), 2)


@situation(DATA, "Trees of different structure")
def _() -> None:
    tree = py_utils.NestedMap(a=jnp.ones([2]))
    py_utils.assert_same_shape_and_dtype(tree, py_utils.NestedMap(a=jnp.ones([3])))


@situation(DATA, "A model without a loss")
def _() -> None:
    initialise(Config(base_model.BaseModel, name="model"), py_utils.NestedMap())


TRAINING = "Optimizers and training"


def register(*paths: str) -> Any:
    """Registers experiments of these modules and names, apart from those of the process."""
    experiments = registry.Registry()
    for path in paths:
        module, _, name = path.rpartition(".")
        experiments.add(type(name, (), {"__module__": module}), tags=(), allow_overwrite=False)
    return experiments


@situation(TRAINING, "An optimizer without a schedule")
def _() -> None:
    pax_fiddle.build(Config(optimizers.Sgd))


@situation(TRAINING, "A learner without an optimizer")
def _() -> None:
    learner = pax_fiddle.build(Config(learners.Learner, name="learner", loss_name="loss"))
    learner.get_grad_tx({})


@situation(TRAINING, "A task whose learner has no loss")
def _() -> None:
    model = Config(Counter, name="model")
    pax_fiddle.build(Config(tasks_lib.SingleTask, name="task", model=model))


@situation(TRAINING, "A loss that the model does not give")
def _() -> None:
    base_metrics.LossAggregator(loss_key="total").aggregate({"loss": (jnp.ones([]), 1.0)})


@situation(TRAINING, "Two experiments of one name")
def _() -> None:
    register("models.Small", "models.Small")


@situation(TRAINING, "A short name that several experiments have")
def _() -> None:
    register("vision.Large", "speech.Large").find("Large")


@situation(TRAINING, "A directory that is no checkpoint")
def _() -> None:
    checkpoint_paths.get_step_from_checkpoint_asset("run/final_weights")


@situation(TRAINING, "Checkpoints where there are none")
def _() -> None:
    checkpoint_paths.latest_checkpoint(".")


@situation(TRAINING, "Names of metrics that differ between batches")
def _() -> None:
    metric_utils.merge_clu_metrics({"loss": Metric()}, {"loss": Metric(), "accuracy": Metric()})


class Metric:
    """A metric of which only the methods count."""

    def merge(self, other: Any) -> Any:
        return other

    def compute(self) -> float:
        return 0.0


def page() -> str:
    """Returns the whole page."""
    parts, section = [HEAD], ""
    for entry in SITUATIONS:
        if entry.section != section:
            section = entry.section
            parts.append(f"\n## {section}\n")
        parts.append(f"\n### {entry.title}\n\n```text\n{message(entry.provoke)}\n```\n")
    return "".join(parts)


def message(provoke: Callable[[], Any]) -> str:
    """Returns class, message and notes of the error that a function makes.

    Raises:
      RuntimeError: if it makes none.
    """
    try:
        provoke()
    except Exception as error:
        return "\n".join(_lines(error))
    raise RuntimeError("Nothing went wrong.")


def _lines(error: Exception) -> Iterator[str]:
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    # What Fiddle adds is long: the arguments of the constructor.
    text = text.partition("\n\nFiddle context")[0]
    notes = [note for note in getattr(error, "__notes__", []) if "JAX has removed" not in note]
    for paragraph in [f"{type(error).__name__}: {text}", *notes]:
        for line in paragraph.splitlines():
            yield from textwrap.wrap(
                _steady(line), 98, break_long_words=False, break_on_hyphens=False
            ) or [""]


def _steady(text: str) -> str:
    """Refuses text that differs between runs."""
    if re.search(r"0x[0-9a-f]{6,}|/site-packages/|object at", text):
        raise RuntimeError(f"A message has an address or a path in it: {text}")
    return text


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        print(page(), end="")
    else:
        PAGE.write_text(page())
