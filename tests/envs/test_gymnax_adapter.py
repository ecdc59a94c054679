"""gymnax's environments through `BaseEnv` against gymnax's own `step`."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

from resetta.envs.registry import env_names, make_env

IDS = {type(gymnax.make(name)[0]): name for name in gymnax.registered_envs if "MNIST" not in name}
OURS = {type(make_env(name).env): name for name in env_names() if not name.startswith(("brax_", "dm_"))}
NAMES = sorted(OURS[cls] for cls in IDS)


def test_every_gymnax_environment_is_compared():
    assert len(NAMES) == 25


# Compiling these takes ten seconds and more each; CI does.
SLOW = ("minatar_asterix", "minatar_freeway", "minatar_seaquest", "minatar_space_invaders")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NAMES]
)
def test_transitions_are_gymnaxs_own(name):
    base_env = make_env(name)
    env, params = gymnax.make(IDS[type(base_env.env)])
    space = env.observation_space(params)
    steps = 12

    def reference(key):
        key_reset, key = jax.random.split(key)
        observation, state = env.reset(key_reset, params)

        def step(state, key):
            key_act, key_step = jax.random.split(key)
            action = env.action_space(params).sample(key_act)
            # gymnax splits its key: the first half steps, the second resets.
            _, after, reward, terminated, truncated, info = env.step(key_step, state, action, params)
            return after, (state, action, key_step, info["final_observation"], reward, terminated, truncated)

        return observation, jax.lax.scan(step, state, jax.random.split(key, steps))[1]

    def ours(state, action, key):
        return base_env.step(jax.random.split(key)[0], state, action, base_env.params)

    first, (state, action, keys, observation, reward, terminated, truncated) = jax.jit(reference)(
        jax.random.key(3)
    )
    got, _, got_reward, got_terminated, got_truncated = jax.jit(jax.vmap(ours))(state, action, keys)

    def as_float(value):
        if isinstance(space, spaces.Discrete):
            return jax.nn.one_hot(value, space.n)
        return jnp.asarray(value, jnp.float32).reshape(
            *value.shape[: value.ndim - len(space.shape)], *got.shape[1:]
        )

    np.testing.assert_allclose(got, as_float(observation), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got_reward, np.asarray(reward, np.float32), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(got_terminated, terminated)
    np.testing.assert_array_equal(got_truncated, np.asarray(truncated) & ~np.asarray(terminated))
    got_first = base_env.reset(jax.random.split(jax.random.key(3))[0], base_env.params)[0]
    np.testing.assert_allclose(got_first, as_float(first), rtol=1e-6, atol=1e-6)
