"""Starting from checkpoints of other runs (behaviours 78-84)."""

import functools
import logging
import re
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_experiment

from paxml import checkpoints, tasks_lib, train, train_states, trainer_lib
from paxml.task.rules import source_name
from praxis import base_layer, optimizers, pax_fiddle, py_utils, schedules

Rules = tasks_lib.CheckpointLoadingRules
KEY = jax.random.PRNGKey(7)
SPECS = py_utils.NestedMap(
    x=jax.ShapeDtypeStruct((2, 3), jnp.float32), y=jax.ShapeDtypeStruct((2,), jnp.float32)
)
STEPS = 3


class Source(toy_experiment.Toy):
    """Three steps, with a moving average; b is not trained."""

    EMA = 0.9
    RULES: ClassVar[dict] = {}
    STEPS = STEPS
    EVAL = 0

    def task(self):
        task = super().task()
        task.train.learner.optimizer.ema_decay = self.EMA
        task.train.learner.bprop_variable_exclusion = ["params/b"]
        task.train.init_from_checkpoint_rules = self.RULES
        return task


class Renamed(toy_experiment.Regression):
    """The same model with other names, and one more variable."""

    def setup(self):
        super().setup()
        self.create_variable("extra", base_layer.WeightHParams([2]))
        self.create_variable(
            "kernel", base_layer.WeightHParams([toy_experiment.FEATURES], dtype=jnp.bfloat16)
        )


