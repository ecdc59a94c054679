"""Walks through mazes of textured walls: does a place that is seen again look the same?"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from ..clip import ActionSpace
from ..measures import psnr
from .raycast import PAINTS, Camera, cast, draw

FORWARD, LEFT, RIGHT = range(3)

# the cell to the north, east, south, west: rows count southwards
_WAYS = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]], np.int32)
_UNREACHED = 2**20


class Walk(NamedTuple):
    """Where the walker is: in units (`2 * steps` to a cell), headings clockwise from north, and whither."""

    row: Int[Array, ""]
    column: Int[Array, ""]
    heading: Int[Array, ""]
    goal: Int[Array, ""]
    goals: Int[Array, ""]  # reached so far


@dataclasses.dataclass(frozen=True)
class MazeWalk:
    """What a walker sees who goes to one random cell of a maze after the other, by a shortest way.

    Each clip has a maze of its own, `cells` x `cells` cells with thin walls: a random spanning tree, and of
    the walls that it leaves, the share `loops` removed. Every side of every wall has one of 64 paints (8
    colours with 8 patterns), by which places can be told apart. There are three actions: forward by
    1/`steps` of a cell, and a turn to the left or to the right by 1/`turns` of a right angle. Turns are made
    in the middle of cells. So poses are discrete, and the walker comes back to exactly the same ones, of
    which the picture is exactly the same.

    Held-out clips have other mazes, painted otherwise, since they have other keys; mazes are so many that
    none comes up twice. The paints themselves are the same 64.

    Truth: `pose` `[T, 3]` (row and column in cells from the maze's north-west corner, heading in radians
    clockwise from north), `cell` `[T]` (row · cells + column), `time` `[T]` (the frame's number in the clip),
    `first_seen` `[T]` (the number of the clip's first frame from that pose; `time` itself for a new one).
    """

    size: int = 64
    cells: int = 7
    steps: int = 4
    turns: int = 3
    loops: float = 0.2
    view: float = 80.0

    channels: ClassVar[int] = 3
    actions: ClassVar[ActionSpace] = ActionSpace("discrete", 3)

    def __post_init__(self) -> None:
        if self.size % 2 or not 32 <= self.size <= 1024:
            raise ValueError(f"data.size={self.size} must be even and between 32 and 1024; use 64")
        for name, low, high in (("cells", 2, 16), ("steps", 1, 8), ("turns", 1, 16)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"data.{name}={getattr(self, name)} must lie between {low} and {high}")
        if not 0 <= self.loops <= 1:
            raise ValueError(f"data.loops={self.loops} is a share of the walls; use 0 (none) to 1 (all)")
        if not 30 <= self.view <= 120:
            raise ValueError(f"data.view={self.view} degrees must lie between 30 and 120; use 80")

    @property
    def camera(self) -> Camera:
        """What draws a pose."""
        return Camera(self.size, self.cells, self.steps, self.turns, self.view)

    def clip(
        self, key: Array, start: Int[Array, ""], frames: int, held_out: bool
    ) -> tuple[UInt8[Array, "T H W 3"], Int[Array, " T"], dict[str, Array]]:
        """Frames `start` … `start + frames - 1` of the endless video that `key` names."""
        layout, colours, begin, goals = jax.random.split(key, 4)
        passages = make_maze(layout, self.cells, self.loops)
        paint = jax.random.randint(colours, (4 * self.cells**2,), 0, PAINTS)
        towards = routes(passages)
        seen = jnp.full((self.cells * self.steps) ** 2 * 4 * self.turns, -1, jnp.int32)

        def step(state: Any, _: Any = None) -> tuple[Any, Any]:
            walk, seen, time = state
            index = self._pose_index(walk)
            first = jnp.where(seen[index] < 0, time, seen[index])
            walk, action, after = self._step(walk, towards, goals)
            return (after, seen.at[index].set(first), time + 1), (walk, action, first)

        state = (self._begin(begin, goals), seen, jnp.int32(0))
        state = jax.lax.fori_loop(0, start, lambda _, s: step(s)[0], state)
        _, (walk, actions, first) = jax.lax.scan(step, state, length=frames)
        camera, walls = self.camera, ~passages.reshape(-1)

        def picture(walk: Walk) -> UInt8[Array, "H W 3"]:
            return draw(camera, cast(camera, walls, walk.row, walk.column, walk.heading), paint)

        heading = np.arange(4 * self.turns) * (np.pi / (2 * self.turns))
        place = jnp.stack([walk.row, walk.column], axis=-1)
        truth = {
            "pose": jnp.concatenate(
                [place / camera.unit, jnp.asarray(heading, jnp.float32)[walk.heading][:, None]], axis=-1
            ),
            "cell": self._cell(walk),
            "time": start + jnp.arange(frames, dtype=jnp.int32),
            "first_seen": first,
        }
        return jax.vmap(picture)(walk), actions, truth

    def measures(
        self, predicted: UInt8[np.ndarray, "T B H W 3"], truth: Mapping[str, np.ndarray]
    ) -> dict[str, Float[np.ndarray, "T B"]]:
        """`revisit_psnr` (dB) of frames from a pose that was seen before the first of these, `new_psnr` of
        the others; NaN in the other's place.

        What "these" are is the prediction: a pose counts as seen when the true video had shown it by the end
        of the context (of a context that begins with the clip), not when only predicted frames did. A new
        pose may show walls that are known from elsewhere. Needs truth's `time`, `first_seen` and `frame`.
        """
        value = psnr(predicted, truth["frame"])
        known = truth["first_seen"] < truth["time"][:1]
        return {"revisit_psnr": np.where(known, value, np.nan), "new_psnr": np.where(known, np.nan, value)}

    def _begin(self, key: Array, goals: Array) -> Walk:
        """In the middle of a random cell, towards a random side."""
        where, towards = jax.random.split(key)
        cell = jax.random.randint(where, (), 0, self.cells**2)
        row, column = (at * 2 * self.steps + self.steps for at in (cell // self.cells, cell % self.cells))
        heading = jax.random.randint(towards, (), 0, 4) * self.turns
        return Walk(row, column, heading, self._goal(goals, jnp.int32(0), cell), jnp.int32(0))

    def _goal(self, key: Array, number: Int[Array, ""], cell: Int[Array, ""]) -> Int[Array, ""]:
        """Any cell but this one."""
        other = jax.random.randint(jax.random.fold_in(key, number), (), 0, self.cells**2 - 1)
        return other + (other >= cell)

    def _cell(self, walk: Walk) -> Int[Array, "..."]:
        unit = 2 * self.steps
        return walk.row // unit * self.cells + walk.column // unit

    def _pose_index(self, walk: Walk) -> Int[Array, ""]:
        # the middle of a cell and all steps from it are whole steps from each other
        width = self.cells * self.steps
        return (walk.row // 2 * width + walk.column // 2) * (4 * self.turns) + walk.heading

    def _step(
        self, walk: Walk, towards: Int[Array, "N N"], goals: Array
    ) -> tuple[Walk, Int[Array, ""], Walk]:
        """The walk with the goal that it has now, what is done there, and the walk after that."""
        unit, cell = 2 * self.steps, self._cell(walk)
        middle = (walk.row % unit == self.steps) & (walk.column % unit == self.steps)
        arrived = middle & (cell == walk.goal)
        reached = walk.goals + arrived
        walk = walk._replace(
            goal=jnp.where(arrived, self._goal(goals, reached, cell), walk.goal), goals=reached
        )
        about = 4 * self.turns
        to_turn = (towards[cell, walk.goal] * self.turns - walk.heading) % about
        turn = jnp.where(to_turn <= about // 2, RIGHT, LEFT)
        action = jnp.where(middle & (to_turn != 0), turn, FORWARD)
        ahead = jnp.asarray(2 * _WAYS)[walk.heading // self.turns] * (action == FORWARD)
        after = walk._replace(
            row=walk.row + ahead[0],
            column=walk.column + ahead[1],
            heading=(walk.heading + (action == RIGHT) - (action == LEFT)) % about,
        )
        return walk, action, after


def make_maze(key: Array, cells: int, loops: float) -> Bool[Array, "N 4"]:
    """Which sides (north, east, south, west) of each of `cells` x `cells` cells are open.

    A spanning tree of the grid by Prim's algorithm on random weights, and `loops` (a share) of the remaining
    inner walls removed, so that there is more than one way.
    """
    first, second, side = _inner_walls(cells)
    tree, extra = jax.random.split(key)
    weight = 1 + jax.random.permutation(tree, len(first))

    def grow(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        inside, opened = state
        wall = jnp.argmax(jnp.where(inside[first] != inside[second], weight, 0))
        ends = jnp.stack([jnp.asarray(first)[wall], jnp.asarray(second)[wall]])
        return inside.at[ends].set(True), opened.at[wall].set(True)

    inside = jnp.zeros(cells**2, bool).at[0].set(True)
    state = (inside, jnp.zeros(len(first), bool))
    opened = jax.lax.fori_loop(0, cells**2 - 1, grow, state)[1]
    more = round(loops * (len(first) - cells**2 + 1))
    if more:
        order = jnp.where(opened, -1, jax.random.permutation(extra, len(first)))
        opened |= order >= jnp.sort(order)[-more]
    sides = jnp.zeros((cells**2, 4), bool)
    return sides.at[first, side].set(opened).at[second, (side + 2) % 4].set(opened)


def routes(passages: Bool[Array, "N 4"]) -> Int[Array, "N N"]:
    """`[here, goal]`: the side by which a shortest way leaves, the first of equals (Floyd-Warshall)."""
    count = len(passages)
    beside = _beside(round(count**0.5))
    rows = np.arange(count)[:, None]
    near = jnp.where(passages, 1, _UNREACHED)
    away = jnp.full((count, count), _UNREACHED).at[rows, beside].min(near)
    away = jnp.where(jnp.eye(count, dtype=bool), 0, away)
    away = jax.lax.fori_loop(0, count, lambda via, d: jnp.minimum(d, d[:, via, None] + d[via, None, :]), away)
    return jnp.argmin(jnp.where(passages[..., None], away[beside], _UNREACHED), axis=1).astype(jnp.int32)


@functools.cache
def _beside(cells: int) -> Int[np.ndarray, "N 4"]:
    """The cell beyond each side; the cell itself where there is none."""
    places = np.stack(np.divmod(np.arange(cells**2), cells), axis=-1)
    over = places[:, None] + _WAYS
    there = over @ np.array([cells, 1])
    inside = ((over >= 0) & (over < cells)).all(-1)
    return np.where(inside, there, np.arange(cells**2)[:, None]).astype(np.int32)


@functools.cache
def _inner_walls(cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cells that each wall parts, and on which side of the first it is: east or south."""
    beside = _beside(cells)
    first, side = np.nonzero((beside != np.arange(cells**2)[:, None]) & np.array([False, True, True, False]))
    return first.astype(np.int32), beside[first, side], side.astype(np.int32)
