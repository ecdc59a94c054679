"""Stateless CartPole and Pendulum: POPGym's rewards, limits and noise, and that memory solves them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.controllers import controller
from resetta.envs.registry import make_env
from resetta.envs.scores import trial_returns

LIMITS = {"easy": (200, 200), "medium": (400, 150), "hard": (600, 100)}
NOISE = {"easy": 0.1, "medium": 0.2, "hard": 0.3}


@pytest.mark.parametrize("grade", LIMITS)
def test_limits_spaces_and_noise_are_popgyms(grade):
    cart, swing = make_env(f"stateless_cartpole_{grade}"), make_env(f"stateless_pendulum_{grade}")
    assert (cart.max_steps, swing.max_steps) == LIMITS[grade]
    assert cart.observation_shape == swing.observation_shape == (2,)
    for name in ("cartpole", "pendulum"):
        noisy = make_env(f"noisy_stateless_{name}_{grade}")
        assert (noisy.max_steps, noisy.params.noise) == (200, NOISE[grade])
    high = make_env("noisy_stateless_cartpole_easy").env.observation_space(cart.params).high
    np.testing.assert_allclose(high, [4.8, 0.41887903], rtol=1e-6)


def test_only_positions_are_seen():
    for name, hidden in {
        "stateless_cartpole_easy": ("x_dot", "theta_dot"),
        "stateless_pendulum_easy": ("theta_dot",),
    }.items():
        base_env = make_env(name)
        _, state = base_env.reset(jax.random.key(0), base_env.params)
        other = state.replace(**{field: getattr(state, field) + 1 for field in hidden})
        np.testing.assert_array_equal(base_env.env.get_obs(state), base_env.env.get_obs(other))


def test_pendulum_rewards_are_scaled_to_the_unit_interval():
    base_env, plain = make_env("stateless_pendulum_hard"), make_env("pendulum")
    _, state = plain.reset(jax.random.key(1), plain.params)
    key, action = jax.random.key(2), jnp.array([1.5])
    raw, scaled = (env.step(key, state, action, env.params)[2] for env in (plain, base_env))
    np.testing.assert_allclose(scaled, (1 + raw / 8.1368022) / 100, rtol=1e-5)
    worst = state.replace(theta=jnp.float32(np.pi), theta_dot=jnp.float32(8.0))
    np.testing.assert_allclose(
        base_env.step(key, worst, jnp.array([2.0]), base_env.params)[2], -0.01, rtol=1e-4
    )


@pytest.mark.parametrize("grade", LIMITS)
def test_remembering_positions_balances_the_pole_for_ever(grade):
    base_env = make_env(f"stateless_cartpole_{grade}")
    made = controller(base_env)
    assert made is not None
    returns = trial_returns(base_env, made.initial, lambda c, _, o: made.act(c, o), 64, 5)
    np.testing.assert_allclose(returns, 1.0, atol=1e-4)


def test_without_memory_the_same_law_drops_the_pole():
    base_env = make_env("stateless_cartpole_easy")
    returns = trial_returns(
        base_env, (), lambda c, _, o: (c, (0.1 * o[0] + 5 * o[1] > 0).astype(jnp.int32)), 256, 0
    )
    assert returns.max() < 0.5


def test_remembering_swings_the_pendulum_up():
    base_env = make_env("stateless_pendulum_easy")
    made = controller(base_env)
    assert made is not None
    returns = trial_returns(base_env, made.initial, lambda c, _, o: made.act(c, o), 128, 5)
    assert returns.mean() > 0.85  # Pendulum's own -140 to -165 is .89 to .91 on this scale


def observations(name, count, **options):
    """First and second observation of many trials from one true state each: [2, count, 2]."""
    base_env = make_env(name, **options)

    def two(key):
        _, state = base_env.reset(jax.random.key(7), base_env.params)
        noisy_first = base_env.env.observe(key, state, None, base_env.params)
        action = jnp.zeros(base_env.env.action_space(base_env.params).shape, jnp.int32)
        return noisy_first, base_env.step(key, state, action, base_env.params)[0]

    return jnp.stack(jax.jit(jax.vmap(two))(jax.random.split(jax.random.key(0), count)))


def test_noise_has_the_stated_deviation_where_nothing_is_clipped():
    seen = observations("noisy_stateless_cartpole_easy", 20_000, noise=0.05)
    np.testing.assert_allclose(seen.std(1), 0.05, rtol=0.03)
    correlation = np.corrcoef(np.asarray(seen[0]).T)[0, 1]
    assert abs(correlation) < 0.04


def test_noise_is_clipped_to_the_observation_space():
    cart = observations("noisy_stateless_cartpole_hard", 5_000)
    assert np.abs(cart[..., 1]).max() == np.float32(0.41887903)
    swing = observations("noisy_stateless_pendulum_hard", 5_000)
    assert np.abs(swing).max() == 1.0


def test_noise_does_not_touch_the_physics():
    quiet, noisy = make_env("stateless_cartpole_easy"), make_env("noisy_stateless_cartpole_hard")
    _, state = quiet.reset(jax.random.key(0), quiet.params)
    after = [env.step(jax.random.key(1), state, jnp.int32(1), env.params)[1] for env in (quiet, noisy)]
    assert after[0] == after[1]


@pytest.mark.parametrize("task", ["cartpole", "pendulum"])
def test_filtering_beats_acting_on_the_last_observation(task):
    base_env = make_env(f"noisy_stateless_{task}_medium")
    filtered, naive = controller(base_env), controller(make_env(f"stateless_{task}_easy"))
    assert filtered is not None
    assert naive is not None
    good = trial_returns(base_env, filtered.initial, lambda c, _, o: filtered.act(c, o), 128, 3)
    bad = trial_returns(base_env, naive.initial, lambda c, _, o: naive.act(c, o), 128, 3)
    assert good.mean() > bad.mean() + 0.2
