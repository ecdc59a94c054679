"""P10, long answers given a symbol at a time, of which only those before the first error count.

The right answer so far is shown again at every step of the answer. Nothing is given away by that: as long as
an answer counts, it is what the learner itself has said.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .base import FILLER, ITEM, QUERY, Episode, Figure, Probe, at, exact
from .diffusion import scattered_diffusion


def uniform_prefix(chance: float, steps: int) -> Figure:
    """The expected share of `steps` answers before the first error, each right with `chance`."""
    value = sum(chance**i for i in range(1, steps + 1)) / steps
    return exact(value, "(p + p^2 + ... + p^h)/h for h answers, each right with probability p")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphWalk(Probe):
    """Every node's one outgoing edge, in random order; then follow the edges for `hops` steps.

    The edges form one cycle through all `nodes`, so that a walk repeats nothing before it must. With `hops` 0
    it takes all the steps that the edges leave: a longer episode is a longer answer about the same graph, and
    who was trained on short answers can be tested on long ones.
    """

    length: int = 64
    nodes: int = 16
    hops: int = 8

    knob: ClassVar[str] = "hops"
    prefix: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.need("nodes", self.nodes >= 3, "must be 3 or more")
        self.need("hops", self.hops >= 0, "must be 0, as many as there is room for, or more")
        least = self.nodes + max(self.hops, 1)
        self.need("length", self.length >= least, f"has no room for edges and walk; use {least} or more")

    @property
    def fields(self) -> dict[str, int]:
        """From where and to where; a question only says from where."""
        return {"source": self.nodes, "target": self.nodes}

    @property
    def num_answers(self) -> int:
        """The nodes."""
        return self.nodes

    @property
    def steps(self) -> int:
        """How many steps the walk has."""
        return self.hops or self.length - self.nodes

    def episode(self, key: Array) -> Episode:
        """A random cycle, its edges shuffled, and a walk from a random node."""
        key_cycle, key_order, key_start = jax.random.split(key, 3)
        cycle = jax.random.permutation(key_cycle, self.nodes)
        order = jax.random.permutation(key_order, self.nodes)
        start = jax.random.randint(key_start, (), 0, self.nodes)
        walk = cycle[(start + jnp.arange(self.steps + 1)) % self.nodes]
        step, first = jnp.arange(self.length), self.length - self.steps
        query = step >= first
        edges = jnp.arange(self.nodes)
        tokens = self.encode(
            jnp.where(query, QUERY, jnp.where(step < self.nodes, ITEM, FILLER)),
            source=at(self.length, edges, cycle[order]).at[first:].set(walk[:-1]),
            target=at(self.length, edges, cycle[(order + 1) % self.nodes]),
        )
        return self.ask(tokens, at(self.length, first + jnp.arange(self.steps), walk[1:]), query)

    def random(self) -> Figure:
        """The chance of a right beginning: nearly 1/(h(n − 1))."""
        return uniform_prefix(1 / self.nodes, self.steps)

    def blind(self) -> Figure:
        """A fixed cycle: its first i edges are the walk's with probability 1/((n − 1)(n − 2)…(n − i))."""
        n = self.nodes
        chances = [
            math.prod(1 / (n - j) for j in range(1, min(i, n - 1) + 1)) for i in range(1, self.steps + 1)
        ]
        return exact(sum(chances) / self.steps, "mean over i to h of 1/((n - 1)...(n - i))")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableExtract(Probe):
    """Records with a tag and a value; then the values of one tag in the order shown, and "that was all".

    Each of `tags` has `matches` records with different values. The last answer, `values`, says that there
    are no more.
    """

    length: int = 64
    tags: int = 4
    matches: int = 4
    values: int = 8

    knob: ClassVar[str] = "matches"
    prefix: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.need("tags", self.tags >= 2, "must be 2 or more")
        self.need("matches", self.matches >= 1, "must be 1 or more")
        self.need("values", self.values >= self.matches, f"must be matches={self.matches} or more")
        least = self.tags * self.matches + self.matches + 1
        self.need("length", self.length >= least, f"has no room for records and answer; use {least} or more")

    @property
    def fields(self) -> dict[str, int]:
        """Tag and value; in the answer, the tag asked for and the value before."""
        return {"tag": self.tags, "value": self.values}

    @property
    def num_answers(self) -> int:
        """The values, and that there are no more."""
        return self.values + 1

    @property
    def scope(self) -> int:
        """All records of the tag."""
        return self.matches

    @property
    def diffusion(self) -> float:
        """Records in random order."""
        return scattered_diffusion(self.matches, self.tags * self.matches)

    def episode(self, key: Array) -> Episode:
        """Shuffled records and a tag."""
        key_values, key_order, key_tag = jax.random.split(key, 3)
        keys = jax.random.split(key_values, self.tags)
        values = jax.vmap(lambda k: jax.random.permutation(k, self.values)[: self.matches])(keys).ravel()
        order = jax.random.permutation(key_order, values.size)
        tags, shown = order // self.matches, values[order]
        tag = jax.random.randint(key_tag, (), 0, self.tags)
        found = shown[jnp.argsort(tags != tag, stable=True)[: self.matches]]
        step, first = jnp.arange(self.length), self.length - self.matches - 1
        query, records = step >= first, jnp.arange(values.size)
        tokens = self.encode(
            jnp.where(query, QUERY, jnp.where(step < values.size, ITEM, FILLER)),
            tag=at(self.length, records, tags).at[first:].set(tag),
            value=at(self.length, records, shown).at[first + 1 :].set(found),
        )
        answers = jnp.append(found, self.values)
        return self.ask(tokens, at(self.length, first + jnp.arange(answers.size), answers), query)

    def random(self) -> Figure:
        """The chance of a right beginning."""
        return uniform_prefix(1 / self.num_answers, self.matches + 1)

    def blind(self) -> Figure:
        """A fixed list of different values, then that there are no more."""
        chances = [math.prod(1 / (self.values - j) for j in range(i)) for i in range(1, self.matches + 1)]
        value = (sum(chances) + chances[-1]) / (self.matches + 1)
        return exact(value, "mean of 1/(V...(V - i + 1)) over i to m, the last of which counts twice")
