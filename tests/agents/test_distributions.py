"""Policies: densities against scipy, and actions at the edge of the box."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from resetta.agents.distributions import make_policy, uniform_action
from resetta.envs import Continuous, Discrete

BOX = Continuous(2, (-1.0, -1.0), (1.0, 1.0))


def test_categorical():
    policy = make_policy(Discrete(3))
    logits = jnp.log(jnp.asarray([[0.2, 0.5, 0.3]]))
    np.testing.assert_allclose(policy.log_prob(logits, jnp.asarray([2])), [np.log(0.3)], rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(logits), [stats.entropy([0.2, 0.5, 0.3])], rtol=1e-5)
    assert policy.mode(logits).tolist() == [1]
    draws = policy.draw(policy.noise(jax.random.key(0), 4000), logits)
    np.testing.assert_allclose(np.bincount(draws, minlength=3) / 4000, [0.2, 0.5, 0.3], atol=0.03)


def test_gaussian_draws_have_the_mean_and_spread_of_the_policy():
    policy = make_policy(BOX)
    draws = policy.draw(
        policy.noise(jax.random.key(0), 4000), jnp.asarray([0.3, -0.2, np.log(0.5), np.log(0.8)])
    )
    np.testing.assert_allclose(draws.mean(0), [0.3, -0.2], atol=0.04)
    np.testing.assert_allclose(draws.std(0), [0.5, 0.8], atol=0.03)


def test_squashed_gaussian_density_is_that_of_the_squashed_action():
    policy = make_policy(BOX)
    params = jnp.asarray([0.3, -0.2, np.log(0.5), np.log(0.8)])
    raw = jnp.asarray([0.4, -1.0])
    gaussian = stats.norm([0.3, -0.2], [0.5, 0.8]).logpdf(raw).sum()
    expected = gaussian - np.log(1 - np.tanh(np.asarray(raw, np.float64)) ** 2).sum()
    np.testing.assert_allclose(policy.log_prob(params, raw), expected, rtol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 0.7, -3.0])
@pytest.mark.parametrize("std", [0.01, 0.3, 1.0, 2.7])
def test_entropy_is_that_of_the_squashed_action(mean, std):
    """Against the integral of -p log p over the raw action; largest for actions that fill the box evenly."""
    raw = mean + std * np.linspace(-9, 9, 20_001)
    gaussian = stats.norm(mean, std)
    log_density = gaussian.logpdf(raw) - 2 * (np.log(2) - raw - np.logaddexp(0, -2 * raw))
    expected = -np.trapezoid(gaussian.pdf(raw) * log_density, raw)
    entropy = make_policy(Continuous(1, (-1.0,), (1.0,))).entropy(jnp.asarray([mean, np.log(std)]))
    np.testing.assert_allclose(entropy, expected, atol=0.05)
    assert expected <= np.log(2)


def test_entropy_of_several_actions_is_the_sum_and_draws_means_back():
    both = make_policy(BOX).entropy(jnp.asarray([0.3, -2.0, np.log(0.5), np.log(0.8)]))
    one = make_policy(Continuous(1, (-1.0,), (1.0,)))
    parts = [one.entropy(jnp.asarray([m, np.log(s)])) for m, s in ((0.3, 0.5), (-2.0, 0.8))]
    np.testing.assert_allclose(both, sum(parts), rtol=1e-5)
    assert jax.grad(one.entropy)(jnp.asarray([2.0, 0.0]))[0] < -0.5


def test_density_integrates_to_one_over_the_box():
    policy = make_policy(Continuous(1, (-1.0,), (1.0,)))
    action = np.linspace(-1, 1, 200_001)[1:-1]
    raw = jnp.asarray(np.arctanh(action), jnp.float32)[:, None]
    density = np.exp(np.asarray(policy.log_prob(jnp.asarray([0.2, np.log(0.7)]), raw), np.float64))
    np.testing.assert_allclose(np.trapezoid(density, action), 1.0, atol=2e-3)


def test_the_edge_of_the_box_is_finite_in_value_and_gradient():
    policy = make_policy(BOX)
    raw = jnp.asarray([30.0, -30.0])  # tanh is exactly ±1 in float32
    assert np.abs(policy.to_env(raw)).tolist() == [1.0, 1.0]
    value, gradient = jax.value_and_grad(lambda p: policy.log_prob(p, raw))(jnp.zeros(4))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_uniform_actions_fill_the_space():
    key = jax.random.key(0)
    assert set(uniform_action(key, Discrete(4), 200).tolist()) == {0, 1, 2, 3}
    box = np.asarray(uniform_action(key, BOX, 500))
    assert box.shape == (500, 2)
    assert box.min() < -0.95
    assert box.max() > 0.95
    assert np.abs(box).max() <= 1
