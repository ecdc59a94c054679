"""The environment view: any probe, shown a step at a time to an agent whose answers are paid at once."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Float

from .base import Probe

if TYPE_CHECKING:
    from ..base import BaseEnv


@struct.dataclass
class ProbeState(environment.EnvState):
    """The whole episode lies in the state; `alive` turns false at the first error of a `prefix` probe."""

    tokens: jax.Array
    targets: jax.Array
    mask: jax.Array
    payoff: jax.Array
    alive: jax.Array
    time: Any


class ProbeEnv(environment.Environment[ProbeState, environment.EnvParams]):
    """Observation: a token `[D]`. Action: an answer, `Discrete(A)`. A trial's return is the probe's score.

    A trial is an episode, or the part of one between two resets, and ends by itself: `terminated`.
    `reset_env(key)` begins the very episode that `probe.episode(key)` is.
    """

    never_truncates = True

    def __init__(self, probe: Probe):
        super().__init__()
        if probe.closed_loop:
            raise ValueError(f"{type(probe).__name__} imitates a policy; act in its own environment instead")
        if probe.together > 1:
            raise ValueError(
                f"{type(probe).__name__} compares episodes with one another; use its `sequences`"
            )
        self.probe = probe
        self.steps = probe.length // probe.trials

    @property
    def name(self) -> str:
        """The probe's class."""
        return type(self.probe).__name__

    @property
    def default_params(self) -> environment.EnvParams:
        """The length follows from the probe."""
        return environment.EnvParams(max_steps_in_episode=self.steps)

    def reset_env(self, key: Array, params: Any) -> tuple[Array, ProbeState]:
        """A fresh episode, at its first token."""
        episode = self.probe.episode(key)
        state = ProbeState(
            tokens=episode.tokens[: self.steps],
            targets=episode.targets[: self.steps],
            mask=episode.mask[: self.steps],
            payoff=episode.payoff[: self.steps] * self.probe.trials,
            alive=jnp.ones((), bool),
            time=jnp.int32(0),
        )
        return state.tokens[0], state

    def step_env(
        self, key: Array, state: ProbeState, action: Any, params: Any
    ) -> tuple[Array, ProbeState, Array, Array, dict[Any, Any]]:
        """Pay the answer to the present token, then show the next; after the last, the last once more."""
        reward = jnp.where(state.alive, state.payoff[state.time, action], 0.0)
        right = ~state.mask[state.time] | (action == state.targets[state.time])
        if self.probe.prefix:
            reward = jnp.where(right, reward, 0.0)
            state = dataclasses.replace(state, alive=state.alive & right)
        state = dataclasses.replace(state, time=state.time + 1)
        return self.observe(key, state, action, params), state, reward, self.is_terminated(state, params), {}

    def observe(self, key: Array, state: ProbeState, action: Any, params: Any) -> Float[Array, " D"]:
        """The present token."""
        return state.tokens[jnp.minimum(state.time, self.steps - 1)]

    def is_terminated(self, state: ProbeState, params: Any) -> Array:
        """Whether every token has been answered."""
        return state.time >= self.steps

    @property
    def num_actions(self) -> int:
        """One action per answer."""
        return self.probe.num_answers

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """The answers."""
        return spaces.Discrete(self.probe.num_answers)

    def observation_space(self, params: Any) -> spaces.Box:
        """Tokens: one-hot symbols, flags, and vectors where the probe has them."""
        return spaces.Box(-jnp.inf, jnp.inf, (self.probe.width,), jnp.float32)


def probe_env(name: str, **options: Any) -> "BaseEnv":
    """A probe by name as a base environment (see `envs.base`); raises `ValueError` as `make_probe` does."""
    from ..base import BaseEnv
    from .registry import make_probe

    env = ProbeEnv(make_probe(name, **options))
    return BaseEnv(f"probe_{name}", env, env.default_params)
