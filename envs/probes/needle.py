"""P5, needles in a haystack: pairs hidden at a depth among filler symbols, asked for at the end."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .base import FILLER, ITEM, QUERY, Episode, Figure, Probe, at, distinct, exact
from .diffusion import scattered_diffusion


def scattered(key: Array, count: int, among: int, depth: float | None = None) -> Int[Array, " count"]:
    """`count` different positions below `among` in random order, the first at the relative `depth`."""
    if depth is None:
        return distinct(key, count, among)
    first = round(depth * (among - 1))
    rest = distinct(key, count - 1, among - 1)
    return jnp.concatenate([jnp.array([first]), rest + (rest >= first)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needle(Probe):
    """`needles` (key, value) pairs among filler symbols; then each is asked for by its key.

    The first needle lies at the relative `depth` of the haystack, 0 its beginning and 1 its end; negative:
    anywhere. `distractors` are pairs that nobody asks for. With probability `absent` a question is about a
    key that was never shown, and the right answer is to abstain (answer `values`).
    """

    length: int = 64
    needles: int = 1
    distractors: int = 0
    keys: int = 8
    values: int = 8
    filler: int = 8
    depth: float = -1.0
    absent: float = 0.0

    def __post_init__(self) -> None:
        self.need("needles", self.needles >= 1, "leaves nothing to find; use 1 or more")
        self.need("distractors", self.distractors >= 0, "must be 0 or more")
        self.need("values", self.values >= 2, "leaves nothing to find; use 2 or more")
        self.need("filler", self.filler >= 1, "must be 1 or more")
        self.need("depth", self.depth <= 1, "must be 0 (beginning) to 1 (end), or negative for anywhere")
        self.need("absent", 0 <= self.absent < 1, "must be a probability below 1")
        shown = self.needles + self.distractors
        keys = shown + (self.needles if self.absent else 0)
        self.need("keys", self.keys >= keys, f"is too few for what is shown or asked for; use {keys} or more")
        least = shown + self.needles
        self.need("length", self.length >= least, f"has no room for its needles; use {least} or more")

    @property
    def fields(self) -> dict[str, int]:
        """Key, value, and the hay."""
        return {"key": self.keys, "value": self.values, "hay": self.filler}

    @property
    def num_answers(self) -> int:
        """The values, and to abstain where that can be right."""
        return self.values + (self.absent > 0)

    def episode(self, key: Array) -> Episode:
        """Haystack, then a question per needle."""
        key_where, key_keys, key_values, key_hay, key_absent = jax.random.split(key, 5)
        body, shown = self.length - self.needles, self.needles + self.distractors
        where = scattered(key_where, shown, body, None if self.depth < 0 else self.depth)
        keys = jax.random.permutation(key_keys, self.keys)
        values = jax.random.randint(key_values, (shown,), 0, self.values)
        absent = jax.random.bernoulli(key_absent, self.absent, (self.needles,))
        never_shown = jnp.roll(keys, -shown)[: self.needles]
        asked = jnp.where(absent, never_shown, keys[: self.needles])
        answers = jnp.where(absent, self.values, values[: self.needles])

        query = jnp.arange(self.length) >= body
        pair = at(self.length, where, keys[:shown])
        symbols = jnp.where((pair < 0) & ~query, jax.random.randint(key_hay, query.shape, 0, self.filler), -1)
        tokens = self.encode(
            jnp.where(query, QUERY, jnp.where(pair < 0, FILLER, ITEM)),
            key=pair.at[body:].set(asked),
            value=at(self.length, where, values),
            hay=symbols,
        )
        right = at(self.length, body + jnp.arange(self.needles), answers)
        return self.ask(tokens, right, query, first=jnp.where(absent, -1, where[: self.needles]))

    def measures(self, episode: Episode, outputs: Float[Array, "T B O"]) -> dict[str, Float[Array, " B"]]:
        """Where a key can be absent: how many answers abstain, should, and do so where they should."""
        if not self.absent:
            return {}
        does, should = (each == self.values for each in (outputs.argmax(-1), episode.targets))
        each = {"abstained": does, "absent": should, "rightly": does & should}
        return {name: (value & episode.mask).sum(0).astype(jnp.float32) for name, value in each.items()}

    def told(self, means: dict[str, np.ndarray]) -> dict[str, float]:
        """`abstain F1`, of answers that abstain and questions about what was never shown (LongBioBench)."""
        if not means:
            return {}
        both = float(means["abstained"] + means["absent"])
        return {"abstain F1": 2 * float(means["rightly"]) / both if both else 1.0}

    def blind(self) -> Figure:
        """One value, or always to abstain."""
        value = max(self.absent, (1 - self.absent) / self.values)
        return exact(value, "max(absent, (1 - absent)/values): always the same answer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AncestralTrace(Probe):
    """Facts "x is a child of y" in random order among filler; who is the ancestor of x, `hops` up?

    The `names` form one line of descent in a random order. (NeedleBench's ancestral trace, Li et al. 2024,
    arXiv 2407.11963.)
    """

    length: int = 64
    names: int = 8
    hops: int = 2
    filler: int = 8

    knob: ClassVar[str] = "hops"

    def __post_init__(self) -> None:
        self.need("names", self.names >= 3, "must be 3 or more")
        self.need("hops", 1 <= self.hops < self.names, f"must be 1 to {self.names - 1}, the line of descent")
        self.need("filler", self.filler >= 1, "must be 1 or more")
        self.need("length", self.length >= self.names, f"has no room for the facts; use {self.names} or more")

    @property
    def fields(self) -> dict[str, int]:
        """Child, parent, and the hay."""
        return {"child": self.names, "parent": self.names, "hay": self.filler}

    @property
    def num_answers(self) -> int:
        """The names."""
        return self.names

    @property
    def scope(self) -> int:
        """A fact per hop."""
        return self.hops

    @property
    def diffusion(self) -> float:
        """Facts in random order."""
        return scattered_diffusion(self.hops, self.names - 1)

    def episode(self, key: Array) -> Episode:
        """Facts scattered, then a name."""
        key_line, key_where, key_who, key_hay = jax.random.split(key, 4)
        line = jax.random.permutation(key_line, self.names)  # every name is the child of the next
        where = distinct(key_where, self.names - 1, self.length - 1)
        who = jax.random.randint(key_who, (), 0, self.names - self.hops)
        query = jnp.arange(self.length) == self.length - 1
        child = at(self.length, where, line[:-1])
        hay = jax.random.randint(key_hay, query.shape, 0, self.filler)
        tokens = self.encode(
            jnp.where(query, QUERY, jnp.where(child < 0, FILLER, ITEM)),
            child=child.at[-1].set(line[who]),
            parent=at(self.length, where, line[1:]),
            hay=jnp.where((child < 0) & ~query, hay, -1),
        )
        needed = where[who + jnp.arange(self.hops)]
        return self.ask(tokens, jnp.full(self.length, line[who + self.hops]), query, first=needed.min()[None])

    def blind(self) -> Figure:
        """Any name but the one asked about."""
        return exact(1 / (self.names - 1), "any of the other names")
