"""Helpers of the old `pmap` trainer."""

import jax
import numpy as np
import pytest

from praxis import py_utils


def test_questions_have_answers():
    assert py_utils.is_mock_tpu_backend() is False
    assert py_utils.pmap_use_tensorstore() is False


def test_parts_go_to_the_devices_in_order():
    devices = jax.local_devices()[:2]
    x = np.arange(12.0).reshape(4, 3)
    parts = py_utils.put_to_devices(x, devices)
    assert [part.devices() for part in parts] == [{device} for device in devices]
    np.testing.assert_array_equal(np.concatenate(parts), x)
    with pytest.raises(ValueError, match=r"\(3, 2\).*2 local devices"):
        py_utils.put_to_devices(np.ones([3, 2]), devices)


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (py_utils.convert_fully_replicated_array_to_pmap_array, r"\(2, 3\).*addressable_data"),
        (py_utils.convert_host_local_array_to_global_array, r"\(2, 3\).*py_utils.make_array"),
    ],
)
def test_conversions_name_what_replaces_them(convert, message):
    with pytest.raises(NotImplementedError, match=message):
        convert(np.ones([2, 3]))
