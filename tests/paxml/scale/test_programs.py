"""What the compiled programs of meshes hold and send, read from their HLO.

XLA for CPUs sums with all-reduces where accelerators have reduce-scatters, so both count here.
"""

import jax
import numpy as np
import pytest
import scale_experiment as scale

LAYERS = scale.Tiny.NUM_LAYERS
# Shapes of the weights of a layer: of attention, and of the feed-forward.
WEIGHTS = {(16, 4, 4), (16, 32), (32, 16)}


def sent(name, *kinds, source="", times=None):
    """The collectives of a program of some kinds, from some place, in loops of a length."""
    return [
        one
        for one in scale.compiled_step(name).collectives
        if one.kind in kinds and source in one.source and times in (None, one.times)
    ]


def shapes(found):
    return [shape for one in found for shape in one.shapes]


@pytest.mark.parametrize("name", ["fsdp 8", "fsdp 2 tensor 4", "fsdp 2 expert 4", "stage 4 fsdp 2"])
def test_no_device_holds_whole_matrices(name):
    """Of each matrix of the state, moments of the optimizer too, a device has its part."""
    step = scale.compiled_step(name)
    state, *_ = step.program.input_shardings[0]
    sizes = step.partitioner.abstract_train_state()

    def check(path, size, sharding):
        if np.prod(size.shape) < np.prod((16, 4, 4)):  # Scales of norms, gates of experts.
            return 0
        text = jax.tree_util.keystr(path)
        assert np.prod(sharding.shard_shape(size.shape)) < np.prod(size.shape), text
        return 1

    checked = jax.tree_util.tree_map_with_path(check, sizes, state)
    assert sum(jax.tree.leaves(checked)) > 15


def test_fsdp_gathers_each_weight_in_its_layer_and_sums_gradients():
    gathered = shapes(sent("fsdp 8", "all-gather", times=LAYERS))
    assert set(gathered) >= WEIGHTS
    # Query, key, value, post and two of the feed-forward, forward and backward.
    assert len([shape for shape in gathered if shape in WEIGHTS]) == 2 * 6
    summed = sent("fsdp 8", "all-reduce", "reduce-scatter", times=LAYERS)
    assert {shape for shape in shapes(summed) if len(shape) > 1} >= WEIGHTS
    assert not sent("data 8", "all-gather", times=LAYERS)


def test_tensor_parallelism_sums_activations_twice_forward_and_twice_backward():
    """After attention and feed-forward; once more where the forward pass is computed again.

    Backward, query, key and value are summed together, as three arrays: `combine_qkv` makes it one.
    """
    activation = (scale.BATCH, scale.LENGTH, scale.Tiny.MODEL_DIMS)
    summed = sent("tensor 4", "all-reduce", "reduce-scatter", times=LAYERS)
    assert {shape for shape in shapes(summed) if len(shape) > 1} == {activation}
    again = [one for one in summed if "rematted" in one.source]
    assert len(again) == 1
    per_layer = [one.shapes.count(activation) for one in summed if activation in one.shapes]
    assert sorted(per_layer) == [1, 1, 1, 1, 3]
    assert not WEIGHTS & set(shapes(sent("tensor 4", "all-gather")))


def test_a_pipeline_sends_from_stage_to_stage_in_each_iteration():
    """M microbatches go through S stages in M + S - 1 iterations."""
    experiment = scale.TinyPipeline
    assert experiment.NUM_MICROBATCHES and experiment.NUM_STAGES
    iterations = experiment.NUM_MICROBATCHES + experiment.NUM_STAGES - 1
    passed = sent("stage 4 fsdp 2", "collective-permute", times=iterations)
    assert len(passed) >= 2  # Forward and backward.
    assert not sent("stage 4 fsdp 2", "all-to-all", times=iterations)


def test_tokens_go_to_experts_and_back_by_all_to_all():
    """Two forward, two backward; and experts are not put together anywhere."""
    moved = sent("fsdp 2 expert 4", "all-to-all", source="_let_tokens_choose")
    assert {one.group_size for one in moved} == {4}
    assert len(moved) >= 4
    for shape in shapes(sent("fsdp 2 expert 4", "all-gather", source="experts")):
        assert shape[0] == 1, f"{shape} holds more experts than that of the device"


def test_time_split_over_devices_gathers_keys_and_values_alone():
    """Of [B, T, N, H] the products of attention gather two; queries and contexts stay split."""
    whole = (scale.BATCH // 2, scale.LENGTH, 4, 4)
    gathered = [
        one for one in sent("fsdp 2 sequence 4", "all-gather", times=LAYERS) if whole in one.shapes
    ]
    forward = [one for one in gathered if "transpose" not in one.source]
    assert sorted(one.source.split("/")[-2] for one in forward) == [
        "BNTS,BSNH->BTNH",
        "BTNH,BSNH->BNTS",
    ]
    assert len(gathered) == 2 * len(forward)  # And for the backward pass.
    assert {one.group_size for one in gathered} == {4}
    activation = (scale.BATCH // 2, scale.LENGTH, scale.Tiny.MODEL_DIMS)
    assert activation not in shapes(sent("fsdp 2 sequence 4", "all-gather"))


def test_scratch_memory_of_a_device_falls_as_devices_grow():
    names = ("one", "data 2", "data 4", "data 8")
    sizes = [
        scale.compiled_step(name).program.memory_analysis().temp_size_in_bytes for name in names
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 2
