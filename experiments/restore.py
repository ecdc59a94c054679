"""A trained agent from its run directory."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ..agents import ENVIRONMENTS, Agent, AgentState
from ..envs.meta import LaneState
from .build import build_agent, seed_keys, settings
from .checkpoint import Checkpoints
from .config import TrainConfig, train_config
from .devices import abstract, agent_shardings
from .errors import InputError, input_errors
from .pretrained_agents import ARRAYS, read_agent
from .run_dir import RunDir


def restore_run(raw: Mapping[str, Any]) -> tuple[RunDir, TrainConfig, Agent, AgentState]:
    """The run in `raw["run_dir"]`, its agent and its newest state (or that of update `raw["step"]`).

    `raw` is the configuration of a command that looks at a run; its `device` counts, everything else about
    the agent comes from the run itself. Of a folder that `resetta export` wrote, the state holds parameters,
    observation statistics and the update; the rest is None.
    """
    run_dir = RunDir.read(raw["run_dir"])
    with input_errors():
        config = train_config({**run_dir.config, "device": raw.get("device", "auto")})
        with settings(config):
            agent = build_agent(config)
            if not run_dir.checkpoints.is_dir() and (run_dir.path / ARRAYS).exists():
                held = read_agent(run_dir.path, abstract_learnt(agent, config), raw.get("step"))
                names = [field.name for field in dataclasses.fields(AgentState)]
                return run_dir, config, agent, AgentState(**{**dict.fromkeys(names), **held})
            if not run_dir.checkpoints.is_dir():
                raise InputError(f"{run_dir.path} holds no checkpoint yet; train it first")
            checkpoints = Checkpoints(run_dir.checkpoints)
            try:
                state = restore_state(checkpoints, abstract_state(agent, config), config, raw.get("step"))
            finally:
                checkpoints.close()
    return run_dir, config, agent, state


def checkpointed(state: AgentState, config: TrainConfig) -> Any:
    """What a checkpoint of `state` holds: all of it, or what is not `ENVIRONMENTS`."""
    if config.checkpoint_environments:
        return state
    names = [field.name for field in dataclasses.fields(state)]
    return {name: getattr(state, name) for name in names if name not in ENVIRONMENTS}


def restore_state(
    checkpoints: Checkpoints, template: AgentState, config: TrainConfig, step: int | None = None
) -> AgentState:
    """The state of the newest checkpoint (or that of `step`), of the shapes in `template`, or of `_as_begun`.

    `ENVIRONMENTS` are None where the run's checkpoints leave them out: see `begin_again_seeds`.
    """
    try:
        held = checkpoints.restore(checkpointed(template, config), step)
    except ValueError as error:
        try:
            held = checkpoints.restore(checkpointed(_as_begun(template), config), step)
        except ValueError:
            raise error from None
    if config.checkpoint_environments:
        return held
    return template.replace(**dict.fromkeys(ENVIRONMENTS), **held)


def _as_begun(template: AgentState) -> AgentState:
    """What a run keeps that began before lanes had spreads and simulators starts of their own.

    Such a run goes on so: with one spread for all lanes, and a simulator's trials that start afresh.
    """
    fields = [field.name for field in dataclasses.fields(LaneState)]
    return template.replace(
        returns=jax.tree.map(lambda _: template.returns.count, template.returns),
        env_state=tuple(
            LaneState(**{name: getattr(lane, name) for name in fields}) for lane in template.env_state
        ),
    )


def abstract_learnt(agent: Agent, config: TrainConfig) -> dict[str, Any]:
    """The shapes and dtypes of what acting needs of a run's state, `params`, `observations` and `update`.

    No environment is reset for it, whose tracing takes seconds of every simulator.
    """
    shapes = jax.eval_shape(jax.vmap(agent.learnt), seed_keys(config))
    return {**shapes, "update": jax.ShapeDtypeStruct((config.seeds,), jnp.int32)}


def abstract_state(agent: Agent, config: TrainConfig, mesh: Mesh | None = None) -> Any:
    """The shapes and dtypes of a run's state, on the default device or a mesh; nothing is computed."""
    shapes = jax.eval_shape(jax.vmap(agent.init), seed_keys(config))
    return abstract(shapes, mesh and agent_shardings(mesh, shapes))
