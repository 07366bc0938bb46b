import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lstm_reference import lstm_loop

from praxis import base_layer, pax_fiddle
from praxis.layers import frnn, rnn_cell
from praxis.py_utils import NestedMap

Config = pax_fiddle.Config
B, T, I, M = 2, 7, 3, 5
RNG = np.random.default_rng(0)
X = RNG.standard_normal((B, T, I))
PADDING = np.zeros((B, T, 1))
PADDING[0, 5:] = PADDING[1, 3] = 1
SEGMENTS = np.array([[1, 1, 2, 2, 2, 0, 0], [1, 2, 2, 0, 3, 3, 3]])[:, :, np.newaxis]
WEIGHTS = {"wm": RNG.standard_normal((I + M, 4 * M)), "b": RNG.standard_normal(4 * M)}
VARIABLES = {"params": {"cell": jax.tree.map(jnp.float32, WEIGHTS)}}
CELL = Config(rnn_cell.LstmCellSimple, num_input_nodes=I, num_output_nodes=M)
RESETTING = CELL.clone().set(reset_cell_state=True)
ZEROS = np.zeros((B, M))


def build(cls=frnn.FRnn, cell_tpl: Config | None = CELL, **fields):
    return pax_fiddle.build(Config(cls, name="rnn", cell_tpl=cell_tpl, **fields))


def sequence(**fields):
    inputs = NestedMap(act=jnp.float32(X), padding=jnp.float32(PADDING))
    return NestedMap(inputs, **fields)


def assert_close(got, want):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5), got, want)


def segment_reset(segments, padding):
    """The definition of `reset_mask`, in a loop."""
    mask = np.ones(segments.shape)
    for row, step in np.ndindex(*segments.shape[:2]):
        changed = step == 0 or segments[row, step] != segments[row, step - 1]
        mask[row, step] = not changed or padding[row, step]
    return mask


@pytest.mark.parametrize(
    ("segment_ids", "paddings", "want"),
    [
        ([[1, 1, 2, 2], [1, 2, 2, 0]], None, [[0, 1, 0, 1], [0, 0, 1, 0]]),
        ([[1, 1, 2, 2]], [[0.0, 0.0, 1.0, 0.0]], [[0, 1, 1, 1]]),
        ([[0, 0, 3, 5]], [[1.0, 0.0, 0.0, 1.0]], [[1, 1, 0, 1]]),
    ],
)
def test_reset_mask_tables(segment_ids, paddings, want):
    """Without and with paddings; [B, T, 1] as [B, T]."""
    segment_ids = jnp.int32(segment_ids)
    paddings = None if paddings is None else jnp.float32(paddings)
    mask = frnn.reset_mask(segment_ids, paddings, dtype=jnp.bfloat16)
    assert mask.dtype == jnp.bfloat16
    np.testing.assert_array_equal(mask.astype(jnp.float32), want)
    deeper = None if paddings is None else paddings[:, :, jnp.newaxis]
    np.testing.assert_array_equal(
        frnn.reset_mask(segment_ids[:, :, jnp.newaxis], deeper)[..., 0], np.float32(want)
    )


@pytest.mark.parametrize("cls", [frnn.FRnn, frnn.LstmFrnn])
@pytest.mark.parametrize("reverse", [False, True])
def test_packed_sequences_match_a_loop_in_numpy(cls, reverse):
    """FRnn equals the loop over its cell, and LstmFrnn equals FRnn; arrays may be in a list."""
    inputs = sequence(act=[jnp.float32(X)], segment_ids=jnp.int32(SEGMENTS))
    layer = build(cls, RESETTING, reverse=reverse, unroll=3)
    outputs, state = layer.apply(VARIABLES, inputs)
    order = slice(None, None, -1 if reverse else 1)
    x, padding, segments = X[:, order], PADDING[:, order], SEGMENTS[:, order]
    reset = segment_reset(segments, padding)
    want, m, c = lstm_loop(WEIGHTS, ZEROS, ZEROS, x, padding, reset)
    assert_close(outputs, want[:, order])
    assert_close(state, NestedMap(m=m, c=c))
    assert sorted(inputs) == ["act", "padding", "segment_ids"]


