"""Policies: densities against scipy, levels against enumeration, and actions at the edge of the box."""

import itertools

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


def test_levels_agree_with_the_table_of_all_joint_actions():
    policy = make_policy(BOX, levels=3)
    assert policy.num_params == 6
    params = jax.random.normal(jax.random.key(0), (2, 5, 6))
    joint = jnp.asarray(list(itertools.product(range(3), repeat=2)))  # [9, 2]
    raw = jnp.broadcast_to(joint[:, None, None], (9, 2, 5, 2))
    log_prob = jax.vmap(policy.log_prob, (None, 0))(params, raw)
    table = np.exp(np.asarray(log_prob, np.float64))  # [9, 2, 5]
    np.testing.assert_allclose(table.sum(0), 1.0, rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(params), stats.entropy(table), rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(params), joint[table.argmax(0)])
    by_hand = jax.nn.softmax(params[1, 2].reshape(2, 3))  # first action's three, then the second's
    np.testing.assert_allclose(table[5, 1, 2], by_hand[0, 1] * by_hand[1, 2], rtol=1e-5)


def test_levels_are_drawn_as_often_as_the_policy_says():
    policy = make_policy(BOX, levels=3)
    probabilities = np.asarray([[0.2, 0.5, 0.3], [0.05, 0.05, 0.9]])
    noise = policy.noise(jax.random.key(0), 4000)
    draws = policy.draw(noise, jnp.log(jnp.asarray(probabilities)).reshape(6))
    assert draws.shape == (4000, 2)
    both = np.bincount(np.asarray(draws) @ [3, 1], minlength=9).reshape(3, 3) / 4000
    np.testing.assert_allclose(both, np.outer(*probabilities), atol=0.03)  # one without the other


@pytest.mark.parametrize("levels", [2, 3, 9])
def test_levels_are_even_and_hold_both_ends_exactly(levels):
    policy = make_policy(BOX, levels)
    raw = jnp.stack([jnp.arange(levels), jnp.arange(levels)[::-1]], -1)
    found = np.asarray(jax.jit(policy.to_env)(raw))
    np.testing.assert_array_equal(found[[0, -1]], [[-1.0, 1.0], [1.0, -1.0]])
    np.testing.assert_allclose(found[:, 0], np.linspace(-1, 1, levels), atol=1e-6)


def test_what_speaks_for_a_level():
    params = jnp.asarray([1.0, 2.0, 6.0, 0.0, 0.0, 3.0])
    assert make_policy(BOX, levels=3).preference(params, jnp.asarray([2, 0])) == 3.0 - 1.0


@pytest.mark.parametrize(
    ("action", "levels", "says"),
    [
        (BOX, 1, "network.action_levels=1 must be at least 2, or null"),
        (Discrete(3), 5, "network.action_levels=5 is for continuous actions.*use network.action_levels=null"),
    ],
)
def test_levels_that_cannot_be_get_a_sentence(action, levels, says):
    with pytest.raises(ValueError, match=says):
        make_policy(action, levels)


def test_uniform_actions_fill_the_space():
    key = jax.random.key(0)
    assert set(uniform_action(key, Discrete(4), 200).tolist()) == {0, 1, 2, 3}
    box = np.asarray(uniform_action(key, BOX, 500))
    assert box.shape == (500, 2)
    assert box.min() < -0.95
    assert box.max() > 0.95
    assert np.abs(box).max() <= 1


def test_what_a_policy_does_on_average():
    logits = jnp.log(jnp.asarray([0.2, 0.5, 0.3]))
    np.testing.assert_allclose(make_policy(Discrete(3)).expected(logits), [0.2, 0.5, 0.3], rtol=1e-5)
    np.testing.assert_allclose(
        make_policy(BOX).expected(jnp.asarray([0.3, -2.0, 0.0, 0.0])), np.tanh([0.3, -2.0]), rtol=1e-5
    )
    both = jnp.concatenate([logits, jnp.log(jnp.asarray([1.0, 1.0, 2.0]))])
    np.testing.assert_allclose(make_policy(BOX, 3).expected(both), [0.1, 0.25], rtol=1e-5)


def test_cross_entropy_with_what_is_wanted():
    """By hand: discrete, levels hit and missed, and a Gaussian before squashing."""
    probabilities = np.asarray([0.2, 0.5, 0.3])
    logits = jnp.log(jnp.asarray(probabilities, jnp.float32))
    wanted = jnp.asarray([0.5, 0.5, 0.0])
    expected = -(0.5 * np.log(0.2) + 0.5 * np.log(0.5))
    np.testing.assert_allclose(make_policy(Discrete(3)).cross_entropy(logits, wanted), expected, rtol=1e-5)

    both = jnp.concatenate([logits, logits])
    levels = make_policy(BOX, 3)
    # -1 is the first level; .25 lies between 0 and 1, three quarters of it the former
    expected = -np.log(0.2) - (0.75 * np.log(0.5) + 0.25 * np.log(0.3))
    np.testing.assert_allclose(levels.cross_entropy(both, jnp.asarray([-1.0, 0.25])), expected, rtol=1e-5)
    np.testing.assert_allclose(levels.cross_entropy(both, jnp.asarray([-7.0, 0.25])), expected, rtol=1e-5)

    params = jnp.asarray([0.3, -0.2, np.log(0.5), np.log(0.8)])
    raw = np.arctanh([0.5, 0.99])
    expected = -stats.norm([0.3, -0.2], [0.5, 0.8]).logpdf(raw).sum()
    got = make_policy(BOX).cross_entropy(params, jnp.asarray([0.5, 1.0]))
    np.testing.assert_allclose(got, expected, rtol=1e-4)


@pytest.mark.parametrize(("action", "levels"), [(Discrete(3), None), (BOX, 5), (BOX, None)])
def test_cross_entropy_is_least_where_the_policy_does_what_is_wanted(action, levels):
    """Following its gradient brings a policy to what another does on average."""
    policy = make_policy(action, levels)
    keys = jax.random.split(jax.random.key(0))
    params, other = (jax.random.normal(key, (policy.num_params,)) for key in keys)
    wanted = policy.expected(other)
    step = jax.jit(lambda p: p - jax.grad(policy.cross_entropy)(p, wanted))
    for _ in range(1000):
        params = step(params)
    np.testing.assert_allclose(policy.expected(params), wanted, atol=0.02)
