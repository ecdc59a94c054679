"""Drawings of grids: rooms, lakes, MinAtar, catch, deep sea, pong."""

import functools
from typing import Any

import jax
import numpy as np

from .draw_canvas import ACCENT, CATEGORIES, FAINT, GOAL, INK, MUTED, Canvas, Last


class Board:
    """`rows` by `columns` square cells in the middle of a canvas."""

    def __init__(self, canvas: Canvas, rows: int, columns: int) -> None:
        self.canvas = canvas
        self.cell = 0.94 / max(rows, columns)
        self.left = 0.5 - self.cell * columns / 2
        self.top = 0.5 - self.cell * rows / 2
        self.extent = (self.cell * columns, self.cell * rows)

    def frame(self, fill: str | None = "#ffffff", outline: str = MUTED) -> None:
        """The board's edge and ground."""
        self.canvas.box((self.left, self.top), self.extent, fill, outline, radius=0.01)

    def center(self, row: float, column: float) -> tuple[float, float]:
        """The middle of a cell on the canvas."""
        return self.left + (column + 0.5) * self.cell, self.top + (row + 0.5) * self.cell

    def fill(
        self, row: float, column: float, color: str, inset: float = 0.04, rounding: float = 0.12
    ) -> None:
        """A cell in one colour; `inset` and `rounding` are fractions of its side."""
        corner = (self.left + (column + inset) * self.cell, self.top + (row + inset) * self.cell)
        side = self.cell * (1 - 2 * inset)
        self.canvas.box(corner, (side, side), color, radius=rounding * self.cell)

    def disc(self, row: float, column: float, color: str, radius: float = 0.34) -> None:
        """A disc in a cell."""
        self.canvas.circle(self.center(row, column), radius * self.cell, color)

    def ring(self, row: float, column: float, color: str = GOAL) -> None:
        """A ring in a cell."""
        self.canvas.circle(self.center(row, column), 0.38 * self.cell, None, color, 0.14 * self.cell)

    def cells(self, color: str = FAINT) -> None:
        """All cells in one colour."""
        rows, columns = round(self.extent[1] / self.cell), round(self.extent[0] / self.cell)
        for row in range(rows):
            for column in range(columns):
                self.fill(row, column, color)


def _cell(value: Any) -> tuple[int, int]:
    row, column = (int(v) for v in np.ravel(value)[:2])
    return row, column


def _maze(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """Walls, a goal ring, the agent's disc; `env_map` is true where one may walk."""
    walkable = np.asarray(env.env_map).astype(bool)
    board = Board(canvas, *walkable.shape)
    for row, column in np.argwhere(~walkable):
        board.fill(row, column, INK, inset=-0.01, rounding=0)
    for row, column in np.argwhere(walkable):
        board.fill(row, column, "#f1efe9", inset=0.03)
    board.ring(*_cell(state.goal))
    board.disc(*_cell(state.pos), ACCENT)


def _dark_room(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """An empty room whose goal, part of the parameters, the agent cannot see; the viewer can."""
    size = int(env.size)
    board = Board(canvas, size, size)
    board.frame(INK, INK)
    board.cells("#3f4d63")
    board.ring(*_cell(params.goal), "#7fd1c4")
    board.disc(*_cell(state.position), ACCENT)


def _frozen_lake(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """Ice, holes, start and goal; position is row-major."""
    tiles = np.asarray(env.desc)  # 0 start, 1 frozen, 2 hole, 3 goal
    board = Board(canvas, *tiles.shape)
    for (row, column), tile in np.ndenumerate(tiles):
        board.fill(row, column, "#e3eef6" if tile != 2 else "#9fb8cc", 0.03)
        if tile == 2:
            board.disc(row, column, INK, 0.36)
        elif tile == 3:
            board.ring(row, column)
        elif tile == 0:
            board.canvas.text(board.center(row, column), "start", 0.26 * board.cell, MUTED)
    board.disc(*divmod(int(state.position), tiles.shape[1]), ACCENT, 0.26)


def _deep_sea(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """A descent of one row a step; the treasure lies bottom right."""
    size = int(env.size)
    board = Board(canvas, size, size)
    for row in range(size):
        shade = row / max(size - 1, 1)
        color = "#" + "".join(
            f"{round(a + (b - a) * shade):02x}" for a, b in ((219, 96), (234, 125), (244, 158))
        )
        for column in range(size):
            board.fill(row, column, color if column <= row else "#f1efe9", 0.03)
    board.ring(size - 1, size - 1, "#e9b44c")
    board.disc(min(int(state.row), size - 1), int(state.column), ACCENT)


def _catch(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """A ball falls; the paddle should be under it."""
    board = Board(canvas, int(env.rows), int(env.columns))
    board.cells("#efeee9")
    board.fill(int(state.paddle_y), int(state.paddle_x), ACCENT, 0.03, 0.3)
    board.disc(int(state.ball_y), int(state.ball_x), INK)


def _pong(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """Two paddles and a ball with a trail. The agent's paddle is the left, loud one."""
    board = Board(canvas, int(env.height), int(env.width))
    board.frame()
    for row in range(0, int(env.height), 2):
        board.fill(row, env.width / 2 - 0.5, FAINT, 0.3)
    tall = 2 * int(env.paddle_half_height) + 1
    for column, center, color in zip(
        (0, env.width - 1), np.asarray(state.paddle_centers), (ACCENT, INK), strict=True
    ):
        top = np.floor(center) - env.paddle_half_height
        corner = (board.left + column * board.cell, board.top + top * board.cell)
        canvas.box(corner, (board.cell, tall * board.cell), color, radius=board.cell / 2)
    for ball, color in ((state.last_ball_position, MUTED), (state.ball_position, INK)):
        row, column = np.floor(np.asarray(ball, float))
        board.disc(np.clip(row, 0, env.height - 1), np.clip(column, 0, env.width - 1), color, 0.6)


@functools.partial(jax.jit, static_argnums=0)
def _observe(env: Any, state: Any, params: Any) -> jax.Array:
    # Compiled: MinAtar writes its picture entry by entry, hundreds of dispatches a frame otherwise.
    return env.get_obs(state, params)


# Which colour a channel gets (an index into CATEGORIES), the agent's first.
_MINATAR = {
    "MinAsterix": (0, 1, 2, 4),
    "MinBreakout": (0, 6, 2, 1),
    "MinFreeway": (0, 6, 2, 2, 2, 2, 2),
    "MinSeaquest": (0, 4, 1, 2, 5, 3, 6, 7, 8, 9),
    "MinSpaceInvaders": (0, 1, 1, 1, 4, 5),
}


def _minatar(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """The channels MinAtar observes, one colour each; earlier channels lie on top."""
    channels = np.asarray(_observe(env, state, params))
    colors = next(_MINATAR[cls.__name__] for cls in type(env).__mro__ if cls.__name__ in _MINATAR)
    board = Board(canvas, *channels.shape[:2])
    board.cells("#efeee9")
    for channel in reversed(range(channels.shape[-1])):
        for row, column in np.argwhere(channels[..., channel] > 0):
            board.fill(row, column, CATEGORIES[colors[channel]], 0.03, 0.18)


DRAWINGS = {
    "FourRooms": _maze,
    "MetaMaze": _maze,
    "DarkRoom": _dark_room,
    "FrozenLake": _frozen_lake,
    "DeepSea": _deep_sea,
    "Catch": _catch,
    "Pong": _pong,
    **dict.fromkeys(_MINATAR, _minatar),
}
