"""State space layers against the recurrence in NumPy, whole and step by step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from praxis import base_layer, pax_fiddle
from praxis.layers import ssm
from praxis.layers.state_space.hippo import diagonal_poles

B, T, D, N = 2, 7, 3, 5
KEY = jax.random.PRNGKey(0)
CACHE = [base_layer.DECODE_CACHE]
KINDS = ["ss4d-1d", "ss4d-1d-legs", "ss4d-1d-lagt"]


def build(cls=ssm.SSM, **fields):
    sizes = {"nheads": N, "dim": D, "l_max": T, "step_size": 0.1}
    return pax_fiddle.build(pax_fiddle.Config(cls, name="ssm", **{**sizes, **fields}))


def inputs(*shape, seed=0):
    return jnp.float32(np.random.default_rng(seed).standard_normal(shape or (B, T, D)))


def params_of(cls):
    """Random variables, in float64."""
    rng = np.random.default_rng(1)
    d, b, c = ([1, D], None, [N, D]) if cls is ssm.SSM else ([D], [N, D], [D, N])
    shapes = {"D": d, "C_re": c, "C_im": c} | ({"B_re": b, "B_im": b} if b else {})
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def reference(cls, params, u, poles, step, use_input_matrix=False):
    """The recurrence in complex128; outputs [B, T, D]."""
    ab, gain = np.exp(step * poles), (np.exp(step * poles) - 1) / poles
    c = params["C_re"] + 1j * params["C_im"]
    state, outputs = 0.0, []
    for frame in np.swapaxes(u, 0, 1):
        if cls is ssm.SSM:
            state = ab[:, None] * state + gain[:, None] * frame[:, None]  # [B, N, D]
            y = (c * state).sum(1).real
        else:
            b = params["B_re"] + 1j * params["B_im"] if use_input_matrix else np.ones([N, D])
            state = ab * state + gain * (frame @ b.T)  # [B, N]
            y = (state @ c.T).real
        outputs.append(y + params["D"].reshape(D) * frame)
    return np.stack(outputs, axis=1)


@functools.cache
def run_all(cls, kind, use_input_matrix=False):
    """Outputs of a call, of steps after it, of blocks of steps, and what they should be."""
    fields = {"use_input_matrix": True} if use_input_matrix else {}
    layer = build(cls, hippo_type=kind, **fields)
    params = params_of(cls)
    variables = {"params": {name: jnp.float32(x) for name, x in params.items()}}

    @jax.jit
    def run(variables, u):
        whole, cache = layer.apply(variables, u, mutable=CACHE)
        state, steps = cache, []
        for t in range(T):
            y, state = layer.apply(variables | state, u[:, t], method="extend_step", mutable=CACHE)
            steps.append(y)
        first, middle = layer.apply(
            variables | cache, u[:, :3], method="extend_step", mutable=CACHE
        )
        rest, _ = layer.apply(variables | middle, u[:, 3:], method="extend_step", mutable=CACHE)
        prefill = layer.apply(variables, u, method="prefill")
        return whole, jnp.stack(steps, 1), jnp.concatenate([first, rest], 1), prefill, state

    u = inputs()
    want = reference(
        cls, params, np.float64(u), np.complex128(diagonal_poles(N, kind)), 0.1, use_input_matrix
    )
    return run(variables, u), want


CASES = [(cls, kind, False) for cls in (ssm.SSM, ssm.S5) for kind in KINDS]
CASES.append((ssm.S5, KINDS[1], True))
every_case = pytest.mark.parametrize(("cls", "kind", "use_input_matrix"), CASES)


@every_case
def test_call_matches_the_recurrence(cls, kind, use_input_matrix):
    """26, SSM: for each hippo type; S5 likewise."""
    (whole, *_), want = run_all(cls, kind, use_input_matrix)
    np.testing.assert_allclose(whole, want, rtol=2e-5, atol=2e-5)


@every_case
def test_steps_match_the_call(cls, kind, use_input_matrix):
    """26, SSM: step-by-step decoding equals convolution; steps in blocks go on from the state."""
    (_, steps, blocks, prefill, state), want = run_all(cls, kind, use_input_matrix)
    np.testing.assert_allclose(steps, want, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(blocks, want, rtol=2e-5, atol=2e-5)
    last = state["decoder_cache"]["ssm_state"]
    assert last.dtype == jnp.complex64
    np.testing.assert_allclose(prefill.last, last, rtol=2e-5, atol=2e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, T - 1), st.integers(0, 2**16))
def test_convolution_is_causal_and_equals_that_of_numpy(changed, seed):
    rng = np.random.default_rng(seed)
    u, kernel = rng.standard_normal([B, T, D]), rng.standard_normal([T, D])
    got = np.asarray(ssm.causal_convolution(jnp.float32(u), jnp.float32(kernel)))
    for b in range(B):
        for d in range(D):
            want = np.convolve(u[b, :, d], kernel[:, d])[:T]
            np.testing.assert_allclose(got[b, :, d], want, rtol=2e-5, atol=2e-5)
    u[:, changed] += 1.0
    other = np.asarray(ssm.causal_convolution(jnp.float32(u), jnp.float32(kernel)))
    np.testing.assert_allclose(other[:, :changed], got[:, :changed], atol=1e-5)
    np.testing.assert_allclose(
        other[:, changed] - got[:, changed], np.tile(kernel[:1], [B, 1]), rtol=2e-5, atol=2e-5
    )


def test_kernel_is_the_response_to_an_impulse_for_poles_of_each_channel_too():
    rng = np.random.default_rng(0)
    real, imag, frequencies = jnp.float32(rng.standard_normal([3, N, D]))
    c, a = real + 1j * imag, -0.5 + 1j * frequencies

    @jax.jit
    def run():
        ab, bb = ssm.s4d_discretize(a, jnp.ones([N, D]), 0.1)
        state, outputs = jnp.zeros([1, N, D], jnp.complex64), []
        for t in range(T):
            state, y = ssm.s4d_step(ab, bb, c, jnp.full([1, D], float(t == 0)), state)
            outputs.append(y[0])
        return ssm.s4d_kernel_zoh(c, a, T, 0.1), jnp.stack(outputs)

    kernel, outputs = run()
    np.testing.assert_allclose(kernel, outputs, rtol=2e-5, atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16))
def test_joining_maps_is_associative(seed):
    rng = np.random.default_rng(seed)
    one, two, three = (tuple(jnp.float32(rng.standard_normal([2, 3]))) for _ in range(3))
    left = ssm.binary_operator(ssm.binary_operator(one, two), three)
    right = ssm.binary_operator(one, ssm.binary_operator(two, three))
    np.testing.assert_allclose(left, right, rtol=2e-5, atol=2e-5)


def test_input_matrix_of_s5_is_trained_with_the_flag_only():
    """B got no gradient; it does with `use_input_matrix`, over the same variables."""
    u = inputs()
    layers = [build(ssm.S5), build(ssm.S5, use_input_matrix=True)]

    def grads(layer):
        variables = layer.init(KEY, u)
        return jax.grad(lambda v: jnp.sum(layer.apply(v, u) ** 2))(variables)["params"]

    without, with_flag = jax.jit(lambda: [grads(layer) for layer in layers])()
    assert jax.tree.map(jnp.shape, without) == jax.tree.map(jnp.shape, with_flag)
    for name in ("B_re", "B_im"):
        assert not np.any(without[name])
        assert np.all(np.asarray(with_flag[name]) != 0)


@pytest.mark.parametrize("cls", [ssm.SSM, ssm.S5])
def test_a_state_of_one_number_works(cls):
    layer = build(cls, nheads=1)
    outputs, _ = jax.jit(lambda: layer.init_with_output(KEY, inputs()))()
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize(("samples", "rows"), [(0, B), (1, B), (3, 3 * B)])
def test_call_makes_a_state_for_the_samples_of_each_row(samples, rows):
    """Without samples there is one state a row; there were none, so that no step could follow."""
    layer = build(decode_num_samples=samples)
    variables = {"params": {name: jnp.float32(x) for name, x in params_of(ssm.SSM).items()}}

    def run():
        _, cache = layer.apply(variables, inputs(), mutable=CACHE)
        return cache, layer.apply(variables | cache, jnp.ones([rows, D]), method="extend_step")

    cache, step = jax.eval_shape(run)
    assert cache["decoder_cache"]["ssm_state"].shape == (rows, N, D)
    assert step.shape == (rows, D)


@pytest.mark.parametrize("cls", [ssm.SSM, ssm.S5])
def test_outputs_are_of_the_computation_dtype(cls):
    """The outputs were float32 for bfloat16 inputs."""
    layer = build(cls, fprop_dtype=jnp.bfloat16)
    u = inputs().astype(jnp.bfloat16)
    made = jax.eval_shape(lambda: layer.init_with_output(KEY, u, mutable=["params", *CACHE]))
    assert made[0].dtype == jnp.bfloat16
    assert made[1]["decoder_cache"]["ssm_state"].dtype == jnp.complex64


def test_transform_reaches_the_state_without_a_time_axis():
    layer = build()
    variables = {"params": {name: jnp.float32(x) for name, x in params_of(ssm.SSM).items()}}
    cache = {"decoder_cache": {"ssm_state": jnp.arange(B * N * D).reshape(B, N, D) + 0j}}

    def repeat(x, batch_dim, time_dim):
        assert (batch_dim, time_dim) == (0, -1)
        return jnp.repeat(x, 2, axis=batch_dim)

    _, changed = layer.apply(
        variables | cache, repeat, method="transform_decode_state", mutable=CACHE
    )
    want = np.repeat(cache["decoder_cache"]["ssm_state"], 2, axis=0)
    np.testing.assert_array_equal(changed["decoder_cache"]["ssm_state"], want)


@pytest.mark.parametrize("cls", [ssm.SSM, ssm.S5])
@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"nheads": 0}, (B, T, D), "nheads is 0, expected at least 1"),
        ({"dim": 0}, (B, T, D), "dim is 0, expected at least 1"),
        ({"l_max": 0}, (B, T, D), "l_max is 0, expected at least 1"),
        ({"step_size": 0.0}, (B, T, D), r"step_size is 0\.0, expected above 0"),
        ({"decode_num_samples": -1}, (B, T, D), "decode_num_samples is -1, expected 0 or more"),
        ({"l_max": 6}, (B, T, D), r"shape \(2, 7, 3\).*longer than l_max = 6.*Set l_max to 7"),
        ({}, (B, T, 4), r"inputs have shape \(2, 7, 4\).*D = dim = 3"),
        ({}, (B, D), r"inputs have shape \(2, 3\), expected \[B, T, D\]\."),
    ],
)
def test_errors_name_the_layer_and_the_field(cls, fields, shape, message):
    layer = build(cls, **fields)
    with pytest.raises(ValueError, match=rf"{cls.__name__} 'ssm': .*{message}"):
        jax.eval_shape(lambda: layer.init(KEY, jnp.ones(shape)))


def test_steps_of_another_batch_are_refused():
    layer = build(decode_num_samples=2)
    u = inputs()
    variables = {"params": {name: jnp.float32(x) for name, x in params_of(ssm.SSM).items()}}
    cache = {"decoder_cache": {"ssm_state": jnp.zeros([4, N, D], jnp.complex64)}}
    with pytest.raises(
        ValueError, match=r"SSM 'ssm': extend_step.*batch of 2.*batch of 4.*decode_num_samples"
    ):
        layer.apply(variables | cache, u[:, 0], method="extend_step")
