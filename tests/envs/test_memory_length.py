"""The memory chain against episodes of bsuite's own, step for step, and at any length."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.registry import make_env
from resetta.envs.scores import trial_returns

EPISODES = json.loads(Path(__file__).with_name("bsuite_memory.json").read_text())


@pytest.mark.parametrize("length", [1, 2, 7])
def test_episodes_are_bsuites(length):
    chain = make_env("bsuite_memory_chain", memory_length=length, num_bits=3)
    step = jax.jit(lambda state: chain.step(jax.random.key(0), state, jnp.int32(1), chain.params))
    show = jax.jit(lambda state: chain.env.get_obs(state, chain.params))
    _, fresh = jax.jit(lambda key: chain.reset(key, chain.params))(jax.random.key(0))
    theirs = [episode for episode in EPISODES if episode["length"] == length]
    assert len(theirs) == 4
    for episode in theirs:
        state = fresh.replace(context=jnp.array(episode["context"]), query=jnp.int32(episode["query"]))
        np.testing.assert_allclose(show(state), episode["observations"][0])
        assert chain.max_steps == len(episode["rewards"])
        for t, reward in enumerate(episode["rewards"]):
            observation, state, ours, terminated, truncated = step(state)
            np.testing.assert_allclose(observation, episode["observations"][t + 1], atol=1e-6)
            assert (ours, terminated, truncated) == (reward, t + 1 == chain.max_steps, False)


@pytest.mark.parametrize("length", [1, 2048, 5000])
def test_remembering_the_cue_is_enough_at_any_length(length):
    chain = make_env("bsuite_memory_chain", memory_length=length)
    assert chain.max_steps == length + 1

    def act(cue, key, observation):
        cue = jnp.where(observation[2] == 0, cue, observation[2])
        return cue, (cue > 0).astype(jnp.int32)

    np.testing.assert_array_equal(trial_returns(chain, jnp.float32(0), act, 8, 0), 1.0)
