"""What Resetta asks of an environment, checked without compiling or running anything."""

from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces

from .base import BaseEnv
from .simulation import SimulatedEnvironment


def contract_findings(base_env: BaseEnv) -> list[str]:
    """What keeps an environment from being used, one sentence each; empty when all is well.

    Shapes and dtypes come from abstract evaluation (`jax.eval_shape`) of one reset and one step.
    """
    findings = interface_findings(base_env.env, base_env.params)
    if findings:
        return findings
    try:
        return _transition_findings(base_env)
    except Exception as error:  # whatever a user's code raises while it is traced is the finding
        first_line = str(error).strip().split("\n")[0]
        return [f"{base_env.name} cannot be traced by JAX: {type(error).__name__}: {first_line}"]


def interface_findings(env: Any, params: Any) -> list[str]:
    """What is wrong with an object's class, parameters and spaces, one sentence each."""
    name = type(env).__name__
    if not isinstance(env, environment.Environment):
        return [f"{name} is not a gymnax 1.0 Environment; derive it from gymnax's Environment"]
    if not hasattr(params, "max_steps_in_episode") or not hasattr(params, "replace"):
        return [f"{name}'s parameters lack max_steps_in_episode; derive them from gymnax's EnvParams"]
    if isinstance(env, SimulatedEnvironment):  # its spaces are Boxes, and take seconds to find out
        return []
    findings = []
    observation, action = env.observation_space(params), env.action_space(params)
    if not isinstance(observation, spaces.Box | spaces.Discrete):
        kind = type(observation).__name__
        findings.append(f"{name}'s observation space is a {kind}; only Box and Discrete fit")
    if isinstance(action, spaces.Box):
        if len(action.shape) > 1:
            findings.append(
                f"{name}'s action space has shape {tuple(action.shape)}; flatten it to one dimension"
            )
    elif not isinstance(action, spaces.Discrete):
        kind = type(action).__name__
        findings.append(f"{name}'s action space is a {kind}; only Discrete and a one-dimensional Box fit")
    return findings


def _transition_findings(base_env: BaseEnv) -> list[str]:
    env, params, name = base_env.env, base_env.params, base_env.name
    key = jax.random.key(0)
    space = env.observation_space(params)
    shape = tuple(space.shape)
    action = jnp.zeros(env.action_space(params).shape, env.action_space(params).dtype)
    observation, state = jax.eval_shape(env.reset_env, key, params)
    stepped = jax.eval_shape(env.step_env, key, state, action, params)
    if not isinstance(stepped, tuple) or len(stepped) != 5:
        return [f"{name}.step_env must return observation, state, reward, terminated and info"]
    next_observation, next_state, reward, terminated, _ = stepped
    findings = []
    for when, value in (("reset_env", observation), ("step_env", next_observation)):
        if getattr(value, "shape", None) != shape:
            found = getattr(value, "shape", type(value).__name__)
            findings.append(f"{name}.{when} returns an observation of shape {found}; its space says {shape}")
    for what, value in (("reward", reward), ("terminated", terminated)):
        if getattr(value, "shape", None) != ():
            findings.append(f"{name}.step_env must return a scalar {what}")
    if jax.tree.structure(state) != jax.tree.structure(next_state):
        findings.append(f"{name}'s state has another structure after a step than after a reset")
    else:
        for (path, first), then in zip(
            jax.tree.leaves_with_path(state), jax.tree.leaves(next_state), strict=True
        ):
            if (first.shape, first.dtype) != (then.shape, then.dtype):
                where = jax.tree_util.keystr(path)
                findings.append(
                    f"{name}'s state{where} is {first.dtype}{list(first.shape)} after a reset but "
                    f"{then.dtype}{list(then.shape)} after a step"
                )
    if not hasattr(state, "time"):
        findings.append(f"{name}'s state lacks time; derive it from gymnax's EnvState")
    return findings
