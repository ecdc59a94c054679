"""Battleship (POPGym, Morad et al. 2023, arXiv 2303.01859) on a board that is never shown.

Ships lie straight on an n × n board and may touch but not overlap. Every action shoots at a cell; all that
is seen is whether a cell never shot at before held a ship. A hit pays 1/H, H being the cells that the
ships fill, anything else costs 1/(n² − H): shooting at every cell once is worth 0, hits alone 1. The trial
ends when all ships are sunk (`terminated`), or after n² shots (`truncated`).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool


@struct.dataclass
class BattleshipState(environment.EnvState):
    """`ships` and `shots` [n, n] are cells; `hit` is 1 where the last shot was one."""

    ships: jax.Array
    shots: jax.Array
    hit: jax.Array
    time: Any


def windows(cells: Array, length: int) -> Array:
    """Sums over `length` cells in a row, beginning at each cell, downwards and rightwards: `[2, n, n]`.

    Windows that leave the board are −1.
    """
    n = cells.shape[0]
    along = []
    for lines in (cells, cells.T):
        sums = sum(lines[start : n - length + 1 + start].astype(jnp.int32) for start in range(length))
        along.append(jnp.pad(jnp.asarray(sums), ((0, length - 1), (0, 0)), constant_values=-1))
    return jnp.stack([along[0], along[1].T])


def spread(begins: Array, length: int) -> Array:
    """For every cell the sum of `begins` [2, n, n] over the windows that cover it: `windows` in reverse."""
    n = begins.shape[1]
    down, right = (jnp.pad(b, ((length - 1, 0), (0, 0))) for b in (begins[0], begins[1].T))
    cover = [sum(lines[start : start + n] for start in range(length)) for lines in (down, right)]
    return jnp.asarray(cover[0]) + jnp.asarray(cover[1]).T


def place(key: Array, ships: Bool[Array, "n n"], length: int) -> Bool[Array, "n n"]:
    """The board with one more ship, uniformly among the places where it is free to lie."""
    free = (windows(ships, length) == 0).ravel()
    begin = jnp.argmax(jnp.where(free, jax.random.uniform(key, free.shape), -1.0))
    chosen = (jnp.arange(free.size) == begin).reshape(2, *ships.shape)
    return ships | (spread(chosen.astype(jnp.int32), length) > 0)


class Battleship(environment.Environment[BattleshipState, environment.EnvParams]):
    """Observation: hit or not, `Discrete(2)`. Action: a cell, row by row, `Discrete(n * n)`."""

    def __init__(self, board_size: int = 8, ship_sizes: Sequence[int] = (2, 3, 3, 4)):
        super().__init__()
        self.board_size = board_size
        self.ship_sizes = tuple(ship_sizes)
        self.cells = sum(self.ship_sizes)
        # A ship blocks fewer places than this of another one, so that all of them fit however they fall.
        if not self.ship_sizes or min(self.ship_sizes) < 1 or board_size < 2 * max(self.ship_sizes):
            raise ValueError(
                f"board_size={board_size} is too small for ship_sizes={list(ship_sizes)}; "
                "use at least twice the longest ship, and ships of 1 or more"
            )

    @property
    def default_params(self) -> environment.EnvParams:
        """As many shots as there are cells."""
        return environment.EnvParams(max_steps_in_episode=self.board_size**2)

    def reset_env(self, key: Array, params: Any) -> tuple[Array, BattleshipState]:
        """Ships placed one after the other; no shot yet."""
        none = jnp.zeros((self.board_size, self.board_size), bool)
        ships = none
        for i, length in enumerate(self.ship_sizes):
            ships = place(jax.random.fold_in(key, i), ships, length)
        state = BattleshipState(ships=ships, shots=none, hit=jnp.int32(0), time=jnp.int32(0))
        return state.hit, state

    def step_env(
        self, key: Array, state: BattleshipState, action: Any, params: Any
    ) -> tuple[Array, BattleshipState, Array, Array, dict[Any, Any]]:
        """Shoot at a cell."""
        cell = (jnp.arange(self.board_size**2) == action).reshape(state.ships.shape)
        hit = (cell & state.ships & ~state.shots).any()
        reward = jnp.where(hit, 1.0 / self.cells, -1.0 / (self.board_size**2 - self.cells))
        state = BattleshipState(
            ships=state.ships, shots=state.shots | cell, hit=hit.astype(jnp.int32), time=state.time + 1
        )
        return state.hit, state, reward, self.is_terminated(state, params), {}

    def observe(self, key: Array, state: BattleshipState, action: Any, params: Any) -> Array:
        """Whether the last shot hit."""
        return state.hit

    def is_terminated(self, state: BattleshipState, params: Any) -> Array:
        """Whether all ships are sunk."""
        return (state.shots | ~state.ships).all()

    @property
    def num_actions(self) -> int:
        """One per cell."""
        return self.board_size**2

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """The cells, row by row; POPGym's (row, column) in one number."""
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: Any) -> spaces.Discrete:
        """Hit or not."""
        return spaces.Discrete(2)
