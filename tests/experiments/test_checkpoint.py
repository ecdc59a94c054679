"""Checkpoints hold whatever an environment's state holds."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from resetta.agents.normalize import no_statistics
from resetta.envs.meta import LaneState
from resetta.experiments.build import build_agent
from resetta.experiments.checkpoint import Checkpoints
from resetta.experiments.compose import compose
from resetta.experiments.config import train_config
from resetta.experiments.restore import abstract_state, restore_state


def test_empty_arrays_come_back(tmp_path):
    state = {"act": jnp.zeros((3, 0)), "x": jnp.arange(3.0), "n": jnp.zeros((0, 2), jnp.int32)}
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, state)
        for template in (state, jax.eval_shape(lambda: state)):
            back = checkpoints.restore(template)
            assert back.keys() == state.keys()
            assert all((back[k].shape, back[k].dtype) == (v.shape, v.dtype) for k, v in state.items())
            np.testing.assert_array_equal(back["x"], state["x"])


def test_a_run_from_before_lanes_and_simulators_had_more_state_goes_on_as_it_began(tmp_path):
    options = ["core=none", "core.features=8", "num_envs=4", "num_steps=2", "minibatches=2", "seeds=2"]
    lanes = ["env=plain", "env.name=two", "env.lanes={brax_fast:{},pendulum:{}}", "env.projection=orthogonal"]
    config = train_config(compose("train", [*options, *lanes, "trials=1", "normalize_returns=true"]))
    agent = build_agent(config)
    template = abstract_state(agent, config)
    assert template.returns.mean.shape == (2, 2)
    begun = jax.tree.map(_made, template)
    begun = begun.replace(
        returns=no_statistics((2,)).replace(count=jnp.ones(2)),
        env_state=tuple(
            LaneState(lane.base, lane.task, lane.trial, lane.trial_return) for lane in begun.env_state
        ),
    )
    names = [field.name for field in dataclasses.fields(LaneState)]
    assert names == ["base", "task", "trial", "trial_return"], "more, and no older checkpoint would be read"
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, begun)
        back = restore_state(checkpoints, template, config)
    shapes = jax.tree.map(jnp.shape, begun)
    assert jax.tree.map(jnp.shape, back) == shapes
    after, _ = jax.eval_shape(jax.vmap(agent.update), back)
    assert jax.tree.map(jnp.shape, after) == shapes


def _made(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.zeros((*leaf.shape, 2), jnp.uint32))
    return jnp.ones(leaf.shape, leaf.dtype)
