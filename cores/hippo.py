"""Where the eigenvalues of a diagonal state space begin: HiPPO-LegS' normal part, S4D-Lin and S4D-Real.

Everything is computed once in NumPy float64 and cached; the arrays are read-only.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SPECTRA = ("hippo", "lin", "real")


def normal_legs(size: int) -> NDArray[np.float64]:
    """HiPPO-LegS' normal part A + p pᵀ as `[size, size]`, p_n = sqrt(n + 1/2) (arXiv 2208.04933, App. B.1.1).

    It is -1/2 on the diagonal plus a skew-symmetric matrix, so it is normal and all its eigenvalues have the
    real part -1/2.
    """
    p = np.sqrt(np.arange(size) + 0.5)
    half = np.tril(np.outer(p, p), -1)  # A_nk = -2 p_n p_k below the diagonal, 0 above; p pᵀ adds p_n p_k
    return half.T - half - 0.5 * np.eye(size)


@lru_cache
def diagonal(
    spectrum: str, state_size: int, blocks: int = 1, conj_sym: bool = True
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Eigenvalues `[P]` and orthonormal eigenvectors `[state_size, P]` of a real state matrix.

    The matrix is block diagonal: `blocks` copies of one block of `state_size / blocks` real states. Its
    eigenvalues come in conjugate pairs; with `conj_sym` only the one with imaginary part ≥ 0 is kept
    (P = state_size / 2: the other adds nothing but its conjugate to a real output), otherwise P = state_size.

    `spectrum`: `hippo` is the normal part of HiPPO-LegS (arXiv 2208.04933); `lin` has λ_n = -1/2 + iπn and
    `real` λ_n = -(n+1) (S4D-Lin and S4D-Real, arXiv 2206.11893), n counting the pairs of a block; their
    matrix is made of 2x2 rotations.

    Raises `ValueError` for an unknown `spectrum` and for a size that is not made of blocks of whole pairs.
    """
    if spectrum not in SPECTRA:
        raise ValueError(f"unknown spectrum {spectrum!r}; choose from {', '.join(SPECTRA)}")
    if blocks < 1 or state_size < 2 * blocks or state_size % (2 * blocks):
        raise ValueError(
            f"state_size={state_size} is not divisible into blocks={blocks} of an even size; "
            f"use a multiple of {2 * max(blocks, 1)}"
        )
    size = state_size // blocks
    values, vectors = _legs(size) if spectrum == "hippo" else _rotations(spectrum, size)
    if conj_sym:
        values, vectors = values[size // 2 :], vectors[:, size // 2 :]
    values, vectors = np.tile(values, blocks), np.kron(np.eye(blocks), vectors).astype(complex)
    values.flags.writeable = vectors.flags.writeable = False
    return values, vectors


def _legs(size: int) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    # eigh of the Hermitian -i(A + 1/2): exactly unitary vectors, frequencies in ascending order.
    frequency, vectors = np.linalg.eigh(-1j * (normal_legs(size) + 0.5 * np.eye(size)))
    return (-0.5 + 1j * frequency).astype(complex), vectors


def _rotations(spectrum: str, size: int) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    n = np.arange(size // 2)
    values = -0.5 + 1j * np.pi * n if spectrum == "lin" else -(n + 1.0) + 0j
    # [[a, -b], [b, a]] has the eigenvector (1, -i)/√2 for a + ib, and its conjugate for a - ib.
    vectors = np.kron(np.eye(size // 2), np.array([[1.0], [-1j]]) / np.sqrt(2))
    both = np.concatenate([values.conj(), values]), np.concatenate([vectors.conj(), vectors], axis=1)
    return both[0].astype(complex), both[1].astype(complex)
