import numpy as np
import pytest

from resetta.cores.hippo import SPECTRA, diagonal, normal_legs


def test_normal_legs_is_legs_plus_its_rank_one_correction():
    n = 6
    legs = np.zeros((n, n))
    for i in range(n):
        for k in range(i):
            legs[i, k] = -np.sqrt(2 * i + 1) * np.sqrt(2 * k + 1)
        legs[i, i] = -(i + 1)
    p = np.sqrt(np.arange(n) + 0.5)
    np.testing.assert_allclose(normal_legs(n), legs + np.outer(p, p), atol=1e-12)


@pytest.mark.parametrize(("size", "blocks"), [(2, 1), (16, 1), (64, 1), (24, 3)])
def test_hippo_diagonalises_the_normal_part(size, blocks):
    matrix = np.kron(np.eye(blocks), normal_legs(size // blocks))
    values, vectors = diagonal("hippo", size, blocks, conj_sym=False)
    np.testing.assert_allclose(values.real, -0.5, atol=1e-9)
    np.testing.assert_allclose(vectors.conj().T @ vectors, np.eye(size), atol=1e-9)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.conj().T, matrix, atol=1e-9)


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize(("size", "blocks"), [(2, 1), (16, 1), (24, 3)])
def test_the_half_and_its_conjugate_are_the_whole(spectrum, size, blocks):
    values, vectors = diagonal(spectrum, size, blocks, conj_sym=False)
    half, basis = diagonal(spectrum, size, blocks)
    assert half.shape == (size // 2,)
    assert basis.shape == (size, size // 2)
    assert (half.imag >= 0).all()
    np.testing.assert_allclose(basis.conj().T @ basis, np.eye(size // 2), atol=1e-9)
    both = np.concatenate([half, half.conj()]), np.concatenate([basis, basis.conj()], 1)
    whole = vectors @ np.diag(values) @ vectors.conj().T
    np.testing.assert_allclose(whole.imag, 0, atol=1e-9)
    np.testing.assert_allclose(both[1] @ np.diag(both[0]) @ both[1].conj().T, whole, atol=1e-9)


def test_lin_and_real_count_within_a_block():
    np.testing.assert_allclose(diagonal("lin", 12, 2)[0], [-0.5 + 1j * np.pi * n for n in (0, 1, 2)] * 2)
    np.testing.assert_allclose(diagonal("real", 12, 2)[0], [-1, -2, -3] * 2)


def test_cached_arrays_cannot_be_changed():
    values, vectors = diagonal("hippo", 8)
    assert diagonal("hippo", 8)[0] is values
    for array in (values, vectors):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_errors_name_the_value_and_the_cure():
    with pytest.raises(ValueError, match="unknown spectrum 'legt'; choose from hippo, lin, real"):
        diagonal("legt", 8)
    for size, blocks in ((7, 1), (12, 4), (0, 1), (8, 0)):
        with pytest.raises(ValueError, match=f"state_size={size} is not divisible into blocks={blocks}"):
            diagonal("hippo", size, blocks)
