"""P11, Pathfinder (Linsley et al. 2018, arXiv 1805.08315; as a sequence of pixels in the Long Range Arena,
Tay et al. 2020, arXiv 2011.04006): does a line lead from one dot to the other?"""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .base import ITEM, QUERY, Episode, Probe

_MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pathfinder(Probe):
    """A picture of k × k pixels, row by row, k odd and `length` = k² + 1; the last step asks.

    Two lines of `reach` bends at most, and `distractors` more, wind about the picture without touching.
    Dots lie at both ends of one of the two, or at an end of each, equally often: a pixel is empty, a line or
    a dot.
    """

    length: int = 122
    reach: int = 12
    distractors: int = 2

    knob: ClassVar[str] = "length"

    def __post_init__(self) -> None:
        fits = self.side >= 5 and self.side % 2 == 1 and self.side**2 + 1 == self.length
        nearest = max(round((math.sqrt(max(self.length - 1, 0)) - 1) / 2), 2) * 2 + 1
        self.need("length", fits, f"is not the square of an odd number from 5, and one; use {nearest**2 + 1}")
        self.need("reach", self.reach >= 1, "is no line; use 1 or more")
        most = self.side // 2
        self.need("distractors", 0 <= self.distractors <= most, f"must be 0 to {most} in {self.side} pixels")

    @property
    def side(self) -> int:
        """k."""
        return math.isqrt(max(self.length - 1, 0))

    @property
    def fields(self) -> dict[str, int]:
        """Nothing where a pixel is empty."""
        return {"line": 1, "dot": 1}

    @property
    def num_answers(self) -> int:
        """0: two lines, 1: the same."""
        return 2

    @property
    def scope(self) -> int:
        """The whole picture."""
        return self.length - 1

    def frames(self, tokens: Float[Array, "T D"]) -> Float[Array, "1 k k 3"]:
        """The picture, in [0, 1], for looking at."""
        line, dot = (self.field(tokens, name)[:-1].reshape(self.side, self.side) for name in ("line", "dot"))
        return jnp.stack([line / 2 + dot, line / 2 + dot / 3, line / 2], -1)[None]

    def episode(self, key: Array) -> Episode:
        """Lines, two dots, and whether a line joins them."""
        key_lines, key_which, key_ends, key_same = jax.random.split(key, 4)
        drawn, tails, heads = self._lines(key_lines)
        same = jax.random.bernoulli(key_same)
        one = jax.random.randint(key_which, (), 0, 2)
        ends = jnp.stack([tails, heads], 1)  # [line, end, 2]
        first, second = jax.random.randint(key_ends, (2,), 0, 2)
        other = jnp.where(same, ends[one, 1 - first], ends[1 - one, second])
        dots = jnp.zeros_like(drawn)
        for place in (ends[one, first], other):
            dots = dots.at[2 * place[0], 2 * place[1]].set(True)
        last = jnp.arange(self.length) == self.length - 1

        def pixels(picture: Array) -> Array:
            return jnp.concatenate([picture.reshape(-1), jnp.zeros(1)])[:, None].astype(jnp.float32)

        tokens = self.encode(jnp.where(last, QUERY, ITEM), line=pixels(drawn & ~dots), dot=pixels(dots))
        return self.ask(tokens, jnp.full(self.length, same.astype(jnp.int32)), last)

    def _lines(self, key: Array) -> tuple[Bool[Array, "k k"], Int[Array, "2 2"], Int[Array, "2 2"]]:
        """What is drawn, and both ends of the first two lines, as cells.

        Lines walk from cell to free cell, each of which is every other pixel of every other row: so they
        never touch. Each has two cells, if it can, before the next begins: the first two always can, and so
        have two ends.
        """
        cells, lines = self.side // 2 + 1, 2 + self.distractors
        key_start, key_walk = jax.random.split(key)

        def begin(state: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
            free, drawn = state
            key_at, key_to = jax.random.split(key)
            index = jax.random.categorical(key_at, jnp.where(free, 0.0, -jnp.inf).reshape(-1))
            tail = jnp.stack([index // cells, index % cells])
            free, drawn = free.at[tail[0], tail[1]].set(False), drawn.at[2 * tail[0], 2 * tail[1]].set(True)
            free, drawn, head = _grow(free, drawn, tail, key_to)
            return (free, drawn), (tail, head)

        def step(state: tuple[Array, Array, Array], inputs: tuple[Array, Array]) -> tuple[Any, None]:
            free, drawn, heads = state
            key, line = inputs
            free, drawn, head = _grow(free, drawn, heads[line], key)
            return (free, drawn, heads.at[line].set(head)), None

        state = jnp.ones((cells, cells), bool), jnp.zeros((self.side, self.side), bool)
        state, (tails, heads) = jax.lax.scan(begin, state, jax.random.split(key_start, lines))
        turns = jnp.arange(self.reach * lines) % lines
        _, drawn, heads = jax.lax.scan(
            step, (*state, heads), (jax.random.split(key_walk, turns.size), turns)
        )[0]
        return drawn, tails[:2], heads[:2]


def _grow(
    free: Bool[Array, "c c"], drawn: Bool[Array, "k k"], head: Int[Array, "2"], key: Array
) -> tuple[Array, Array, Array]:
    """One step of a line to a free neighbour, if there is one."""
    near = head + jnp.array(_MOVES)
    inside = ((near >= 0) & (near < free.shape[0])).all(-1)
    open_ = inside & free[near[:, 0], near[:, 1]]
    to = near[jax.random.categorical(key, jnp.where(open_, 0.0, -1e9))]
    to = jnp.where(open_.any(), to, head)
    free = free.at[to[0], to[1]].set(False)
    drawn = drawn.at[2 * to[0], 2 * to[1]].set(True).at[to[0] + head[0], to[1] + head[1]].set(True)
    return free, drawn, to