@pytest.mark.parametrize("reverse", [False, True])
def test_packed_sequences_equal_separate_ones(reverse):
    layer = build(frnn.FRnn if reverse else frnn.LstmFrnn, RESETTING, reverse=reverse)
    run = jax.jit(layer.apply)
    packed, _ = run(VARIABLES, sequence(segment_ids=jnp.int32(SEGMENTS)))
    for row, start, end in ((0, 0, 2), (0, 2, 5), (1, 1, 3), (1, 4, 7)):
        alone = jax.tree.map(lambda x: x[row : row + 1, start:end], sequence())  # noqa: B023
        assert_close(packed[row : row + 1, start:end], run(VARIABLES, alone)[0])


@pytest.mark.parametrize(("cls", "reverse"), [(frnn.FRnn, True), (frnn.LstmFrnn, False)])
def test_what_is_padded_changes_nothing(cls, reverse):
    """Neither outputs at valid steps nor the last state, even if it is NaN."""
    layer = jax.jit(build(cls, reverse=reverse).apply)
    want = layer(VARIABLES, sequence())
    for garbage in (jnp.nan, 1e4):
        dirty = jnp.where(jnp.float32(PADDING) > 0, garbage, jnp.float32(X))
        got = layer(VARIABLES, sequence(act=dirty))
        # Padded steps repeat the output before them, so all outputs are the same.
        jax.tree.map(np.testing.assert_array_equal, got, want)
    before = want[0][1, 4 if reverse else 2]
    np.testing.assert_array_equal(want[0][1, 3], before)


def test_steps_and_halves_equal_the_whole():
    """`extend_step` over T steps; and the state of the first half starts the second."""
    layer = build(frnn.LstmFrnn)
    inputs = sequence()
    want, m, c = lstm_loop(WEIGHTS, ZEROS, ZEROS, X, PADDING)
    final = NestedMap(m=m, c=c)
    first, state = layer.apply(VARIABLES, jax.tree.map(lambda x: x[:, :4], inputs))
    second, state = layer.apply(VARIABLES, jax.tree.map(lambda x: x[:, 4:], inputs), state)
    assert_close((jnp.concatenate([first, second], axis=1), state), (want, final))

    extend = jax.jit(lambda step, state: layer.apply(VARIABLES, step, state, method="extend_step"))
    state = layer.apply(VARIABLES, B, method="init_states")
    for index in range(T):
        step = jax.tree.map(lambda x, index=index: x[:, index], inputs)
        # A mask of the caller is not heeded.
        step.reset_mask = jnp.zeros([B, 1])
        state, output = extend(step, state)
        assert_close(output, want[:, index])
        assert step.reset_mask.sum() == 0
    assert_close(state, final)
    assert_close(layer.apply(VARIABLES, state, method="get_output"), want[:, -1])


def test_an_initial_state_counts_unless_packed_inputs_reset_it():
    layer = build(cell_tpl=RESETTING)
    state0 = NestedMap(m=jnp.ones([B, M]), c=jnp.ones([B, M]))
    want, m, c = lstm_loop(WEIGHTS, ZEROS + 1, ZEROS + 1, X, PADDING)
    assert_close(layer.apply(VARIABLES, sequence(), state0), (want, NestedMap(m=m, c=c)))
    packed = sequence(segment_ids=jnp.int32(SEGMENTS))
    got, alone = layer.apply(VARIABLES, packed, state0), layer.apply(VARIABLES, packed)
    jax.tree.map(np.testing.assert_array_equal, got, alone)


def test_the_program_does_not_grow_with_the_number_of_steps():
    """One loop, not one step after the other; one step is no special case."""
    layer = build()

    def lines(steps):
        inputs = NestedMap(act=jnp.ones([B, steps, I]), padding=jnp.zeros([B, steps, 1]))
        text = jax.jit(layer.apply).lower(VARIABLES, inputs).as_text()
        return len(text.splitlines())

    assert lines(50) == lines(3)
    one = NestedMap(act=jnp.ones([B, 1, I]), padding=jnp.zeros([B, 1, 1]))
    assert layer.init_with_output(jax.random.PRNGKey(0), one)[0][0].shape == (B, 1, M)


