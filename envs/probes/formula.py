"""P11, formulas: nested lists of operations (Nangia and Bowman 2018, arXiv 1804.06028), and long products."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .base import FILLER, ITEM, QUERY, Episode, Figure, Probe, exact
from .figures import simulated

OPERATIONS = ("max", "min", "median", "sum")  # of digits; the median rounded down, the sum modulo 10
CLOSE = 10 + len(OPERATIONS)  # symbols: ten digits, the operations that open a list, its end


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListOps(Probe):
    """One expression such as `[max 3 [sum 5 7] 1]`, its symbols one by one, and a question for its value.

    Lists are nested up to `depth` deep and have two to five parts. What the expression does not fill of
    `length` is filler before the question.
    """

    length: int = 32
    depth: int = 2

    knob: ClassVar[str] = "depth"

    def __post_init__(self) -> None:
        self.need("depth", self.depth >= 1, "must be 1 or more")
        self.need("length", self.length >= 5, "holds no list of two; use 5 or more")

    @property
    def fields(self) -> dict[str, int]:
        """A symbol."""
        return {"symbol": CLOSE + 1}

    @property
    def num_answers(self) -> int:
        """The digits."""
        return 10

    @property
    def scope(self) -> int:
        """The whole expression."""
        return self.length - 1

    def episode(self, key: Array) -> Episode:
        """A random expression."""
        symbols, value = self._expression(key)
        tokens = jnp.concatenate([symbols, jnp.full(1, -1)])
        last = jnp.arange(self.length) == self.length - 1
        phase = jnp.where(last, QUERY, jnp.where(tokens < 0, FILLER, ITEM))
        return self.ask(self.encode(phase, symbol=tokens), jnp.full(self.length, value), last)

    def _expression(self, key: Array) -> tuple[Int[Array, " T-1"], Int[Array, ""]]:
        """Symbols, −1 after the end, and the value: lists begin and end at random while there is room.

        Open lists lie on a stack: their operations, and how often they hold each digit.
        """
        levels, room = jnp.arange(self.depth), self.length - 1

        def step(state, inputs):
            level, operations, held, value = state
            key, time = inputs
            key_what, key_digit, key_operation = jax.random.split(key, 3)
            parts = held.sum(1)
            here = parts[level]
            # Steps that must be left to close all lists; a list that is open is a part of the one around it.
            missing = jnp.maximum(2 - parts - (levels < level), 0) + 1
            needed = jnp.where(levels <= level, missing, 0).sum()
            spare = room - time - needed
            begins, over = time == 0, (time > 0) & (level < 0)
            cost = jnp.where(here < 2, -1, 0)  # a part that is asked for anyway
            opens = (level + 1 < self.depth) & (here < 5) & (spare >= 4 + cost)
            adds = (here < 5) & (spare >= 1 + cost)
            weights = jnp.stack([3.0 * adds, 1.5 * opens, 1.0 * (here >= 2)])
            what = jax.random.categorical(key_what, jnp.log(weights))
            opening = begins | (~over & (what == 1))
            closing = ~begins & ~over & (what == 2)
            adding = ~begins & ~over & (what == 0)
            digit = jax.random.randint(key_digit, (), 0, 10)
            operation = jax.random.randint(key_operation, (), 0, len(OPERATIONS))
            result = _evaluate(operations[level], held[level])
            done = jnp.where(closing, result, digit)
            # A list that ends makes way, and is a part of the list around it.
            held = jnp.where(closing & (levels == level)[:, None], 0, held)
            into = jnp.where(closing, level - 1, level)
            grows = (adding | closing) & (into >= 0)
            held = held.at[jnp.maximum(into, 0), done].add(jnp.where(grows, 1, 0))
            level = jnp.where(opening, level + 1, into)
            operations = jnp.where(opening & (levels == level), operation, operations)
            value = jnp.where(closing & (level < 0), result, value)
            symbol = jnp.where(adding, digit, jnp.where(opening, 10 + operation, CLOSE))
            return (level, operations, held, value), jnp.where(over, -1, symbol)

        start = jnp.int32(-1), jnp.zeros(self.depth, int), jnp.zeros((self.depth, 10), int), jnp.int32(0)
        (_, _, _, value), symbols = jax.lax.scan(step, start, (jax.random.split(key, room), jnp.arange(room)))
        return symbols, value

    def blind(self) -> Figure:
        """The most frequent value."""
        return simulated(self, "blind")

    def blind_policy(self, key: Array, tokens: Array) -> Array:
        """Always zero."""
        return jnp.zeros(self.length, jnp.int32)


def _evaluate(operation: Array, held: Int[Array, "10"]) -> Int[Array, ""]:
    """The value of a list that holds each digit so many times."""
    digits, count = jnp.arange(10), held.sum()
    below = held.cumsum()

    def ranked(rank: Array) -> Array:
        return (below <= rank).sum()

    values = [
        jnp.where(held > 0, digits, 0).max(),
        jnp.where(held > 0, digits, 9).min(),
        (ranked((count - 1) // 2) + ranked(count // 2)) // 2,
        (held * digits).sum() % 10,
    ]
    return jnp.stack(values)[operation]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Multiply(Probe):
    """Two numbers of n = `length`/4 digits, then the 2n digits of their product; lowest digits first."""

    length: int = 8

    knob: ClassVar[str] = "length"
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        whole = self.length >= 4 and self.length % 4 == 0
        nearest = max(round(self.length / 4), 1) * 4
        self.need("length", whole, f"is not four times a number of digits; use {nearest}")

    @property
    def fields(self) -> dict[str, int]:
        """A digit, and whose it is."""
        return {"digit": 10, "factor": 2}

    @property
    def num_answers(self) -> int:
        """The digits."""
        return 10

    @property
    def scope(self) -> int:
        """Every digit of both."""
        return self.length // 2

    def episode(self, key: Array) -> Episode:
        """Uniform digits, zeros in front included."""
        n = self.length // 4
        factors = jax.random.randint(key, (2, n), 0, 10)
        sums = jnp.convolve(factors[0], factors[1])

        def carry(rest: Array, column: Array) -> tuple[Array, Array]:
            return (rest + column) // 10, (rest + column) % 10

        columns = jnp.concatenate([sums, jnp.zeros(1, sums.dtype)])
        product = jax.lax.scan(carry, jnp.zeros((), sums.dtype), columns)[1]
        nothing = jnp.full(2 * n, -1)
        asked = jnp.arange(self.length) >= 2 * n
        tokens = self.encode(
            jnp.where(asked, QUERY, ITEM),
            digit=jnp.concatenate([factors.reshape(-1), nothing]),
            factor=jnp.concatenate([jnp.repeat(jnp.arange(2), n), nothing]),
        )
        return self.ask(tokens, jnp.concatenate([nothing, product]), asked)

    def blind(self) -> Figure:
        """The most frequent digit: a product's highest is often zero, its lowest too."""
        n = self.length // 4
        if n > 3:
            return simulated(self, "blind")
        numbers = jnp.arange(10**n)
        products = (numbers[:, None] * numbers).reshape(-1)
        zeros = sum(int((products // 10**k % 10 == 0).sum()) for k in range(2 * n))
        return exact(zeros / (2 * n * 100**n), "always zero, over all pairs of factors")

    def blind_policy(self, key: Array, tokens: Array) -> Array:
        """Always zero."""
        return jnp.zeros(self.length, jnp.int32)
