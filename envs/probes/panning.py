"""P13, a camera that comes back: what a place looks like that was in view before."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .base import ITEM, QUERY, Episode
from .sprites import COLOURS, Film, paint

Pair = tuple[Array, Array]
MOVES = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])  # of the camera, in cells: right, down, left, up


@dataclasses.dataclass(frozen=True, kw_only=True)
class Revisit(Film):
    """Colours at places of a world of `cells` x `cells` squares, larger than what the camera sees.

    The world wraps around, and has a square of random colour in each of its cells; the camera sees three by
    three of them and goes from cell to neighbouring cell at random. A token says which way it went. In the
    last `queries` frames it is dark, and goes only where it was before: asked is the colour in the middle.
    """

    cells: int = 5
    queries: int = 8
    canvas: int = 12

    knob: ClassVar[str] = "queries"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need(
            "canvas", self.canvas % 6 == 0, "must be a multiple of 6: three cells, half of each coloured"
        )
        self.need("cells", self.cells >= 4, "must be 4 or more, larger than what is seen")
        self.need("queries", self.queries >= 1, "asks for nothing; use 1 or more")
        least = self.queries + 2
        self.need("length", self.length >= least, f"has no room to look about; use {least} or more")

    @property
    def fields(self) -> dict[str, int]:
        """Which way the camera went, and what it sees."""
        return {"move": len(MOVES), **super().fields}

    @property
    def scope(self) -> int:
        """Every move since the place was seen, and the sight of it."""
        return self.length - 1

    def episode(self, key: Array) -> Episode:
        """A walk of the camera."""
        key_world, key_start, key_walk = jax.random.split(key, 3)
        world = jax.random.randint(key_world, (self.cells, self.cells), 0, self.colours)
        start = jax.random.randint(key_start, (2,), 0, self.cells)
        step = jnp.arange(self.length)
        dark = step >= self.length - self.queries

        def walk(state: Pair, inputs: tuple[Array, Array, Array]) -> tuple[Pair, Pair]:
            at, been = state
            key, back, first = inputs
            near = (at + jnp.asarray(MOVES)) % self.cells
            allowed = ~back | been[near[:, 0], near[:, 1]]
            move = jax.random.categorical(key, jnp.where(allowed, 0.0, -1e9))
            at = jnp.where(first, at, near[move])
            return (at, been.at[at[0], at[1]].set(True)), (at, jnp.where(first, -1, move))

        keys = jax.random.split(key_walk, self.length)
        begin = start, jnp.zeros((self.cells, self.cells), bool)
        at, moves = jax.lax.scan(walk, begin, (keys, dark, step == 0))[1]
        offsets = jnp.stack(jnp.meshgrid(jnp.arange(3), jnp.arange(3), indexing="ij"), -1).reshape(9, 2)
        unit = self.canvas // 3
        corners = offsets * unit + unit / 4

        def look(at: Array) -> Array:
            seen = (at + offsets - 1) % self.cells
            colours = jnp.asarray(COLOURS)[world[seen[:, 0], seen[:, 1]]]
            return paint(self.canvas, unit // 2, corners, colours)

        film = jnp.where(dark[:, None, None, None], 0.0, jax.vmap(look)(at))
        phase = jnp.where(dark, QUERY, ITEM)
        tokens = self.encode(phase, move=moves, frame=film.reshape(self.length, -1))
        return self.ask(tokens, world[at[:, 0], at[:, 1]], dark)