def source_state(directory):
    task = pax_fiddle.instantiate(Source().task())
    shapes, _ = trainer_lib.initialize_model_state(task, KEY, SPECS)
    return checkpoints.restore_checkpoint(
        shapes, directory, checkpoint_type=checkpoints.CheckpointType.GDA
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Directories of the checkpoints of two runs, and their last states."""
    found = []
    for seed in (1, 2):
        log_dir = tmp_path_factory.mktemp(f"source{seed}")
        source = type("Seeded", (Source,), {"SEED": seed})()
        train.train_and_evaluate(source, log_dir, False, False)
        directory = str(log_dir / "checkpoints")
        found.append((directory, source_state(directory)))
    return found


@functools.cache
def fresh(model, ema, optimizer):
    """A task without rules, its random state, and the descriptions of its variables."""
    config = type("Target", (Source,), {"MODEL": model, "EMA": ema})().task()
    if optimizer is not None:
        config.train.learner.optimizer = optimizer()
    task = pax_fiddle.instantiate(config)
    state, _ = trainer_lib.initialize_model_state(task, KEY, SPECS)
    return config, state, task.model.abstract_init_with_metadata(SPECS)


def start(rules, model=toy_experiment.Regression, optimizer=None, ema=0.9):
    """A fresh state with rules, the one without, and the provenance."""
    config, random, hparams = fresh(model, ema, optimizer)
    config = config.clone()
    config.train.init_from_checkpoint_rules = rules
    task = pax_fiddle.instantiate(config)
    copy = jax.tree.map(jnp.copy, random)  # what is replaced is deleted
    loaded, provenance = task.apply_init_checkpoint_rules(
        copy,
        train_states.build_train_state_provenance(copy),
        make_opt_states=lambda mdl_vars: task.create_opt_states(mdl_vars, hparams),
    )
    return loaded, random, provenance


def equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_load_all_gives_the_weights_and_a_fresh_optimizer_state(sources):
    directory, source = sources[0]
    config = Source().task()
    config.train.init_from_checkpoint_rules = {directory: Rules(load_rules=[tasks_lib.LOAD_ALL])}
    task = pax_fiddle.instantiate(config)
    loaded, provenance = trainer_lib.initialize_model_state(task, KEY, SPECS)
    equal(loaded.mdl_vars, source.mdl_vars)
    assert int(loaded.step) == 0
    chain = loaded.opt_states[0]
    assert not np.any(chain[2].m["params"]["w"])
    # The average starts from the loaded weights, not from the random ones.
    equal(chain[4].ema["params"]["w"], source.mdl_vars["params"]["w"])
    assert repr(provenance.mdl_vars["params"]["w"]) == f'"({directory}:latest)"'
    assert repr(provenance.step) == '"random_init"'


def test_step_and_optimizer_state_on_demand(sources):
    directory, source = sources[0]
    rules = Rules(load_rules=[tasks_lib.LOAD_ALL], load_step=True, load_opt_states=True, step=STEPS)
    loaded, _, provenance = start({directory: rules})
    equal(loaded, source)
    assert int(loaded.step) == STEPS
    assert repr(provenance.opt_states[0][2].m["params"]["w"]) == f'"({directory}:{STEPS})"'
    assert np.any(loaded.opt_states[0][2].m["params"]["w"])


def test_the_first_directory_and_the_first_rule_win(sources):
    (first, one), (second, two) = sources
    loaded, random, provenance = start(
        {
            first: Rules(load_rules=[("params/w", "params/w")], load_step=True),
            second: Rules(
                load_rules=[("non_trainable/(.*)", "non_trainable/{}"), tasks_lib.LOAD_ALL],
                ignore_rules=["params/b"],
                step=0,
                load_step=True,
            ),
        }
    )
    equal(loaded.mdl_vars["params"]["w"], one.mdl_vars["params"]["w"])
    assert np.any(one.mdl_vars["params"]["w"] != two.mdl_vars["params"]["w"])
    equal(loaded.mdl_vars["params"]["b"], random.mdl_vars["params"]["b"])
    equal(loaded.mdl_vars["non_trainable"]["mean"], np.zeros(3))  # step 0 of the second
    assert int(loaded.step) == STEPS
    assert repr(provenance.mdl_vars["params"]["b"]) == '"random_init"'
    assert repr(provenance.mdl_vars["non_trainable"]["mean"]) == f'"({second}:0)"'


def test_renamed_to_another_dtype_and_only_a_part(sources):
    """References may be written with slashes or dots; one source may feed several variables."""
    directory, source = sources[0]
    rules = Rules(load_rules=[("(.*)/kernel", "{}/w"), ("params/w", "params.w")])
    loaded, random, _ = start({directory: rules}, model=Renamed)
    params = loaded.mdl_vars["params"]
    assert params["kernel"].dtype == jnp.bfloat16
    equal(params["kernel"], source.mdl_vars["params"]["w"].astype(jnp.bfloat16))
    equal(params["w"], source.mdl_vars["params"]["w"])
    equal(params["extra"], random.mdl_vars["params"]["extra"])


def test_averages_by_their_prefix(sources):
    """b, which is not trained, has no average: its plain value is taken."""
    directory, source = sources[0]
    rules = Rules(load_rules=[("params/(.*)", "ema/params/{}")], task_p=Source().task())
    loaded, _, _ = start({directory: rules})
    average = source.opt_states[0][4].ema
    equal(loaded.mdl_vars["params"]["w"], average["params"]["w"])
    assert np.any(average["params"]["w"] != source.mdl_vars["params"]["w"])
    equal(loaded.mdl_vars["params"]["b"], source.mdl_vars["params"]["b"])


def without_ema():
    return type("Plain", (Source,), {"EMA": 0.0})().task()


@pytest.mark.parametrize(
    "fields", [{"load_ema_states": False}, {"task_p": without_ema}], ids=["switched off", "task_p"]
)
def test_averages_that_are_not_there_are_refused(sources, fields: Any):
    fields = {k: value() if callable(value) else value for k, value in fields.items()}
    rules = Rules(load_rules=[("params/w", "ema/params/w")], **fields)
    with pytest.raises(RuntimeError, match="'params/w' is to be loaded from 'ema/'"):
        start({sources[0][0]: rules})


def test_a_pattern_without_a_match_is_an_error_or_a_warning(sources):
    rules = Rules(load_rules=[("parms/(.*)", "params/{}"), ("params/w", "params/w")])
    message = r"'parms/\(\.\*\)' in load_rules match no variable.*'params/w'.*holds.*'params/b'"
    with pytest.raises(ValueError, match=message):
        start({sources[0][0]: rules._replace(safe_load=True)})
    with pytest.warns(UserWarning, match=f"{message}.*safe_load = True"):
        start({sources[0][0]: rules})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"load_rules": [("params/w", "params/ww")]},
            r"'params/w' is to be loaded from 'params/ww'.*holds 'params/w'.*ignore_rules",
        ),
        (
            {"load_rules": [("params/b", "params/w")]},
            r"params\.b: 'mdl_vars\.params\.w' is float32\[3\], wanted float32\[\]",
        ),
        ({"load_rules": [("params/w", "{}/w")]}, r"0 groups of the pattern.*one \{\} for each"),
        ({"load_rules": [tasks_lib.LOAD_ALL], "step": 5}, r"no checkpoint of step 5.*steps 0, 3"),
    ],
    ids=["missing", "shape", "groups", "step"],
)
def test_what_cannot_be_loaded_is_named(sources, fields, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        start({sources[0][0]: Rules(**fields)})


def test_a_directory_without_checkpoints_is_named(tmp_path):
    rules = Rules(load_rules=[tasks_lib.LOAD_ALL])
    with pytest.raises(ValueError, match=r"No checkpoints were found.*<job_log_dir>/checkpoints"):
        start({str(tmp_path): rules})
    with pytest.raises(ValueError, match="does not exist"):
        start({str(tmp_path / "none"): rules})


def optax_optimizer(grad_tx=None):
    return pax_fiddle.Config(
        optimizers.OptaxOptimizer,
        grad_tx=grad_tx or optax.adam(0.1),
        learning_rate=1.0,
        ema_decay=0.9,
        lr_schedule=pax_fiddle.Config(schedules.Constant),
    )


def test_an_optax_optimizer_takes_the_moments_of_a_praxis_adam(sources):
    directory, source = sources[0]
    rules = Rules(load_rules=[tasks_lib.LOAD_ALL], load_opt_states=True)
    loaded, _, _ = start({directory: rules}, optimizer=optax_optimizer)
    adam, old = loaded.opt_states[0][2][0], source.opt_states[0][2]
    equal(adam.mu, old.m)
    equal(adam.nu, old.v)
    assert int(adam.count) == STEPS
    assert np.any(adam.mu["params"]["w"])


def test_an_optimizer_state_that_does_not_fit_is_refused(sources):
    sgd = functools.partial(optax_optimizer, optax.sgd(0.1, momentum=0.9))
    rules = Rules(load_rules=[tasks_lib.LOAD_ALL], load_opt_states=True)
    with pytest.raises(ValueError, match=r"has no 'opt_states_0_2_0\.trace.*It has.*partial_load"):
        start({sources[0][0]: rules}, optimizer=sgd)


def test_a_part_of_the_optimizer_state_by_the_same_rules(sources):
    directory, source = sources[0]
    rules = Rules(
        load_rules=[tasks_lib.LOAD_ALL],
        ignore_rules=["opt_states_0_4/.*", "opt_states_0_2/v/.*"],
        partial_load_opt_states=True,
    )
    loaded, _, provenance = start({directory: rules})
    chain, old = loaded.opt_states[0], source.opt_states[0]
    equal(chain[2].m, old[2].m)
    assert int(chain[2].count) == STEPS
    assert not np.any(chain[2].v["params"]["w"])
    equal(chain[4].ema["params"]["w"], source.mdl_vars["params"]["w"])
    assert repr(provenance.opt_states[0][2].v["params"]["w"]) == '"random_init"'


def test_configs_in_rules_are_not_built(sources):
    class Trap:
        def __init__(self):
            raise AssertionError("built")

    provider = pax_fiddle.Config(Trap)
    rules = Rules(load_rules=[tasks_lib.LOAD_ALL], input_specs_provider_p=provider)
    loaded, _, _ = start({sources[0][0]: rules})
    equal(loaded.mdl_vars, sources[0][1].mdl_vars)


def test_a_run_on_a_mesh_applies_the_rules_once(sources, tmp_path, caplog):
    """The provenance file stays; a run with a checkpoint of its own says that it ignores rules."""
    directory, source = sources[0]
    rules = {directory: Rules(load_rules=[tasks_lib.LOAD_ALL], ignore_rules=["params/m"])}
    settings = {"MODEL": toy_experiment.Sharded, "MESH": (1, 2, 4), "STEPS": 0, "RULES": rules}
    train.train_and_evaluate(type("First", (Source,), settings)(), tmp_path, False, False)
    written = (tmp_path / "train_state_provenance.txt").read_text()
    assert f'mdl_vars/params/w: "({directory}:latest)"' in written
    assert 'mdl_vars/params/m: "random_init"' in written

    task = pax_fiddle.instantiate(type("Shapes", (Source,), settings | {"RULES": {}})().task())
    state = checkpoints.restore_checkpoint(
        task.create_train_state_padded_shapes(task.model.abstract_init_with_metadata(SPECS)),
        tmp_path / "checkpoints",
        checkpoint_type=checkpoints.CheckpointType.GDA,
    )
    equal(state.mdl_vars["params"]["w"], source.mdl_vars["params"]["w"])
    equal(state.opt_states[0][4].ema["params"]["m"], state.mdl_vars["params"]["m"])
    assert state.mdl_vars["params"]["m"].shape == (8, 3)  # 5 rows, padded for 4 shards

    settings["RULES"] = {"nowhere": Rules(load_rules=[tasks_lib.LOAD_ALL])}
    with caplog.at_level(logging.INFO, logger="absl"):
        train.train_and_evaluate(type("Again", (Source,), settings)(), tmp_path, False, False)
    assert "init_from_checkpoint_rules has no effect" in caplog.text
    assert (tmp_path / "train_state_provenance.txt").read_text() == written


def test_averages_of_a_run_without_them_are_refused(tmp_path):
    settings = {"EMA": 0.0, "STEPS": 0}
    train.train_and_evaluate(type("Plain", (Source,), settings)(), tmp_path, False, False)
    rules = Rules(load_rules=[("params/w", "ema/params/w")])
    with pytest.raises(RuntimeError, match="holds no moving average"):
        start({str(tmp_path / "checkpoints"): rules})


def test_names_of_an_optax_optimizer_lead_to_those_of_a_praxis_adam():
    rules = tasks_lib.get_optax_opt_load_rules()
    for name, expected in {
        "opt_states_0_2_0/mu/params/w": "opt_states_0_2/m/params/w",
        "opt_states_0_2_1_0/nu/params/w": "opt_states_0_2/v/params/w",
        "opt_states_0/p#2.3#i-1.i-1_2_0/mu/params/w": "opt_states_0/p#2.3#i-1.i-1_2/m/params/w",
        "opt_states_0_2_0/count": "opt_states_0_2/count",
        "opt_states_0_2/m/params/w": None,
    }.items():
        assert source_name(name, rules) == expected
        assert (expected is None) == bool(re.match(tasks_lib.get_praxis_opt_state_regex(), name))
