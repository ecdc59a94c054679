"""Compiling one training update, and clocks that other people's work on the machine disturbs little."""

import dataclasses
import time
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from ...agents import Agent
from ..build import build_agent
from ..config import TrainConfig
from ..devices import run_mesh
from ..restore import abstract_state
from ..train import lowered_update


@dataclasses.dataclass(frozen=True)
class Clock:
    """Seconds that passed, and seconds that this process' threads computed."""

    wall: float
    cpu: float

    def __sub__(self, other: "Clock") -> "Clock":
        return Clock(self.wall - other.wall, self.cpu - other.cpu)


def now() -> Clock:
    """The clocks now: meaningful as a difference."""
    return Clock(time.perf_counter(), time.process_time())


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The update that `resetta train` would run, ready to be called, and what making it took.

    `trace` is tracing and lowering to StableHLO, Python's part; `xla` is the compiler's.
    """

    update: Any
    trace: Clock
    xla: Clock
    parameters: int


def count_parameters(agent: Agent) -> int:
    """Parameters of one agent; nothing is computed."""
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(agent.init, jax.random.key(0)).params))


def prepare() -> None:
    """Start the backend, so that the first measurement does not pay for it, and read no compilation cache."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX asks once; a simulator, say, compiles while it is made
    jax.block_until_ready(jax.jit(lambda x: x + 1)(0.0))


def compile_update(config: TrainConfig, agent: Agent | None = None) -> Compiled:
    """Trace, lower and compile one update over the run's seeds from empty caches; nothing is run.

    Raises `ValueError` where there are fewer devices than the run's mesh has.
    """
    agent = agent or build_agent(config)
    mesh = run_mesh(config.mesh, config.distributed, config.check_mesh)
    state = abstract_state(agent, config, mesh)
    jax.clear_caches()  # or a second core would find what the first one traced
    start = now()
    lowered = lowered_update(agent, config.seeds, mesh, state)
    traced = now()
    update = lowered.compile()
    compiled = now()
    return Compiled(update, traced - start, compiled - traced, count_parameters(agent))
