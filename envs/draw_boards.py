"""Drawings of boards that the agent never sees whole: Battleship, MineSweeper, labyrinths."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from .draw_canvas import ACCENT, FAINT, GOAL, INK, MUTED, Canvas, Last
from .draw_grid import Board
from .memory.labyrinth import START, WALL
from .memory.minesweeper import around


def _last_cell(board: Board, columns: int, last: Last) -> None:
    if last.choice is not None:
        board.ring(*divmod(last.choice, columns), ACCENT)


def _battleship(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """Water, ships and shots: a full disc is a hit, a small one a miss; the last shot has a ring."""
    ships, shots = np.asarray(state.ships), np.asarray(state.shots)
    board = Board(canvas, *ships.shape)
    for (row, column), ship in np.ndenumerate(ships):
        board.fill(row, column, MUTED if ship else "#e3eef6")
        if shots[row, column]:
            board.disc(row, column, ACCENT if ship else INK, 0.3 if ship else 0.12)
    _last_cell(board, ships.shape[1], last)


def _minesweeper(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """Counts where the agent looked, mines in black; the last view has a ring."""
    mines, viewed = np.asarray(state.mines), np.asarray(state.viewed)
    counts = np.asarray(around(jnp.asarray(mines)))
    board = Board(canvas, *mines.shape)
    for (row, column), mine in np.ndenumerate(mines):
        board.fill(row, column, "#ffffff" if viewed[row, column] else FAINT)
        if mine:
            board.disc(row, column, INK, 0.26)
        elif viewed[row, column]:
            canvas.text(board.center(row, column), str(counts[row, column]), 0.5 * board.cell, GOAL)
    _last_cell(board, mines.shape[1], last)


def _labyrinth(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """Walls, cells entered so far, the exit if there is one, the nine cells in view, the agent's disc."""
    grid, entered = np.asarray(state.grid), np.asarray(state.entered)
    here = np.asarray(state.position)
    board = Board(canvas, *grid.shape)
    for (row, column), kind in np.ndenumerate(grid):
        color = INK if kind == WALL else "#bcd9e8" if entered[row, column] else "#f1efe9"
        board.fill(row, column, color, inset=-0.01 if kind == WALL else 0.03, rounding=0)
        if kind > START:
            board.ring(row, column)
    corner = (board.left + (here[1] - 1) * board.cell, board.top + (here[0] - 1) * board.cell)
    canvas.box(corner, (3 * board.cell, 3 * board.cell), None, ACCENT, 0.006, 0.01)
    board.disc(int(here[0]), int(here[1]), ACCENT)


DRAWINGS = {
    "Battleship": _battleship,
    "MineSweeper": _minesweeper,
    "LabyrinthEscape": _labyrinth,
    "LabyrinthExplore": _labyrinth,
}
