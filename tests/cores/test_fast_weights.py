"""Fast weights against the rule written out, and what the rule promises of keys."""

import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import make_core
from resetta.cores.fast_weights import delta_rule

T, B, H, K, V = 6, 2, 2, 4, 3
rng = np.random.default_rng(0)
QUERY, KEY = (rng.normal(size=(T, B, H, K)).astype(np.float32) for _ in range(2))
KEY /= np.linalg.norm(KEY, axis=-1, keepdims=True)
VALUE = rng.normal(size=(T, B, H, V)).astype(np.float32)
RATE, KEEP = (rng.uniform(size=(T, B, H)).astype(np.float32) for _ in range(2))
BEFORE = rng.normal(size=(B, H, K, V)).astype(np.float32)
RESET = np.zeros((T, B), bool)
RESET[3, 1] = True


def test_the_rule_is_that_of_the_paper():
    # S_t = S_{t-1} (g (I − β k k')) + β v k', with S of values by keys
    after, read = delta_rule(QUERY, KEY, VALUE, RATE, KEEP, RESET, BEFORE)
    for b in range(B):
        for h in range(H):
            matrix = BEFORE[b, h].T.astype(np.float64)
            for t in range(T):
                k, beta = KEY[t, b, h], RATE[t, b, h]
                matrix = np.zeros_like(matrix) if RESET[t, b] else matrix
                matrix = matrix @ (KEEP[t, b, h] * (np.eye(K) - beta * np.outer(k, k)))
                matrix = matrix + beta * np.outer(VALUE[t, b, h], k)
                np.testing.assert_allclose(read[t, b, h], matrix @ QUERY[t, b, h], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(after[b, h], matrix.T, rtol=1e-4, atol=1e-5)


def test_a_key_reads_what_was_written_last_and_others_keep_theirs():
    key = np.eye(K, dtype=np.float32)[[0, 1, 2, 1, 0, 3]][:, None, None].repeat(B, 1).repeat(H, 2)
    ones = jnp.ones((T, B, H))
    query = np.eye(K, dtype=np.float32)[[0, 1, 2, 1, 0, 1]][:, None, None].repeat(B, 1).repeat(H, 2)
    _, read = delta_rule(query, key, VALUE, ones, ones, np.zeros((T, B), bool), BEFORE)
    np.testing.assert_allclose(read[:5], VALUE[:5], atol=1e-6)
    np.testing.assert_allclose(read[5], VALUE[3], atol=1e-6)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="features=10 cannot be cut into num_heads=4 heads; use a multiple"):
        make_core("fast_weights", features=10)
