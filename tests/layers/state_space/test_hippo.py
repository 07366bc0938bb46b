"""HiPPO matrices and the poles that layers start from."""

import numpy as np
import pytest

from praxis.layers import ssm
from praxis.layers.state_space.hippo import diagonal_poles

N = 5


def test_legs_matrix_has_the_entries_of_the_paper():
    """Gu et al. 2020, theorem 2: -sqrt((2i+1)(2j+1)) below the diagonal, -(i+1) on it."""
    a = np.asarray(ssm.make_hippo(N, "LegS"))
    for i in range(N):
        for j in range(N):
            want = {-1: -np.sqrt((2 * i + 1) * (2 * j + 1)), 0: -(i + 1.0), 1: 0.0}[np.sign(j - i)]
            np.testing.assert_allclose(a[i, j], want, rtol=2e-5)


def test_lagt_matrix_is_minus_one_up_to_the_diagonal():
    np.testing.assert_array_equal(ssm.make_hippo(N, "LagT"), -np.tril(np.ones([N, N])))


@pytest.mark.parametrize("kind", ["LegS", "LagT"])
def test_low_rank_term_makes_the_matrix_normal(kind):
    """A + P P^T commutes with its transpose, and V diagonalises it; B and P are rotated by V."""
    a, p, b = (np.float64(x) for x in ssm.make_nplr_hippo(N, kind))
    normal = a + np.outer(p, p)
    np.testing.assert_allclose(normal @ normal.T, normal.T @ normal, rtol=2e-5, atol=2e-5)
    poles, p_in_basis, b_in_basis, basis = (
        np.asarray(x, np.complex128) for x in ssm.make_dplr_hippo(N, kind)
    )
    frequencies = np.imag(poles) / (N if kind == "LagT" else 1)
    rebuilt = basis @ np.diag(np.real(poles) + 1j * frequencies) @ basis.conj().T
    np.testing.assert_allclose(rebuilt, normal, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(basis @ p_in_basis, p, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(basis @ b_in_basis, b, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(np.real(poles), -0.5, rtol=2e-5)
    assert (np.diff(np.imag(poles)) > 0).all()


@pytest.mark.parametrize("hippo_type", ["ss4d-1d-legs", "ss4d-1d-lagt"])
def test_layers_take_the_poles_of_the_matrix_that_the_name_ends_in(hippo_type):
    kind = {"legs": "LegS", "lagt": "LagT"}[hippo_type[-4:]]
    want = ssm.make_dplr_hippo(N, kind)[0]
    np.testing.assert_allclose(diagonal_poles(N, hippo_type), want, rtol=2e-6)


def test_other_names_give_evenly_spaced_frequencies():
    poles = diagonal_poles(N, "ss4d-1d")
    start, step = -np.pi / 2 * (N - 1), np.pi / N * (N - 1)
    np.testing.assert_allclose(
        np.imag(poles), np.arange(start, start + step * (N - 0.5), step), 2e-5
    )
    np.testing.assert_array_equal(np.real(poles), np.float32(-0.5))


def test_one_pole_is_real_and_finite():
    """A state of one number fell into a division by 0."""
    np.testing.assert_array_equal(diagonal_poles(1, "ss4d-1d"), [-0.5])


def test_unknown_matrix_is_refused():
    with pytest.raises(ValueError, match=r"hippo_type is 'LegT', expected one of \['LegS', 'LagT'"):
        ssm.make_hippo(3, "LegT")
