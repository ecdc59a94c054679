"""LabyrinthEscape and LabyrinthExplore (POPGym, Morad et al. 2023, arXiv 2303.01859): mazes seen from within.

A maze of n × n rooms, drawn on a grid of 2n + 1 cells a side; the agent enters by a gap in the outer wall and
sees the nine cells around itself and its last move. A move into a wall or off the grid changes nothing.
Every step costs 1/1024, except that

- in LabyrinthEscape the step onto the exit, a gap in the opposite wall, pays 1 more and ends the trial;
- in LabyrinthExplore a step onto a cell never entered before pays 1/F instead, F being the free cells
  without the entrance, and the trial ends when all have been entered.

Either end is `terminated`; after 1023 steps, one fewer than what scales the costs, a trial is `truncated`.

Mazes are Hunt-and-Kill's: a random walk carves passages to rooms not yet entered until it is stuck, then
goes on from a random room. POPGym stops hunting after a fixed number of tries, which leaves a room walled in
once in thousands of mazes; here none ever is. At an outer wall the view is POPGym's too: its rows and columns
beyond the grid are cut off and walls are added at its lower or right end instead.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Float, Int

FREE, WALL, START, GOAL, HIDDEN = range(5)
MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))  # left, right, up, down: (row, column)
NO_MOVE = len(MOVES)
COST_STEPS = 1024


@struct.dataclass
class LabyrinthState(environment.EnvState):
    """`grid` and `entered` [2n + 1, 2n + 1], `position` (row, column), `last` the last move."""

    grid: jax.Array
    entered: jax.Array
    position: jax.Array
    last: jax.Array
    time: Any


def _neighbours(rooms: int) -> np.ndarray:
    """The room each move leads to, rooms counted row by row, and `rooms²` for none: `[rooms², 4]`."""
    row, column = np.divmod(np.arange(rooms * rooms)[:, None], rooms)
    row, column = row + np.array(MOVES)[:, 0], column + np.array(MOVES)[:, 1]
    inside = (row >= 0) & (row < rooms) & (column >= 0) & (column < rooms)
    return np.where(inside, row * rooms + column, rooms * rooms)


def hunt_and_kill(draws: Float[Array, "R R+4"], rooms: int) -> Int[Array, "W W"]:
    """A maze without entrances, from R = rooms² rows of uniform numbers.

    0 is free, 1 wall; room (r, c) is cell (2r + 1, 2c + 1).
    """
    count, neighbours = rooms * rooms, jnp.array(_neighbours(rooms))
    first = jnp.argmax(draws[0, :count])

    def carve(loop: tuple[Array, Array], draw: Array) -> tuple[Any, Any]:
        entered, here = loop  # off the board everything counts as entered
        ways = entered[:count, None] & ~entered[neighbours]
        hunted = jnp.argmax(jnp.where(ways.any(1), draw[:count], -1.0))
        here = jnp.where(ways[here].any(), here, hunted)
        way = jnp.argmax(jnp.where(ways[here], draw[count:], -1.0))
        to = neighbours[here, way]
        return (entered | (jnp.arange(count + 1) == to), to), (here, way)

    places = jnp.arange(count + 1)
    start = (places == first) | (places == count), first
    _, (here, way) = jax.lax.scan(carve, start, draws[1:])
    grid = jnp.full((2 * rooms + 1,) * 2, WALL, jnp.int32).at[1::2, 1::2].set(FREE)
    passage = 2 * jnp.stack([here // rooms, here % rooms], -1) + 1 + jnp.array(MOVES)[way]
    return grid.at[passage[:, 0], passage[:, 1]].set(FREE)


class LabyrinthEscape(environment.Environment[LabyrinthState, environment.EnvParams]):
    """Observation: nine cells and the last move, ten one-hot vectors of 5. Action: left, right, up, down."""

    escape = True

    def __init__(self, rooms: int = 5):
        super().__init__()
        if rooms < 2:
            raise ValueError(f"rooms={rooms} is no maze; use 2 or more")
        self.rooms = rooms

    @property
    def default_params(self) -> environment.EnvParams:
        """POPGym's time limit, for every grade."""
        return environment.EnvParams(max_steps_in_episode=COST_STEPS - 1)

    def reset_env(self, key: Array, params: Any) -> tuple[Array, LabyrinthState]:
        """A new maze, entered by a gap in one of its four sides."""
        # One draw for everything: many draws take several times as long to compile.
        draws = jax.random.uniform(key, (self.rooms**2, self.rooms**2 + len(MOVES)))
        side, gaps = jnp.int32(4 * draws[0, -1]), jnp.int32(self.rooms * draws[0, -3:-1])
        begin, end = 2 * gaps + 1
        low, high = jnp.int32(0), jnp.int32(2 * self.rooms)
        near, far = jnp.where(side % 2 == 0, low, high), jnp.where(side % 2 == 0, high, low)
        start, goal = (
            jnp.where(side < 2, jnp.stack([edge, gap]), jnp.stack([gap, edge]))
            for edge, gap in ((near, begin), (far, end))
        )
        grid = hunt_and_kill(draws, self.rooms).at[start[0], start[1]].set(START)
        if self.escape:
            grid = grid.at[goal[0], goal[1]].set(GOAL)
        entered = jnp.zeros(grid.shape, bool).at[start[0], start[1]].set(True)
        state = LabyrinthState(
            grid=grid, entered=entered, position=start, last=jnp.int32(NO_MOVE), time=jnp.int32(0)
        )
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Array, state: LabyrinthState, action: Any, params: Any
    ) -> tuple[Array, LabyrinthState, Array, Array, dict[Any, Any]]:
        """Move, walls permitting."""
        action = jnp.int32(action)
        to = jnp.clip(state.position + jnp.array(MOVES)[action], 0, 2 * self.rooms)
        to = jnp.where(state.grid[to[0], to[1]] == WALL, state.position, to)
        known = state.entered[to[0], to[1]]
        entered = state.entered.at[to[0], to[1]].set(True)
        if self.escape:
            terminated = state.grid[to[0], to[1]] == GOAL
            reward = terminated - 1.0 / COST_STEPS
        else:
            terminated = (entered | (state.grid == WALL)).all()
            reward = jnp.where(known, -1.0 / COST_STEPS, 1.0 / (state.grid == FREE).sum())
        state = LabyrinthState(
            grid=state.grid, entered=entered, position=to, last=action, time=state.time + 1
        )
        return self.observe(key, state, action, params), state, reward, terminated, {}

    def observe(self, key: Array, state: LabyrinthState, action: Any, params: Any) -> Float[Array, " 50"]:
        """The cells around, and the last move (4: none yet)."""
        corner = jnp.maximum(state.position - 1, 0)
        padded = jnp.pad(state.grid, (0, 1), constant_values=WALL)
        view = jax.lax.dynamic_slice(padded, corner, (3, 3))
        inside = [corner[axis] + jnp.arange(3) <= state.position[axis] + 1 for axis in (0, 1)]
        view = jnp.where(inside[0][:, None] & inside[1], view, WALL)
        return jax.nn.one_hot(jnp.append(view.ravel(), state.last), 5).ravel()

    @property
    def num_actions(self) -> int:
        """Left, right, up, down."""
        return len(MOVES)

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """Left, right, up, down."""
        return spaces.Discrete(len(MOVES))

    def observation_space(self, params: Any) -> spaces.Box:
        """Ten one-hot vectors."""
        return spaces.Box(0.0, 1.0, (50,), jnp.float32)


class LabyrinthExplore(LabyrinthEscape):
    """The same maze without an exit, to be entered cell by cell; see the module."""

    escape = False
