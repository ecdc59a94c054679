"""Projections keep norms, are Haar-distributed, and permutations are enumerated without repeats."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.projection import (
    nth_permutation,
    nth_word,
    permutation_count,
    random_orthonormal,
    scattered,
    word_count,
    word_matrix,
)


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


def test_reduced_words_are_enumerated():
    """Against all strings of letters in which none is followed by its inverse."""
    for n, length in ((2, 1), (2, 3), (3, 2)):
        words = itertools.product(range(2 * n), repeat=length)
        wanted = {w for w in words if all(a ^ 1 != b for a, b in itertools.pairwise(w))}
        assert word_count(n, length) == len(wanted)
        found = jax.vmap(lambda i, n=n, k=length: nth_word(i, n, k))(jnp.arange(len(wanted)))
        assert {tuple(word) for word in found.tolist()} == wanted


def test_long_words_stay_distinct_and_reduced_and_their_last_letters_are_drawn():
    index = jnp.asarray([0, 1, 2, 2**29, 2**30 - 2, 2**30 - 1])
    keys = jax.random.split(jax.random.key(0), 6)
    words = np.asarray(jax.vmap(lambda i, key: nth_word(i, 2, 40, key))(index, keys))
    assert words.shape == (6, 40)
    assert (words[:, 1:] != words[:, :-1] ^ 1).all()
    assert len({tuple(word) for word in words.tolist()}) == 6
    assert set(words[:, 25:].ravel().tolist()) == {0, 1, 2, 3}


def test_a_words_matrix_is_the_product_of_its_letters():
    a, b = generators = jax.vmap(lambda key: random_orthonormal(key, 4, 4))(
        jax.random.split(jax.random.key(5), 2)
    )
    with jax.default_matmul_precision("highest"):
        by_hand = a @ b.T @ a @ a  # the word a b^-1 a a
    found = word_matrix(jnp.asarray([0, 3, 0, 0]), generators, 4, 4)
    np.testing.assert_allclose(found, by_hand, atol=1e-5)
    # a homomorphism: a word followed by its inverse, backwards, is the identity
    undone = jnp.asarray([0, 3, 0, 0, 1, 1, 2, 1])
    np.testing.assert_allclose(word_matrix(undone, generators, 4, 4), np.eye(4), atol=1e-5)
    np.testing.assert_array_equal(word_matrix(jnp.asarray([0, 3, 0, 0]), generators, 4, 2), found[:, :2])
    fewer = word_matrix(jnp.asarray([0, 3, 0, 0]), generators, 2, 4)
    np.testing.assert_allclose(fewer @ fewer.T, 2 * np.eye(2), atol=1e-5)


@pytest.mark.parametrize("size", [2, 5, 36, 1000, 4097])
def test_a_scattering_is_a_permutation(size):
    order = np.asarray(jax.vmap(lambda i: scattered(i, size))(jnp.arange(size)))
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_a_scattering_parts_neighbours():
    size = 2**30
    few = np.asarray(jax.vmap(lambda i: scattered(i, size))(jnp.arange(1000))).astype(float)
    assert len(set(few.tolist())) == 1000
    assert few.min() < 0.02 * size
    assert few.max() > 0.98 * size
    assert abs(few.mean() / size - 0.5) < 0.05
