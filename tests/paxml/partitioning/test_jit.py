"""One program on any mesh (behaviours 27, 48, 49, 55, 76, 107, 110)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_experiment
from jax.sharding import PartitionSpec

from paxml import partitioning, trainer_lib
from praxis import pax_fiddle, py_utils

RunningMode = trainer_lib.RunningMode


def batch_of(rows, number=0):
    rng = np.random.default_rng(number)
    x = rng.standard_normal((rows, toy_experiment.FEATURES)).astype(np.float32)
    return py_utils.NestedMap(x=x, y=x.sum(-1))


def prepare(*, mesh=None, devices=None, model=toy_experiment.Regression, rows=8) -> Any:
    """A partitioner that is set up, and the first state."""
    experiment = toy_experiment.variant(MESH=mesh, MODEL=model)
    task = pax_fiddle.instantiate(experiment.task())
    partitioner = partitioning.JitPartitioner(task=task, device_mesh=devices)
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch_of(rows))
    key = jax.random.PRNGKey(0)
    partitioner.setup(task, key, specs)
    root, state, _ = partitioner.initialize_prng_key_and_train_state(key, None, None)
    return partitioner, root, state


def steps(partitioner, root, state, *, count=3, rows=8, padding=0) -> Any:
    """Losses of some steps and the last state."""
    key = partitioner.preprocess_prng_key(root)
    args = trainer_lib.BaseStepFnStaticArgs(unpadded_global_batch_size=rows)
    step, losses = None, []
    for number in range(count):
        batch = jax.tree.map(
            lambda x: np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)), batch_of(rows, number)
        )
        batch = partitioner.preprocess_inputs(None, batch, None)
        if step is None:
            step, _ = partitioner.partition(
                partitioning.get_step_fn(RunningMode.TRAIN), batch, is_eval=False
            )
        state, out = step(state, key, batch, args)
        losses.append(float(out.loss))
    return losses, state


def one_device():
    return np.array(jax.devices()[:1])


@pytest.mark.parametrize("mesh", [None, [1, 4, 2], [1, 8, 1]], ids=str)
def test_eight_devices_equal_one_running_mean_included(mesh):
    partitioner, root, state = prepare(mesh=mesh)
    assert partitioner.global_mesh.size == 8
    losses, state = steps(partitioner, root, state)
    single, single_root, first = prepare(devices=one_device())
    expected, last = steps(single, single_root, first)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert np.abs(last.mdl_vars["non_trainable"]["mean"]).max() > 1e-3
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5),
        jax.device_get(state.mdl_vars),
        jax.device_get(last.mdl_vars),
    )


def test_a_step_is_traced_once_and_its_state_stays_where_it_is():
    """Behaviour 110."""
    traces = []

    class Counted(toy_experiment.Sharded):
        def compute_predictions(self, input_batch):
            traces.append(input_batch.x.shape)
            return super().compute_predictions(input_batch)

    partitioner, root, state = prepare(mesh=[1, 4, 2], model=Counted)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    traces.clear()
    _, state = steps(partitioner, root, state, count=3)
    assert traces == [(8, toy_experiment.FEATURES)]
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings


def test_first_weights_do_not_depend_on_the_mesh():
    _, _, many = prepare(mesh=[1, 4, 2])
    _, _, one = prepare(devices=one_device())
    jax.tree.map(np.testing.assert_array_equal, many.mdl_vars, one.mdl_vars)


def test_a_dimension_that_does_not_divide_is_stored_padded():
    partitioner, root, state = prepare(mesh=[1, 4, 2], model=toy_experiment.Sharded)
    metadata = partitioner.get_train_state_metadata()
    assert metadata.partition_specs.mdl_vars["params"]["m"] == PartitionSpec("mdl", None)
    assert metadata.unpadded_global_shapes.mdl_vars["params"]["m"].shape == (5, 3)
    assert state.mdl_vars["params"]["m"].shape == (6, 3)
    moments = [leaf for leaf in jax.tree.leaves(state.opt_states) if leaf.shape == (6, 3)]
    assert len(moments) == 2
    assert all(leaf.sharding.spec == PartitionSpec("mdl", None) for leaf in moments)

    losses, last = steps(partitioner, root, state)
    single, single_root, first = prepare(devices=one_device(), model=toy_experiment.Sharded)
    expected, _ = steps(single, single_root, first)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert last.mdl_vars["params"]["m"].sharding.spec == PartitionSpec("mdl", None)


def test_padding_rows_are_cut_off():
    single, single_root, first = prepare(devices=one_device(), rows=3)
    expected, _ = steps(single, single_root, first, rows=3)
    partitioner, root, state = prepare(rows=3)
    losses, _ = steps(partitioner, root, state, rows=3, padding=5)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize(("batch", "padding"), [(3, 5), (8, 0), (11, 5)])
def test_small_batches_get_padding(batch, padding):
    partitioner, _, _ = prepare()
    config = toy_experiment.variant(BATCH=batch).train_datasets()[0]
    adjusted = partitioner.preprocess_input_config(config)
    assert (adjusted.batch_padding_size, adjusted.num_infeed_hosts) == (padding, 1)
    assert config.batch_padding_size == 0


def test_a_mesh_of_other_size_than_the_devices_is_refused():
    with pytest.raises(ValueError, match=r"(?s)1, 3, 1.*3.*8"):
        prepare(mesh=[1, 3, 1])


def test_a_mesh_needs_a_name_for_each_axis():
    with pytest.raises(ValueError, match=r"\[8, 1\].*mesh_axis_names.*'mdl'.*differ in length"):
        prepare(mesh=[8, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": jnp.zeros([8, 4])}, r"'x'.*\(8, 4\).*\[B, 3\].*\(8, 3\)"),
        ({"y": jnp.zeros([8], jnp.int32)}, r"'y'.*int32.*float32"),
    ],
    ids=["shape", "dtype"],
)
def test_a_batch_that_does_not_fit_the_specs_names_the_array(change, message):
    partitioner, _, _ = prepare()
    good = batch_of(8)
    partitioner.check_input_spec({**good, "extra": jnp.zeros([1])})
    with pytest.raises(ValueError, match=message):
        partitioner.check_input_spec({**good, **change})


def test_a_batch_without_an_array_of_the_specs_names_it():
    partitioner, _, _ = prepare()
    with pytest.raises(ValueError, match="has no array 'y'"):
        partitioner.check_input_spec({"x": batch_of(8).x})


def test_setup_takes_specs_or_an_input_and_not_both():
    partitioner, root, _ = prepare()
    with pytest.raises(ValueError, match="train_inputs_shape_dtype or train_input_pipeline"):
        partitioner.setup(partitioner.task, root, None)


def test_automatic_sharding_is_refused_with_advice():
    partitioner, _, _ = prepare()
    with pytest.raises(NotImplementedError, match="Set ici_mesh_shape"):
        partitioning.create_partitioner(partitioner.task, auto_sharding_mode=RunningMode.TRAIN)


def test_filter_nestedmap_keeps_the_keys_that_are_present():
    full = py_utils.NestedMap(a=1, b=py_utils.NestedMap(c=2, d=3), e=[4, 5])
    part = py_utils.NestedMap(b=py_utils.NestedMap(d=0), e=[0, 0])
    assert partitioning.filter_nestedmap(full, part) == {"b": {"d": 3}, "e": [4, 5]}
    with pytest.raises(ValueError, match="lists of 2 and 1 entries"):
        partitioning.filter_nestedmap([1, 2], [0])


def test_programs_that_partition_the_same_step_share_it():
    partitioner, _, _ = prepare(devices=one_device())
    evaluate = partitioning.get_step_fn(RunningMode.EVAL)
    decode = partitioning.get_step_fn(RunningMode.DECODE)
    step, _ = partitioner.partition(evaluate, batch_of(8), is_eval=True)
    assert partitioner.partition(evaluate, batch_of(5), is_eval=True)[0] is step
    assert partitioner.partition(decode, batch_of(8), is_eval=True)[0] is not step
