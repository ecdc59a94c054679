"""MineSweeper (POPGym, Morad et al. 2023, arXiv 2303.01859) on a board that is never shown.

m mines lie on an n × n board. Every action views a cell; all that is seen is how many mines lie in the 3 × 3
cells around it, its own included. A view of a fresh cell pays 1/T, T = n² − m being both the cells without
mines and the time limit; a cell viewed before costs 1/(2(T − 2)); a mine costs 1/2 + 1/T and ends the
trial, as does the last fresh cell (`terminated`). After T actions it is `truncated`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Int


@struct.dataclass
class MineSweeperState(environment.EnvState):
    """`mines` and `viewed` [n, n] are cells; `seen` is the last count."""

    mines: jax.Array
    viewed: jax.Array
    seen: jax.Array
    time: Any


def around(cells: Array) -> Int[Array, "n n"]:
    """How many of the 3 × 3 cells around each cell are set, its own included, int32."""
    n, padded = cells.shape[0], jnp.pad(cells.astype(jnp.int32), 1)
    return jnp.asarray(sum(padded[i : i + n, j : j + n] for i in range(3) for j in range(3)))


class MineSweeper(environment.Environment[MineSweeperState, environment.EnvParams]):
    """Observation: the count, `Discrete(min(m + 1, 10))`. Action: a cell, row by row, `Discrete(n * n)`."""

    def __init__(self, board_size: int = 4, mines: int = 2):
        super().__init__()
        if mines < 1 or board_size**2 - mines < 3:
            raise ValueError(
                f"mines={mines} does not fit board_size={board_size}; use 1 or more and leave 3 cells free"
            )
        self.board_size = board_size
        self.mines = mines

    @property
    def default_params(self) -> environment.EnvParams:
        """As many views as there are cells without mines."""
        return environment.EnvParams(max_steps_in_episode=self.board_size**2 - self.mines)

    def reset_env(self, key: Array, params: Any) -> tuple[Array, MineSweeperState]:
        """New mines; POPGym shows a count of 0 before the first view."""
        shape = (self.board_size, self.board_size)
        ranks = jax.random.permutation(key, self.board_size**2)
        state = MineSweeperState(
            mines=(ranks < self.mines).reshape(shape),
            viewed=jnp.zeros(shape, bool),
            seen=jnp.int32(0),
            time=jnp.int32(0),
        )
        return state.seen, state

    def step_env(
        self, key: Array, state: MineSweeperState, action: Any, params: Any
    ) -> tuple[Array, MineSweeperState, Array, Array, dict[Any, Any]]:
        """View a cell."""
        fresh = self.board_size**2 - self.mines
        cell = (jnp.arange(self.board_size**2) == action).reshape(state.mines.shape)
        exploded, again = (cell & state.mines).any(), (cell & state.viewed).any()
        reward = jnp.where(again, -0.5 / (fresh - 2), jnp.where(exploded, -0.5 - 1.0 / fresh, 1.0 / fresh))
        seen = jnp.sum(around(state.mines) * cell)
        viewed = state.viewed | (cell & ~state.mines)
        state = MineSweeperState(mines=state.mines, viewed=viewed, seen=seen, time=state.time + 1)
        return seen, state, reward, exploded | (viewed | state.mines).all(), {}

    def observe(self, key: Array, state: MineSweeperState, action: Any, params: Any) -> Array:
        """The count around the cell last viewed."""
        return state.seen

    @property
    def num_actions(self) -> int:
        """One per cell."""
        return self.board_size**2

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """The cells, row by row; POPGym's (row, column) in one number."""
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: Any) -> spaces.Discrete:
        """The counts."""
        return spaces.Discrete(min(self.mines + 1, 10))
