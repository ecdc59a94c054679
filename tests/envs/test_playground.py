"""The adapter of MuJoCo Playground's dm_control suite, against a stand-in of the same interface."""

import importlib.util
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from resetta.envs.base import Continuous
from resetta.envs.make import make_meta_env
from resetta.envs.registry import env_names, make_env

SIZES = {"PointMass": (4, 2), "CartpoleSwingup": (5, 1), "FingerTurnEasy": (12, 2)}


@struct.dataclass
class State:
    obs: Any
    reward: Any
    done: Any
    info: Any


class Simulator:
    """Counts the steps in its observation; a negative first action makes the physics blow up."""

    def __init__(self, observation_size, action_size):
        self.observation_size, self.action_size = observation_size, action_size

    def reset(self, rng):
        assert jnp.issubdtype(rng.dtype, jnp.unsignedinteger)  # Playground's keys are of the old kind
        obs = jnp.zeros(self.observation_size).at[1].set(jax.random.uniform(rng))
        return State(obs, jnp.float32(0), jnp.float32(0), {"rng": rng})

    def step(self, state, action):
        assert action.shape == (self.action_size,)
        obs = jnp.where(action[0] < 0, jnp.nan, state.obs.at[0].add(1.0))
        return state.replace(obs=obs, reward=action[0] * obs[0])


@pytest.fixture
def loaded(monkeypatch):
    """Every `load` of the stand-in suite, in order."""
    calls = []

    def load(name, config_overrides):
        calls.append((name, config_overrides))
        return Simulator(*SIZES[name])

    suite: Any = types.ModuleType("mujoco_playground")
    suite.dm_control_suite = types.SimpleNamespace(load=load)
    monkeypatch.setitem(sys.modules, "mujoco_playground", suite)
    return calls


def test_an_environment_of_the_suite(loaded):
    base_env = make_env("dm_point_mass", max_steps_in_episode=2)
    assert loaded == [("PointMass", {"impl": "jax"})]  # never Warp
    assert base_env.observation_shape == (4,)
    assert base_env.action == Continuous(2, (-1.0, -1.0), (1.0, 1.0))
    assert make_env("dm_finger_turn_easy").max_steps == 1000
    key = jax.random.key(0)
    first, state = base_env.reset(key, base_env.params)
    good, bad = jnp.array([3.0, 0.0]), jnp.array([-1.0, 0.0])
    second, state, reward, *ends = base_env.step(key, state, good, base_env.params)
    np.testing.assert_array_equal(second, first.at[0].set(1))
    assert (reward, *ends) == (1.0, False, False)  # the action was clipped to 1
    third, _, reward, *ends = base_env.step(key, state, good, base_env.params)
    assert (third[0], reward, *ends) == (2.0, 2.0, False, True)
    lost, _, reward, *ends = base_env.step(key, state, bad, base_env.params)
    np.testing.assert_array_equal(lost, second)  # the last that was finite
    assert (reward, *ends) == (0.0, True, False)


def test_environments_side_by_side(loaded):
    lanes = {"dm_point_mass": {}, "dm_cartpole_swingup": {}}
    env = make_meta_env(
        lanes,
        num_envs=4,
        trials=1,
        held_out_lanes={"dm_finger_turn_easy": {}},
        projection="orthogonal",
        observation_width=12,
        action_width=2,
    )
    assert [lane.family.base.name for lane in env.lanes] == list(lanes)  # and not what is held out
    states, inputs = jax.jit(env.reset)(jax.random.key(1))
    assert inputs.observation.shape == (4, 12)
    for lane, state, size in zip(env.lanes, states, [(4, 2), (5, 1)], strict=True):
        assert state.task.observation_matrix.shape == (2, 12, size[0])
        assert state.task.action_matrix.shape == (2, size[1], 2)
        # dense, and another one for every task
        assert (jnp.abs(state.task.observation_matrix) > 1e-6).all()
        assert not np.allclose(*state.task.observation_matrix)
        # a projection keeps the norm of what it projects
        seen = inputs.observation[:2] if lane is env.lanes[0] else inputs.observation[2:]
        np.testing.assert_allclose(
            jnp.linalg.norm(seen, axis=1), jnp.linalg.norm(state.base.simulated.obs, axis=1), rtol=1e-5
        )
    _, inputs, outcome = jax.jit(env.step)(jax.random.key(2), states, jnp.ones((4, 2)))
    assert np.isfinite(inputs.observation).all()
    assert outcome.raw_reward.shape == (4,)


def test_a_missing_extra_is_said_with_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)
    with pytest.raises(ValueError, match=r"needs MuJoCo Playground.*uv sync --extra playground"):
        make_env("dm_point_mass")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Go1JoystickFlatTerrain", "locomotion and manipulation download meshes; use its dm_control suite"),
        ("dm_panda_pick_cube", "locomotion and manipulation download meshes"),
        ("dm_point_mass_hard", "did you mean dm_point_mass"),
    ],
)
def test_what_is_not_offered(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_env(name)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("mujoco_playground") is None, reason="needs the extra")
@pytest.mark.slow
def test_the_names_are_playgrounds_own():
    """And one of them runs: a swinging pole's observation changes and stays finite."""
    from mujoco_playground import dm_control_suite  # pyright: ignore[reportMissingImports]

    ours = {name.removeprefix("dm_").replace("_", "") for name in env_names() if name.startswith("dm_")}
    assert ours == {name.lower() for name in dm_control_suite.ALL_ENVS}
    base_env = make_env("dm_pendulum_swingup")

    @jax.jit
    def run(key):
        first, state = base_env.reset(key, base_env.params)
        return first, base_env.step(key, state, jnp.ones(1), base_env.params)

    first, (observation, _, reward, terminated, truncated) = run(jax.random.key(0))
    assert np.isfinite(observation).all() and not np.allclose(first, observation)  # noqa: PT018
    assert 0 <= reward <= 1
    assert not terminated and not truncated  # noqa: PT018
