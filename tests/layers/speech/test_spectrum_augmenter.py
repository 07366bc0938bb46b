"""Which frames and bins are hidden."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import spectrum_augmenter

B, T, F = 64, 31, 13
LENGTHS = np.where(np.arange(B) % 2, T, 17)
PADDINGS = jnp.asarray(np.arange(T)[np.newaxis] >= LENGTHS[:, np.newaxis], jnp.float32)
ONES = jnp.ones([B, T, F])


def augment(do_eval=False, inputs=ONES, paddings=PADDINGS, seed=0, **fields):
    config = pax_fiddle.Config(spectrum_augmenter.SpectrumAugmenter, name="mask", **fields)
    layer = pax_fiddle.build(config)
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=do_eval)):
        return layer.apply({}, inputs, paddings, rngs={"random": jax.random.PRNGKey(seed)})


def runs(hidden):
    """(start, length) of each stretch of True."""
    groups = itertools.groupby(range(len(hidden)), key=lambda i: hidden[i])
    stretches = [list(group) for is_hidden, group in groups if is_hidden]
    return [(stretch[0], len(stretch)) for stretch in stretches]


def test_spans_of_frames_lie_within_the_frames():
    outputs, paddings = augment(freq_mask_count=0, time_mask_count=1, time_mask_max_ratio=0.4)
    np.testing.assert_array_equal(paddings, PADDINGS)
    hidden = np.asarray(outputs) == 0
    assert np.all(hidden == hidden[:, :, :1])
    lengths = []
    for row, num_frames in zip(hidden[:, :, 0], LENGTHS, strict=True):
        spans = runs(row)
        assert len(spans) <= 1
        start, length = spans[0] if spans else (0, 0)
        assert start + length <= num_frames
        assert length < 0.4 * num_frames
        lengths.append(length)
    # 0.4 of the shorter examples is 6.8 frames, of the longer ones 12.4.
    assert set(lengths[::2]) == set(range(7))
    assert max(lengths[1::2]) > 9


def test_bands_of_bins_are_the_same_in_all_frames():
    outputs, _ = augment(time_mask_count=0, freq_mask_count=1, freq_mask_max_bins=5)
    hidden = np.asarray(outputs) == 0
    assert np.all(hidden == hidden[:, :1])
    spans = [runs(row) for row in hidden[:, 0]]
    assert {length for row in spans for _, length in row} == {1, 2, 3, 4}
    assert max(start + length for row in spans for start, length in row) == F


def test_limits_of_lengths():
    """A fixed limit acts besides the share of the frames; a share of no frame still hides one."""
    fields: dict[str, Any] = {"freq_mask_count": 0, "time_mask_count": 1}
    fixed, _ = augment(
        use_dynamic_time_mask_max_frames=False,
        time_mask_max_frames=4,
        time_mask_max_ratio=1.0,
        **fields,
    )
    lengths = np.sum(np.asarray(fixed)[:, :, 0] == 0, axis=1)
    assert set(lengths) == {0, 1, 2, 3}
    short, _ = augment(
        use_dynamic_time_mask_max_frames=False,
        time_mask_max_frames=40,
        time_mask_max_ratio=0.01,
        **fields,
    )
    assert set(np.sum(np.asarray(short)[:, :, 0] == 0, axis=1)) == {0, 1}


def test_number_of_spans_by_length():
    """0.03 spans a frame are none for 17 frames and none for 31; 0.06 are one for both."""
    fields: dict[str, Any] = {
        "freq_mask_count": 0,
        "time_mask_max_ratio": 0.3,
        "time_mask_count": 5,
    }
    none, _ = augment(time_masks_per_frame=0.03, **fields)
    np.testing.assert_array_equal(none, ONES)
    one, _ = augment(time_masks_per_frame=0.06, **fields)
    many, _ = augment(**fields)
    hidden_by_one, hidden_by_many = (np.asarray(x)[:, :, 0] == 0 for x in (one, many))
    assert max(len(runs(row)) for row in hidden_by_one) == 1
    assert max(len(runs(row)) for row in hidden_by_many) > 1
    # The first span of the same draw.
    assert np.all(hidden_by_many[hidden_by_one])


@pytest.mark.parametrize(
    "fields",
    [
        {"time_mask_count": 0},
        {"time_mask_max_ratio": 0.0},
        {"time_mask_max_frames": 0, "use_dynamic_time_mask_max_frames": False},
    ],
)
@pytest.mark.parametrize("bins", [{"freq_mask_count": 0}, {"freq_mask_max_bins": 0}])
def test_nothing_to_hide(fields, bins):
    np.testing.assert_array_equal(augment(**fields, **bins)[0], ONES)


def test_evaluation_hides_nothing_unless_asked():
    np.testing.assert_array_equal(augment(do_eval=True)[0], ONES)
    in_eval, in_training = augment(do_eval=True, augment_at_eval=True), augment()
    np.testing.assert_array_equal(in_eval[0], in_training[0])
    assert np.any(np.asarray(in_training[0]) == 0)


def test_long_inputs_in_bfloat16_are_masked_over_their_whole_length():
    """bfloat16 counts up to 256; NaN is hidden as anything else."""
    inputs = jnp.full([B, 600, 1], jnp.nan, jnp.bfloat16)
    outputs, _ = augment(
        inputs=inputs,
        paddings=jnp.zeros([B, 600], jnp.bfloat16),
        freq_mask_count=0,
        time_mask_count=1,
        time_mask_max_ratio=0.1,
    )
    assert outputs.dtype == jnp.bfloat16
    hidden = np.asarray(outputs[:, :, 0] == 0)
    assert max(start for row in hidden for start, _ in runs(row)) > 400


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"time_mask_count": -1}, "time_mask_count is -1, expected at least 0"),
        ({"freq_mask_max_bins": -2}, "freq_mask_max_bins is -2, expected at least 0"),
        ({"time_mask_max_ratio": 1.5}, "time_mask_max_ratio is 1.5, expected a share"),
        ({"paddings": PADDINGS[:, 1:]}, rf"paddings have shape \({B}, {T - 1}\), inputs have"),
    ],
)
def test_errors_name_the_layer_and_the_field(fields, text):
    with pytest.raises(ValueError, match=f"SpectrumAugmenter 'mask': {text}"):
        augment(**fields)
