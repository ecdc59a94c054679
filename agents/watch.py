"""An agent watched as it plays: its memory in every trial, emptied on demand; what its decisions rest on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from ..cores.base import numbers
from ..envs import Input, MetaEnv
from .normalize import Statistics
from .ppo import Agent


class Moments(struct.PyTreeNode):
    """One step of every trial of every task, leaves `[B, K, ...]`: each step of a trial is equally likely."""

    memory: Float[Array, "B K F"]  # after the step's input
    inputs: Input
    step: Int[Array, "B K"]  # in its trial, from 0
    at: Int[Array, "B K"]  # in the meta-episode, from 0


class Watched(struct.PyTreeNode):
    """What `watch` saw; `inputs`, `actions` (raw) and `trial` are of some rows alone, `[T, R, ...]`."""

    returns: Float[Array, "B K"]
    moments: Moments
    inputs: Input
    actions: Array
    trial: Int[Array, "T R"]


def watch(
    agent: Agent,
    env: MetaEnv,
    params: Any,
    observations: Statistics,
    key: Array,
    task_ids: Int[Array, " B"],
    wipe: Int[Array, ""],
    entries: Int[np.ndarray, " F"],
    rows: Int[np.ndarray, " R"],
    greedy: bool = False,
) -> Watched:
    """Play as `evaluate` does, the same episodes, with the memory emptied as trial `wipe` begins (-1: never).

    The environment and the agent's inputs stay as they are: the previous action and reward are seen. Of the
    memory's numbers those of `entries` are kept.
    """
    key_reset, key_steps = jax.random.split(key)
    env_state, inputs = env.reset(key_reset, task_ids)
    batch = jnp.arange(env.num_envs)
    carry = agent.initial_carry(env.num_envs)
    nothing = jnp.zeros(env.num_envs, jnp.int32)
    seen = Moments(numbers(carry, env.num_envs)[:, entries], inputs, nothing, nothing)
    moments = jax.tree.map(lambda x: jnp.zeros((len(x), env.trials, *x.shape[1:]), x.dtype), seen)

    def step(loop: tuple[Any, ...], now: tuple[Array, Array]) -> tuple[Any, Any]:
        env_state, inputs, carry, returns, playing, moments, count = loop
        key, at = now
        key_action, key_env = jax.random.split(key)
        trial = jnp.concatenate([lane.trial for lane in env_state])
        emptied = inputs.replace(reset=inputs.reset | (inputs.episode_start & (trial == wipe)))
        carry, raw = agent.act(params, observations, carry, emptied, key_action, greedy)
        count = jnp.where(inputs.episode_start, 0, count + 1)
        # the n-th step takes the place of an earlier one with probability 1/n: how long a trial will last
        # need not be known
        drawn = jax.random.uniform(jax.random.fold_in(key, 2), (env.num_envs,))
        keep = playing & (drawn * (count + 1) < 1)
        seen = Moments(numbers(carry, env.num_envs)[:, entries], inputs, count, jnp.full_like(count, at))

        def replaced(kept: Array, new: Array) -> Array:
            chosen = keep.reshape(keep.shape + (1,) * (new.ndim - 1))
            return kept.at[batch, trial].set(jnp.where(chosen, new, kept[batch, trial]))

        moments = jax.tree.map(replaced, moments, seen)
        shown = jax.tree.map(lambda x: x[rows], (inputs, raw, trial))
        env_state, inputs, outcome = env.step(key_env, env_state, agent.policy.to_env(raw))
        returns = returns.at[batch, outcome.trial].add(jnp.where(playing, outcome.raw_reward, 0.0))
        playing = playing & ~inputs.reset
        return (env_state, inputs, carry, returns, playing, moments, count), shown

    returns, playing = jnp.zeros((env.num_envs, env.trials)), jnp.ones(env.num_envs, bool)
    loop = (env_state, inputs, carry, returns, playing, moments, nothing)
    steps = env.trials * env.max_steps
    (*_, returns, _, moments, _), shown = jax.lax.scan(
        step, loop, (jax.random.split(key_steps, steps), jnp.arange(steps))
    )
    return Watched(returns, moments, *shown)


def input_gradients(
    agent: Agent,
    params: Any,
    observations: Statistics,
    inputs: Input,
    actions: Array,
    at: Int[Array, " R"],
) -> tuple[Float[Array, "T R"], Float[Array, "T R"]]:
    """How much the decision at step `at` of each row changes with every observation of the row.

    The Euclidean norms of the gradients of the value, and of what spoke for the action taken
    (`Policy.preference`), for `inputs` `[T, R, ...]` and raw `actions` `[T, R, ...]` from an empty memory.
    What comes later than the decision, or before the last reset, has exactly none.
    """
    rows = jnp.arange(len(at))

    def decided(observation: Array) -> tuple[Array, Array]:
        shown = inputs.replace(observation=observation)
        _, policy, value = agent.apply(params, observations, agent.initial_carry(len(at)), shown)
        chosen = agent.policy.preference(policy[at, rows], actions[at, rows])
        return value[at, rows].sum(), chosen.sum()  # rows are independent: the sum's gradient is each one's

    (value, chosen), pull = jax.vjp(decided, inputs.observation)
    one, no = jnp.ones_like(value), jnp.zeros_like(chosen)
    found = [pull(which)[0] for which in ((one, no), (no, one))]
    by_value, by_action = (jnp.sqrt(jnp.square(g.reshape(*g.shape[:2], -1)).sum(-1)) for g in found)
    return by_value, by_action