class ReportingCell(rnn_cell.LstmCellSimple):
    """Counts steps, and reports the number and the sum of m."""

    def setup(self):
        super().setup()
        count = base_layer.WeightHParams(shape=[], init=base_layer.WeightInit.Constant(0.0))
        self.create_variable("steps", count, trainable=False)

    def __call__(self, state0, inputs):
        count = self.get_var("steps") + 1
        self.update_var("steps", count)
        self.add_aux_loss("count", count)
        self.add_summary("count", count)
        return super().__call__(state0, inputs)


def test_reports_of_the_cell_and_variables_that_change():
    """Those variables are carried, losses are added up, summaries stacked."""
    cell = Config(ReportingCell, num_input_nodes=I, num_output_nodes=M)
    layer = build(cell_tpl=cell)
    variables = layer.init(jax.random.PRNGKey(0), sequence())
    assert variables["non_trainable"]["cell"]["steps"] == 0
    mutable = ["non_trainable", "aux_loss", "summaries"]
    _, changed = layer.apply(variables, sequence(), mutable=mutable)
    assert changed["non_trainable"]["cell"]["steps"] == T
    loss = changed["aux_loss"]["cell"]["count"]
    assert (loss.value, loss.weight) == (T * (T + 1) / 2, T)
    np.testing.assert_array_equal(
        changed["summaries"]["cell"]["count_scalar"], np.arange(1.0, T + 1)
    )


def test_zoneout_draws_anew_on_each_step():
    layer = build(cell_tpl=CELL.clone().set(zo_prob=0.5))
    same = sequence(act=jnp.ones([B, T, I]), padding=jnp.zeros([B, T, 1]))
    outputs, _ = layer.apply(VARIABLES, same, rngs={"random": jax.random.PRNGKey(0)})
    kept = np.asarray(outputs[:, 1:] == outputs[:, :-1])
    assert 0.3 < kept.mean() < 0.7
    assert len(np.unique(kept, axis=1).T) > 1


def test_half_precision_states():
    """A float32 state and inputs enter a bfloat16 layer."""
    layer = build(fprop_dtype=jnp.bfloat16)
    state0 = NestedMap(m=jnp.ones([B, M]), c=jnp.ones([B, M]))
    outputs, state = layer.apply(VARIABLES, sequence(), state0)
    assert {outputs.dtype, state.m.dtype, state.c.dtype} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"act": jnp.ones([B, I])}, r"the arrays of act have the shapes \[\(2, 3\)\], expected"),
        (
            {"act": [jnp.ones([B, T, 1]), jnp.ones([B, 1, 2])]},
            r"the arrays of act have the shapes \[\(2, 7, 1\), \(2, 1, 2\)\], .*the same B and T",
        ),
        (
            {"padding": jnp.zeros([B, T])},
            r"padding has shape \(2, 7\), expected \[B, T, 1\] = \(2, 7, 1\)",
        ),
        ({"segment_ids": jnp.ones([B, T], jnp.int32)}, r"segment_ids has shape \(2, 7\)"),
    ],
)
def test_wrong_inputs(changed, message):
    for cls in (frnn.FRnn, frnn.LstmFrnn):
        with pytest.raises(ValueError, match=f"{cls.__name__} 'rnn': {message}"):
            build(cls).init(jax.random.PRNGKey(0), sequence(**changed))


def test_wrong_fields():
    key = jax.random.PRNGKey(0)
    with pytest.raises(ValueError, match="FRnn 'rnn': cell_tpl is None, set it to the config"):
        build(cell_tpl=None).init(key, sequence())
    with pytest.raises(ValueError, match="FRnn 'rnn': unroll is 0, expected at least 1"):
        build(unroll=0).init(key, sequence())
    cell = Config(rnn_cell.BaseRnnCell)
    with pytest.raises(TypeError, match=r"LstmFrnn 'rnn': .*BaseRnnCell, which has no method proj"):
        build(frnn.LstmFrnn, cell).init(key, sequence())
    narrow = CELL.clone().set(num_input_nodes=2)
    with pytest.raises(ValueError, match=r"LstmCellSimple 'rnn/cell': act has the shapes"):
        build(cell_tpl=narrow).init(key, sequence())
    with pytest.raises(ValueError, match="FRnn 'rnn': there is no field 'padding'"):
        build().init(key, NestedMap(act=jnp.float32(X)))
