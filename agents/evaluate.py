"""Fixed-length evaluation: the return of every trial of every task."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from ..envs import MetaEnv
from .distributions import uniform_action
from .normalize import Statistics
from .ppo import Agent


def evaluate(
    agent: Agent,
    env: MetaEnv,
    params: Any,
    observations: Statistics,
    key: Array,
    task_ids: Int[Array, " B"],
    greedy: bool = False,
    random: Bool[Array, ""] | None = None,
) -> Float[Array, "B K"]:
    """Raw returns `[task, trial]` of an agent on `task_ids`, one row each, over `env.trials` trials.

    A scan of fixed length (trials times the longest trial), so that no episode is waited for; what happens
    after a row's last trial is not counted. Where `random` is true the actions are those of
    `evaluate_random`: one program for both, since compiling a simulator twice takes minutes.
    """

    def act(carry: Any, inputs: Any, key: Array) -> tuple[Any, Array]:
        carry, raw = agent.act(params, observations, carry, inputs, key, greedy)
        action = agent.policy.to_env(raw)
        if random is not None:
            action = jnp.where(random, uniform_action(key, env.action, env.num_envs), action)
        return carry, action

    return _play(env, act, agent.initial_carry(env.num_envs), key, task_ids)


def evaluate_random(env: MetaEnv, key: Array, task_ids: Int[Array, " B"]) -> Float[Array, "B K"]:
    """Raw returns `[task, trial]` of uniformly random actions on the same tasks."""

    def act(carry: Any, inputs: Any, key: Array) -> tuple[Any, Array]:
        return carry, uniform_action(key, env.action, env.num_envs)

    return _play(env, act, (), key, task_ids)


def _play(env: MetaEnv, act: Any, carry: Any, key: Array, task_ids: Array) -> Array:
    key_reset, key_steps = jax.random.split(key)
    env_state, inputs = env.reset(key_reset, task_ids)
    rows = jnp.arange(env.num_envs)

    def step(loop: tuple[Any, ...], key: Array) -> tuple[Any, None]:
        env_state, inputs, carry, returns, playing = loop
        key_action, key_env = jax.random.split(key)
        carry, action = act(carry, inputs, key_action)
        env_state, inputs, outcome = env.step(key_env, env_state, action)
        returns = returns.at[rows, outcome.trial].add(jnp.where(playing, outcome.raw_reward, 0.0))
        return (env_state, inputs, carry, returns, playing & ~inputs.reset), None

    returns = jnp.zeros((env.num_envs, env.trials))
    playing = jnp.ones(env.num_envs, bool)
    loop = (env_state, inputs, carry, returns, playing)
    keys = jax.random.split(key_steps, env.trials * env.max_steps)
    (*_, returns, _), _ = jax.lax.scan(step, loop, keys)
    return returns


class Recording(struct.PyTreeNode):
    """What happened, step by step, leaves `[T, B, ...]`; the state is the one the agent saw."""

    base_states: tuple[Any, ...]  # one entry a lane
    task_params: tuple[Any, ...]
    env_actions: tuple[Array, ...]  # the base environments' own actions
    reward: Float[Array, "T B"]
    trial: Int[Array, "T B"]
    trial_end: Bool[Array, "T B"]
    episode_start: Bool[Array, "T B"]
    reset: Bool[Array, "T B"]
    carry_norm: Float[Array, "T B"]


def record(
    agent: Agent,
    env: MetaEnv,
    params: Any,
    observations: Statistics,
    key: Array,
    task_ids: Int[Array, " B"],
    greedy: bool = False,
) -> Recording:
    """Play `env.trials` trials of each task and keep everything: what films and memory plots are made of."""
    key_reset, key_steps = jax.random.split(key)
    env_state, inputs = env.reset(key_reset, task_ids)

    def step(loop: tuple[Any, ...], key: Array) -> tuple[Any, Recording]:
        env_state, inputs, carry = loop
        key_action, key_env = jax.random.split(key)
        carry, raw = agent.act(params, observations, carry, inputs, key_action, greedy)
        action = agent.policy.to_env(raw)
        next_state, next_inputs, outcome = env.step(key_env, env_state, action)
        recording = Recording(
            base_states=tuple(lane.base for lane in env_state),
            task_params=tuple(lane.task.params for lane in env_state),
            env_actions=env.base_actions(env_state, action),
            reward=outcome.raw_reward,
            trial=outcome.trial,
            trial_end=outcome.trial_end,
            episode_start=inputs.episode_start,
            reset=inputs.reset,
            carry_norm=_norm(carry, env.num_envs),
        )
        return (next_state, next_inputs, carry), recording

    loop = (env_state, inputs, agent.initial_carry(env.num_envs))
    _, recording = jax.lax.scan(step, loop, jax.random.split(key_steps, env.trials * env.max_steps))
    return recording


def _norm(carry: Any, batch: int) -> Float[Array, " B"]:
    """The Euclidean norm of each row's memory; integer leaves are counters and don't count."""
    floats = [leaf for leaf in jax.tree.leaves(carry) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    squares = [jnp.sum(leaf.reshape(batch, -1) ** 2, axis=-1) for leaf in floats]
    return jnp.sqrt(sum(squares, start=jnp.zeros(batch)))
