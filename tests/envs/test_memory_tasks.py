"""Environments whose task is part of the parameters, and the light ones beside them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.controllers import controller
from resetta.envs.registry import make_env
from resetta.envs.scores import score, trial_returns


def test_dark_room_enumerates_every_goal_once():
    room = make_env("dark_room")
    env = room.env
    goals = jax.jit(jax.vmap(lambda index: env.indexed_task_params(index, room.params).goal))(jnp.arange(81))
    assert env.num_tasks == 81  # pyright: ignore
    assert sorted(map(tuple, goals.tolist())) == list(itertools.product(range(9), range(9)))


def test_dark_room_pays_on_the_goal_and_has_walls():
    room = make_env("dark_room", goal=[0, 3])
    observation, state = room.reset(jax.random.key(0), room.params)
    assert int(jnp.argmax(observation)) == 4 * 9 + 4  # the centre
    rewards, cells = [], []
    for action in [2, 2, 2, 2, 2, 4, 0, 3]:  # up to and against the wall, left, stay, right
        observation, state, reward, terminated, truncated = room.step(
            jax.random.key(0), state, jnp.int32(action), room.params
        )
        rewards.append(float(reward))
        cells.append(divmod(int(jnp.argmax(observation)), 9))
    assert cells == [(3, 4), (2, 4), (1, 4), (0, 4), (0, 4), (0, 3), (0, 3), (0, 4)]
    assert rewards == [0, 0, 0, 0, 0, 1, 1, 0]
    assert not terminated
    assert not truncated


def test_dark_rooms_best_trial():
    # A policy that knows the goal, over all 81 goals, against the closed form.
    room = make_env("dark_room")

    def trial(index):
        params = room.env.indexed_task_params(index, room.params)
        _, state = room.reset(jax.random.key(0), params)

        def step(state, _):
            gap = params.goal - state.position
            action = jnp.where(
                gap[0] > 0, 1, jnp.where(gap[0] < 0, 2, jnp.where(gap[1] > 0, 3, jnp.where(gap[1] < 0, 4, 0)))
            )
            out = room.step(jax.random.key(0), state, action, params)
            return out[1], (out[2], out[4])

        return jax.lax.scan(step, state, None, room.max_steps)[1]

    rewards, truncated = jax.jit(jax.vmap(trial))(jnp.arange(81))
    assert rewards.sum(1).mean() == pytest.approx(20 - 40 / 9 + 80 / 81, abs=1e-4)
    assert rewards.sum(1).mean() == pytest.approx(score("dark_room").reference, abs=1e-4)
    assert truncated[:, -1].all()
    assert not truncated[:, :-1].any()


def test_bandit_pays_what_its_arms_say():
    bandit = make_env("bernoulli_bandit")
    params = bandit.params.replace(arm_probabilities=jnp.array([0.0, 0.2, 0.5, 0.9, 1.0]))
    _, state = bandit.reset(jax.random.key(0), params)

    def pull(key, arm):
        return bandit.step(key, state, arm, params)[2]

    keys = jax.random.split(jax.random.key(1), 4000)
    means = jax.jit(jax.vmap(jax.vmap(pull, (0, None)), (None, 0)))(keys, jnp.arange(5)).mean(1)
    np.testing.assert_allclose(means, [0, 0.2, 0.5, 0.9, 1], atol=5 * 0.5 / np.sqrt(4000))
    assert means[0] == 0
    assert means[4] == 1


def test_bandit_tasks_are_uniform_and_the_best_arm_is_worth_five_sixths():
    bandit = make_env("bernoulli_bandit")
    keys = jax.random.split(jax.random.key(0), 20_000)
    arms = jax.vmap(lambda key: bandit.sample_task(key, bandit.params).arm_probabilities)(keys)
    np.testing.assert_allclose(np.quantile(arms, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.01)
    assert arms.max(1).mean() * 10 == pytest.approx(score("bernoulli_bandit").reference, abs=0.03)
    assert bandit.observation_shape == (1,)
    assert bandit.max_steps == 10


def test_catch_starts_falling_and_scales_its_observation():
    catch = make_env("cartpole_catch")
    observation, state = jax.vmap(lambda key: catch.reset(key, catch.params))(
        jax.random.split(jax.random.key(0), 4000)
    )
    side = np.sign(state.theta)
    assert abs(side.mean()) < 5 / np.sqrt(4000)
    np.testing.assert_array_equal(side, np.sign(state.theta_dot))
    for values, low, high in ((state.theta, 0.03, 0.1), (state.theta_dot, 0.45, 1.5)):
        size = np.abs(values)
        assert low <= size.min() < low * 1.02 + 0.001
        assert high * 0.99 < size.max() <= high
    for values in (state.x, state.x_dot):
        assert -0.5 <= values.min() < -0.49
        assert 0.49 < values.max() <= 0.5
    true = jnp.stack([state.x / 2.4, state.x_dot / 2, state.theta / 0.21, state.theta_dot / 2], -1)
    np.testing.assert_allclose(observation, true, rtol=1e-5)


def test_catch_is_decided_by_the_first_pushes():
    catch = make_env("cartpole_catch")
    made = controller(catch)
    assert made is not None
    caught = trial_returns(catch, made.initial, lambda c, _, o: made.act(c, o), 256, 1)
    swapped = trial_returns(catch, made.initial, lambda c, _, o: (c, 1 - made.act(c, o)[1]), 256, 1)
    assert caught.mean() > 0.97
    assert swapped.mean() < 0.25
    assert caught.max() == pytest.approx(1.0, abs=1e-5)  # 25 steps at 1/25
    assert (catch.max_steps, catch.params.tau) == (25, 0.04)


def test_point_mass_pays_for_nearness():
    mass = make_env("point_mass")
    _, state = mass.reset(jax.random.key(0), mass.params)
    state = state.replace(position=jnp.array([0.95, 0.0]), goal=jnp.array([0.7, 0.4]))
    observation, after, reward, *_ = mass.step(jax.random.key(0), state, jnp.array([3.0, 0.5]), mass.params)
    np.testing.assert_allclose(after.position, [1.0, 0.05], rtol=1e-6)  # clipped action, then clipped wall
    np.testing.assert_allclose(observation, [1.0, 0.05, 0.7, 0.4], rtol=1e-6)
    assert reward == pytest.approx(1 - np.hypot(0.3, 0.35), abs=1e-6)
    far = state.replace(goal=jnp.array([-1.0, -1.0]))
    assert mass.step(jax.random.key(0), far, jnp.zeros(2), mass.params)[2] == 0.0


def test_point_mass_goals_are_fresh_and_uniform():
    mass = make_env("point_mass")
    observation, _ = jax.vmap(lambda key: mass.reset(key, mass.params))(
        jax.random.split(jax.random.key(0), 5000)
    )
    np.testing.assert_array_equal(observation[:, :2], 0)
    np.testing.assert_allclose(np.quantile(observation[:, 2:], [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.04)
