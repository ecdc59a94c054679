"""Running statistics equal those of everything at once, and a bad batch leaves them alone."""

import jax.numpy as jnp
import numpy as np

from resetta.agents.normalize import add, no_statistics, normalize


def test_batches_add_up():
    rng = np.random.default_rng(0)
    batches = [rng.normal(3, 2, size=(5, 4, 2)).astype(np.float32) for _ in range(6)]
    statistics = no_statistics((2,))
    for batch in batches:
        statistics = add(statistics, jnp.asarray(batch))
    every = np.concatenate([b.reshape(-1, 2) for b in batches]).astype(np.float64)
    np.testing.assert_allclose(statistics.mean, every.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics.std, every.std(0), rtol=1e-5)


def test_nothing_seen_changes_nothing():
    x = jnp.asarray([[50.0, -70.0]])
    np.testing.assert_array_equal(normalize(no_statistics((2,)), x), x)


def test_values_far_out_are_clipped():
    statistics = add(no_statistics(()), jnp.asarray([[-1.0, 1.0]]))  # mean 0, spread 1
    x = jnp.asarray([-70.0, -3.0, 30.0])
    np.testing.assert_allclose(normalize(statistics, x), [-10.0, -3.0, 10.0], rtol=1e-6)
    np.testing.assert_allclose(normalize(statistics, x, 50.0), [-50.0, -3.0, 30.0], rtol=1e-6)


def test_a_bad_batch_is_left_out():
    good = add(no_statistics(()), jnp.arange(4.0).reshape(2, 2))
    after = add(good, jnp.asarray([[1.0, jnp.nan]]))
    np.testing.assert_array_equal(after.mean, good.mean)
    np.testing.assert_array_equal(after.std, good.std)
