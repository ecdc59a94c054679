"""One program plays the agent or the random policy, as a flag says."""

import jax
import numpy as np

from resetta.agents import Agent, PPOConfig, evaluate, evaluate_random
from resetta.cores import make_core
from resetta.envs import make_meta_env


def test_the_flag_chooses_who_plays():
    env = make_meta_env({"pendulum": {}}, num_envs=2, trials=1)
    agent = Agent(PPOConfig(num_steps=4, minibatches=1), env, make_core("none", features=4))
    state = jax.jit(agent.init)(jax.random.key(0))
    key, ids = jax.random.key(1), env.evaluation_ids("held_out")

    @jax.jit
    def play(random):
        return evaluate(agent, env, state.params, state.observations, key, ids, random=random)

    random, own = (np.asarray(play(np.bool_(flag))) for flag in (True, False))
    np.testing.assert_allclose(random, evaluate_random(env, key, ids), rtol=1e-4)
    assert not np.allclose(random, own, rtol=1e-2)
