"""A user's own input."""

import numpy as np
import pytest

from praxis import base_hyperparams, base_input, pax_fiddle, py_utils

NestedMap = py_utils.NestedMap


class Squares(base_input.BaseInput):
    """Numbers and their squares, the shard of this process, with a position as state."""

    limit: int = 10

    def __post_init__(self):
        super().__post_init__()
        self._next = 0

    def get_next(self) -> NestedMap:
        assert self.batch_size is not None
        step = self.batch_size * self.num_infeed_hosts
        first = self._next + self.infeed_host_index * self.batch_size
        if self._next + step > self.limit:
            raise StopIteration
        self._next += step
        x = np.arange(first, first + self.batch_size)
        return NestedMap(x=x, y=x**2)

    def reset(self) -> None:
        self._next = 0

    def _get_state_internal(self) -> bytes:
        return str(self._next).encode()

    def _set_state_internal(self, state: bytes) -> None:
        self._next = int(state)


def build(**kwargs):
    p = pax_fiddle.Config(Squares, name="squares", batch_size=2, num_infeed_hosts=2, **kwargs)
    return base_hyperparams.instantiate(p)


def test_shards_and_the_end():
    batches = []
    for host in range(2):
        inp = build(infeed_host_index=host, reset_for_eval=True)
        batches.append([inp.get_next().x.tolist(), inp.get_next().x.tolist()])
        with pytest.raises(StopIteration):
            inp.get_next()
        inp.reset()
        assert inp.get_next().x.tolist() == batches[-1][0]
    assert batches == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    assert Squares.get_global_batch_size(build().hparams) == 4


def test_padding_peeking_and_state(tmp_path):
    inp = build(batch_padding_size=1, is_training=True)
    peeked = inp.peek_padded()
    np.testing.assert_array_equal(peeked.y, [0, 1, 0])
    inp.save(tmp_path / "state")
    assert inp.get_next_padded() is peeked
    after = inp.get_next_padded()
    other = build(batch_padding_size=1)
    other.restore(tmp_path / "state")
    np.testing.assert_array_equal(other.get_next_padded().x, peeked.x)
    np.testing.assert_array_equal(other.get_next_padded().x, after.x)


def test_several_inputs_as_one():
    children = {name: pax_fiddle.Config(Squares, batch_size=size) for name, size in SIZES.items()}
    p = pax_fiddle.Config(base_input.MultiInput, name="both", input_to_params=children)
    batch = p.Instantiate().get_next()
    assert batch.a.x.shape == (2, 1) and batch.b.x.shape == (2, 2)


SIZES = {"a": 2, "b": 4}
