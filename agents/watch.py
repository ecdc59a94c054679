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
    """What `watch` saw; `inputs`, `actions` (raw) and `trial` are of some rows alone, `[T, R, ...]`.

    `lengths` counts every trial's steps, `rewards` are raw and 0 after a row's last trial, `moments` are one
    of every trial and `at_times` those of given steps of the meta-episode, `[B, S, ...]`. `wiped_at` is the
    step of the meta-episode at which a row's memory was emptied, T where it never was.
    """

    returns: Float[Array, "B K"]
    lengths: Int[Array, "B K"]
    rewards: Float[Array, "T B"]
    moments: Moments
    at_times: Moments
    wiped_at: Int[Array, " B"]
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
    wipe: Int[Array, " 2"],
    entries: Int[np.ndarray, " F"],
    rows: Int[np.ndarray, " R"],
    times: Int[np.ndarray, " S"],
    greedy: bool = False,
) -> Watched:
    """Play as `evaluate` does, the same episodes, with the memory emptied before one step.

    `wipe` is (trial, step), both from 0; (-1, 0) is never, step 0 is as the trial begins, and where the trial
    has ended by then nothing is emptied: who is doesn't hang on what comes after. The environment and the
    agent's inputs stay as they are: the previous action and reward are seen. Of the memory's numbers those of
    `entries` are kept; `times` are steps of the meta-episode, one or more.
    """
    key_reset, key_steps = jax.random.split(key)
    env_state, inputs = env.reset(key_reset, task_ids)
    batch = jnp.arange(env.num_envs)
    carry = agent.initial_carry(env.num_envs)
    nothing = jnp.zeros(env.num_envs, jnp.int32)
    seen = Moments(numbers(carry, env.num_envs)[:, entries], inputs, nothing, nothing)
    steps = env.trials * env.max_steps

    def empty(number: int) -> Moments:
        return jax.tree.map(lambda x: jnp.zeros((len(x), number, *x.shape[1:]), x.dtype), seen)

    def step(loop: tuple[Any, ...], now: tuple[Array, Array]) -> tuple[Any, Any]:
        env_state, inputs, carry, sums, playing, moments, at_times, count, wiped_at = loop
        key, at = now
        key_action, key_env = jax.random.split(key)
        trial = jnp.concatenate([lane.trial for lane in env_state])
        count = jnp.where(inputs.episode_start, 0, count + 1)
        wiped = playing & (trial == wipe[0]) & (count == wipe[1])
        wiped_at = jnp.where(wiped, at, wiped_at)
        emptied = inputs.replace(reset=inputs.reset | wiped)
        carry, raw = agent.act(params, observations, carry, emptied, key_action, greedy)
        # the n-th step takes the place of an earlier one with probability 1/n: how long a trial will last
        # need not be known
        drawn = jax.random.uniform(jax.random.fold_in(key, 2), (env.num_envs,))
        keep = playing & (drawn * (count + 1) < 1)
        seen = Moments(numbers(carry, env.num_envs)[:, entries], inputs, count, jnp.full_like(count, at))

        def replaced(kept: Array, new: Array) -> Array:
            chosen = keep.reshape(keep.shape + (1,) * (new.ndim - 1))
            return kept.at[batch, trial].set(jnp.where(chosen, new, kept[batch, trial]))

        moments = jax.tree.map(replaced, moments, seen)
        here = jnp.asarray(times) == at
        slot = jnp.where(here.any(), here.argmax(), len(times))  # a slot beyond the last takes nothing
        at_times = jax.tree.map(lambda kept, new: kept.at[:, slot].set(new, mode="drop"), at_times, seen)
        shown = jax.tree.map(lambda x: x[rows], (inputs, raw, trial))
        env_state, inputs, outcome = env.step(key_env, env_state, agent.policy.to_env(raw))
        reward = jnp.where(playing, outcome.raw_reward, 0.0)
        returns, lengths = sums
        sums = returns.at[batch, trial].add(reward), lengths.at[batch, trial].add(playing)
        playing = playing & ~inputs.reset
        loop = (env_state, inputs, carry, sums, playing, moments, at_times, count, wiped_at)
        return loop, (reward, shown)

    zeros, playing = jnp.zeros((env.num_envs, env.trials)), jnp.ones(env.num_envs, bool)
    sums, never = (zeros, zeros.astype(jnp.int32)), jnp.full_like(nothing, steps)
    moments, at_times = empty(env.trials), empty(len(times))
    loop = (env_state, inputs, carry, sums, playing, moments, at_times, nothing, never)
    (_, _, _, sums, _, moments, at_times, _, wiped_at), (rewards, shown) = jax.lax.scan(
        step, loop, (jax.random.split(key_steps, steps), jnp.arange(steps))
    )
    returns, lengths = sums
    inputs, actions, trial = shown
    return Watched(returns, lengths, rewards, moments, at_times, wiped_at, inputs, actions, trial)


def input_gradients(
    agent: Agent,
    params: Any,
    observations: Statistics,
    inputs: Input,
    actions: Array,
    at: Int[Array, " R"],
) -> tuple[Float[Array, "T R ..."], Float[Array, "T R ..."]]:
    """How the decision at step `at` of each row changes with every number of every observation of the row.

    The gradients of the value, and of what spoke for the action taken (`Policy.preference`), in the shape of
    the observations, for `inputs` `[T, R, ...]` and raw `actions` `[T, R, ...]` from an empty memory. What
    comes later than the decision, or before the last reset, has exactly none.
    """
    rows = jnp.arange(len(at))

    def decided(observation: Array) -> tuple[Array, Array]:
        shown = inputs.replace(observation=observation)
        _, policy, value = agent.apply(params, observations, agent.initial_carry(len(at)), shown)
        chosen = agent.policy.preference(policy[at, rows], actions[at, rows])
        return value[at, rows].sum(), chosen.sum()  # rows are independent: the sum's gradient is each one's

    (value, chosen), pull = jax.vjp(decided, inputs.observation)
    one, no = jnp.ones_like(value), jnp.zeros_like(chosen)
    by_value, by_action = (pull(which)[0] for which in ((one, no), (no, one)))
    return by_value, by_action
