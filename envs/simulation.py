"""What brax and MuJoCo Playground have in common, as a gymnax 1.0 environment.

Both hand out an object with `reset(key)` and `step(state, action)`, whose states hold `obs`, `reward` and
`done`. `done` is `terminated`; the limit of 1000 steps is `truncated`. Physics that has blown up ends the
trial: with the last finite observation and no reward, so that no NaN ever reaches an agent.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Float


@struct.dataclass
class SimulationState(environment.EnvState):
    """The simulator's own state and the number of steps taken."""

    simulated: Any
    time: Any


class SimulatedEnvironment(environment.Environment[SimulationState, environment.EnvParams]):
    """An environment of a simulator under a registered name. Actions lie in [−1, 1]."""

    simulated = True

    def __init__(self, registered: str, simulator: Any, action_size: int):
        super().__init__()
        self.registered, self.simulator, self.action_size = registered, simulator, action_size

    @functools.cached_property
    def observation_size(self) -> int:
        """Entries of an observation; seconds the first time, for which a whole reset is traced."""
        # Abstract evaluation: the simulators' own `observation_size` may run a whole reset.
        return jax.eval_shape(self._reset, jax.random.key(0)).obs.shape[-1]

    def _reset(self, key: Array) -> Any:
        return self.simulator.reset(key)

    @property
    def default_params(self) -> environment.EnvParams:
        """The episode's limit."""
        return environment.EnvParams(max_steps_in_episode=1000)

    def reset_env(self, key: Array, params: Any) -> tuple[Float[Array, " D"], SimulationState]:
        """A fresh start."""
        state: Any = self._reset(key)
        return state.obs, SimulationState(simulated=state, time=jnp.int32(0))

    def step_env(
        self, key: Array, state: SimulationState, action: Any, params: Any
    ) -> tuple[Float[Array, " D"], SimulationState, Array, Array, dict[Any, Any]]:
        """One control step; actions are clipped to [−1, 1]."""
        after: Any = self.simulator.step(state.simulated, jnp.clip(action, -1.0, 1.0))
        lost = _lost(after)
        observation = jnp.where(lost, state.simulated.obs, after.obs)
        reward = jnp.where(lost, 0.0, after.reward)
        stepped = SimulationState(simulated=after, time=state.time + 1)
        return observation, stepped, reward, self.is_terminated(stepped, params), {}

    def observe(self, key: Array, state: SimulationState, action: Any, params: Any) -> Float[Array, " D"]:
        """The simulator's observation."""
        return state.simulated.obs

    def is_terminated(self, state: SimulationState, params: Any) -> Array:
        """The simulator's `done`, or physics that has blown up."""
        return (state.simulated.done > 0.5) | _lost(state.simulated)

    @property
    def name(self) -> str:
        """The registered name."""
        return self.registered

    @property
    def num_actions(self) -> int:
        """The number of actuators."""
        return self.action_size

    def action_space(self, params: Any = None) -> spaces.Box:
        """One entry per actuator."""
        return spaces.Box(-1.0, 1.0, (self.action_size,), jnp.float32)

    def observation_space(self, params: Any) -> spaces.Box:
        """Unbounded."""
        return spaces.Box(-jnp.inf, jnp.inf, (self.observation_size,), jnp.float32)


def _lost(state: Any) -> Array:
    return ~(jnp.isfinite(state.obs).all() & jnp.isfinite(state.reward))
