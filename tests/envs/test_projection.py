"""Projections keep norms, are Haar-distributed, and permutations are enumerated without repeats."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.projection import nth_permutation, permutation_count, random_orthonormal


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 4), (8, 4), (24, 12), (7, 6)])
def test_columns_are_orthonormal(rows, columns):
    q = np.asarray(random_orthonormal(jax.random.key(0), rows, columns), np.float64)
    np.testing.assert_allclose(q.T @ q, np.eye(columns), atol=2e-6)


def test_projecting_to_fewer_dimensions_keeps_the_norm_in_expectation():
    keys = jax.random.split(jax.random.key(1), 2000)
    q = jax.vmap(lambda key: random_orthonormal(key, 3, 8))(keys)
    x = jnp.asarray(np.random.default_rng(0).normal(size=8), jnp.float32)
    ratio = np.asarray(jnp.sum((q @ x) ** 2, -1) / jnp.sum(x**2))
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(len(ratio))


def test_haar_moments():
    """For Haar Q in O(n): E q_ij = 0, E q_ij^2 = 1/n, E q_11^2 q_22^2 = (n+1)/(n(n-1)(n+2)), mean det 0."""
    n, count = 3, 20_000
    q = np.asarray(
        jax.vmap(lambda key: random_orthonormal(key, n, n))(jax.random.split(jax.random.key(2), count))
    )
    for i, j in itertools.product(range(n), range(n)):
        assert abs(q[:, i, j].mean()) < 5 / np.sqrt(n * count)
        assert abs((q[:, i, j] ** 2).mean() - 1 / n) < 5 * 0.3 / np.sqrt(count)
    expected = (n + 1) / (n * (n - 1) * (n + 2))
    assert abs((q[:, 0, 0] ** 2 * q[:, 1, 1] ** 2).mean() - expected) < 5 * 0.15 / np.sqrt(count)
    assert abs(np.linalg.det(q.astype(np.float64)).mean()) < 5 / np.sqrt(count)


def test_permutations_are_enumerated():
    assert permutation_count(4) == 24
    table = np.asarray(jax.vmap(lambda i: nth_permutation(i, 4))(jnp.arange(24)))
    assert {tuple(row) for row in table.tolist()} == set(itertools.permutations(range(4)))


def test_long_permutations_stay_distinct_within_int32():
    count = permutation_count(52)
    assert 2**20 < count < 2**31
    some = jnp.asarray([0, 1, 2, count // 2, count - 2, count - 1])
    table = np.asarray(jax.vmap(lambda i: nth_permutation(i, 52))(some))
    assert len({tuple(row) for row in table.tolist()}) == len(some)
    assert all(sorted(row) == list(range(52)) for row in table.tolist())
