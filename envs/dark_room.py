"""Dark Room (Laskin et al., arXiv 2210.14215): find a goal that cannot be seen, then remember it.

The agent starts a trial in the centre of an n × n room, sees only its own position, and earns 1 for every
step that ends on the goal. The goal belongs to the task: it is part of the parameters and stays where it
is over all trials of the task. A trial lasts 20 steps, a time limit, so `truncated`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Int

MOVES = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))


@struct.dataclass
class DarkRoomState(environment.EnvState):
    """`position` is (row, column), int32[2]."""

    position: jax.Array
    time: Any


@struct.dataclass
class DarkRoomParams(environment.EnvParams):
    """`goal` is (row, column), int32[2]: the task."""

    goal: Any = (0, 0)
    max_steps_in_episode: int = 20


class DarkRoom(environment.Environment[DarkRoomState, DarkRoomParams]):
    """Observation: the cell, `Discrete(n * n)`. Action: stay, down, up, right or left, `Discrete(5)`."""

    def __init__(self, size: int = 9):
        super().__init__()
        if size < 2:
            raise ValueError(f"size={size} leaves nowhere to go; use 2 or more")
        self.size = size
        self.num_tasks = size * size

    @property
    def default_params(self) -> DarkRoomParams:
        """The goal in a corner."""
        return DarkRoomParams(goal=jnp.zeros(2, jnp.int32))

    def indexed_task_params(self, index: Int[Array, ""] | int, params: Any) -> Any:
        """`params` with the goal in cell `index`, 0 to `num_tasks − 1`, row by row; `index` may be traced."""
        cell = jnp.asarray(index, jnp.int32)
        return params.replace(goal=jnp.stack([cell // self.size, cell % self.size]))

    def reset_env(self, key: Array, params: Any) -> tuple[Array, DarkRoomState]:
        """The centre of the room."""
        state = DarkRoomState(position=jnp.full((2,), self.size // 2, jnp.int32), time=jnp.int32(0))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Array, state: DarkRoomState, action: Any, params: Any
    ) -> tuple[Array, DarkRoomState, Array, Array, dict[Any, Any]]:
        """Move, walls permitting; 1 on the goal."""
        position = jnp.clip(state.position + jnp.array(MOVES, jnp.int32)[action], 0, self.size - 1)
        reward = jnp.all(position == params.goal).astype(jnp.float32)
        state = DarkRoomState(position=position, time=state.time + 1)
        return self.observe(key, state, action, params), state, reward, self.is_terminated(state, params), {}

    def observe(self, key: Array, state: DarkRoomState, action: Any, params: Any) -> Int[Array, ""]:
        """The cell's index, row by row."""
        return state.position[0] * self.size + state.position[1]

    def is_terminated(self, state: DarkRoomState, params: Any) -> Array:
        """Never: only the time limit ends a trial."""
        return jnp.zeros((), bool)

    @property
    def num_actions(self) -> int:
        """Four moves and staying."""
        return len(MOVES)

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """Stay, down, up, right, left."""
        return spaces.Discrete(len(MOVES))

    def observation_space(self, params: Any) -> spaces.Discrete:
        """The cells of the room."""
        return spaces.Discrete(self.size * self.size)
