"""A point in the square [−1, 1]² steered to a goal that it sees: the lightest continuous task.

x ← clip(x + speed · clip(a, −1, 1), −1, 1) from the origin, with a goal g drawn uniformly for every trial;
each step pays 1 − min(1, ‖x − g‖). A trial lasts 50 steps, a time limit, so `truncated`. Going straight
for the goal at full speed along each axis is optimal.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Float


@struct.dataclass
class PointMassState(environment.EnvState):
    """`position` and `goal` are float32[2]."""

    position: jax.Array
    goal: jax.Array
    time: Any


@struct.dataclass
class PointMassParams(environment.EnvParams):
    """`speed` is the distance that a unit action covers in a step."""

    speed: float = 0.1
    max_steps_in_episode: int = 50


class PointMass(environment.Environment[PointMassState, PointMassParams]):
    """Observation: position and goal, four entries. Action: a velocity in [−1, 1]²."""

    @property
    def default_params(self) -> PointMassParams:
        """See the module."""
        return PointMassParams()

    def reset_env(self, key: Array, params: Any) -> tuple[Array, PointMassState]:
        """The origin and a fresh goal."""
        goal = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        state = PointMassState(position=jnp.zeros(2), goal=goal, time=jnp.int32(0))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Array, state: PointMassState, action: Any, params: Any
    ) -> tuple[Array, PointMassState, Array, Array, dict[Any, Any]]:
        """Move, then pay for being near."""
        position = jnp.clip(state.position + params.speed * jnp.clip(action, -1.0, 1.0), -1.0, 1.0)
        reward = 1.0 - jnp.minimum(1.0, jnp.sqrt(jnp.sum((position - state.goal) ** 2)))
        state = PointMassState(position=position, goal=state.goal, time=state.time + 1)
        return self.observe(key, state, action, params), state, reward, self.is_terminated(state, params), {}

    def observe(self, key: Array, state: PointMassState, action: Any, params: Any) -> Float[Array, " 4"]:
        """Position, then goal."""
        return jnp.concatenate([state.position, state.goal])

    def is_terminated(self, state: PointMassState, params: Any) -> Array:
        """Never: only the time limit ends a trial."""
        return jnp.zeros((), bool)

    @property
    def num_actions(self) -> int:
        """Two axes."""
        return 2

    def action_space(self, params: Any = None) -> spaces.Box:
        """A velocity along each axis."""
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def observation_space(self, params: Any) -> spaces.Box:
        """Position and goal in the square."""
        return spaces.Box(-1.0, 1.0, (4,), jnp.float32)
