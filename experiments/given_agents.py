"""The trained agents that a run is given: one to start from, and one that teaches."""

import contextlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..agents import Agent, AgentState, Teacher
from .checkpoint import Checkpoints
from .config import GivenAgent, TrainConfig
from .errors import InputError
from .logs import phase
from .pretrained_agents import differing_leaf, named_leaves, shipped
from .restore import abstract_learnt, restore_run


def load_teacher(config: TrainConfig) -> Teacher | None:
    """The agent of `teacher.run` (its first seed) or of `teacher.pretrained`; None where neither is named.

    Raises `InputError` where there is no such agent. Whoever only looks at a run needs no teacher.
    """
    if config.teacher.named is None:
        return None
    agent, learnt = _restore("teacher", config.teacher, config.device)
    return Teacher(agent, **jax.tree.map(lambda leaf: leaf[0], learnt))


def load_initial(config: TrainConfig, agent: Agent) -> dict[str, Any] | None:
    """What the agent of `init.run` or `init.pretrained` learnt, for `start_from`; None where none is named.

    None too where the run has checkpoints to go on from, for it needs that agent no more. Raises `InputError`
    where there is no such agent, or where it is not made as `agent` is.
    """
    named = config.init.named
    if named is None or (config.run_dir and _trained(Path(config.run_dir, "checkpoints"))):
        return None
    _, learnt = _restore("init", config.init, config.device)
    own = named_leaves(_learnt(abstract_learnt(agent, config)))
    if name := differing_leaf(named_leaves(learnt), own, axes=1):  # seeds may be fewer or more
        raise InputError(
            f"{named} holds another agent than this run's ({name} differs); give this run the core, the "
            "network and the widths of that one (its config.yaml has them)"
        )
    return learnt


def start_from(initial: dict[str, Any], state: AgentState) -> AgentState:
    """Fresh agents, leaves `[S, ...]`, with the parameters and observation statistics of trained ones.

    Each seed takes those of one seed of theirs, in their order, and from the first again. The optimiser, the
    statistics of returns and the environments are a fresh agent's.
    """
    seeds = state.update.shape[0]

    def given(leaf: np.ndarray) -> jax.Array:
        return jnp.asarray(leaf[np.arange(seeds) % leaf.shape[0]])

    return state.replace(**jax.tree.map(given, initial))


def _trained(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        return checkpoints.latest() is not None


def _learnt(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: parts[name] for name in ("params", "observations")}


def _restore(section: str, given: GivenAgent, device: str) -> tuple[Agent, dict[str, Any]]:
    option = f"{section}.{'run' if given.pretrained is None else 'pretrained'}"
    try:
        folder = given.run if given.pretrained is None else shipped(given.pretrained)
        with phase(f"reading {option}={given.named}"):
            _, _, agent, state = restore_run({"run_dir": folder, "device": device})
    except InputError as error:
        raise InputError(f"{option} cannot be used: {error}") from error
    # plain arrays: they belong to no device, and go wherever the update runs
    return agent, jax.tree.map(np.asarray, _learnt(vars(state)))
