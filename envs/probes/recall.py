"""P4, recall: pairs are shown, then asked for. One query (associative recall), many (multi-query recall,
Arora et al. 2023, arXiv 2312.04927), or keys that mean something only in their context (joint recall)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .base import FILLER, ITEM, QUERY, Episode, Probe, at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recall(Probe):
    """`pairs` of (context, key) with a value each, filler, then `queries` of different pairs.

    The filler is the gap: what pairs, overwrites and queries leave of `length`.
    `overwrites` of the pairs are shown a second time with another value; the last value counts.
    """

    length: int = 64
    contexts: int = 1
    keys: int = 16
    values: int = 8
    pairs: int = 16
    queries: int = 8
    overwrites: int = 0

    knob: ClassVar[str] = "pairs"

    def __post_init__(self) -> None:
        every = self.contexts * self.keys
        self.need("values", self.values >= 2, "leaves nothing to recall; use 2 or more")
        self.need("pairs", 1 <= self.pairs <= every, f"must be 1 to contexts x keys = {every}")
        self.need("queries", 1 <= self.queries <= self.pairs, f"must be 1 to pairs={self.pairs}")
        self.need("overwrites", 0 <= self.overwrites <= self.pairs, f"must be 0 to pairs={self.pairs}")
        least = self.pairs + self.overwrites + self.queries
        self.need(
            "length", self.length >= least, f"has no room for its items and queries; use {least} or more"
        )

    @property
    def fields(self) -> dict[str, int]:
        """Context (where there are several), key and value."""
        context = {"context": self.contexts} if self.contexts > 1 else {}
        return {**context, "key": self.keys, "value": self.values}

    @property
    def num_answers(self) -> int:
        """The values."""
        return self.values

    def episode(self, key: Array) -> Episode:
        """Values uniform and independent."""
        key_values, key_order = jax.random.split(key)
        table = jax.random.randint(key_values, (self.contexts * self.keys,), 0, self.values)
        return self.compose(key_order, table)

    def compose(self, key: Array, table: Int[Array, " N"]) -> Episode:
        """The episode in which pair (c, k) ends with the value `table[c * keys + k]`."""
        key_pairs, key_items, key_old, key_queries = jax.random.split(key, 4)
        pairs = jax.random.permutation(key_pairs, table.size)[: self.pairs]
        written = jax.random.permutation(key_items, jnp.concatenate([pairs, pairs[: self.overwrites]]))
        # Of a pair that is shown twice the earlier item holds another value.
        order = jnp.arange(written.size)
        last = jnp.zeros(table.size, jnp.int32).at[written].max(order)
        old = (table + jax.random.randint(key_old, table.shape, 1, self.values)) % self.values
        shown = jnp.where(last[written] == order, table[written], old[written])
        asked = jax.random.permutation(key_queries, pairs)[: self.queries]

        step = jnp.arange(self.length)
        query = step >= self.length - self.queries
        pair = at(self.length, order, written).at[self.length - self.queries :].set(asked)
        phase = jnp.where(query, QUERY, jnp.where(step < written.size, ITEM, FILLER))
        symbols = {"key": jnp.where(pair < 0, -1, pair % self.keys), "value": at(self.length, order, shown)}
        if self.contexts > 1:
            symbols["context"] = jnp.where(pair < 0, -1, pair // self.keys)
        return self.ask(self.encode(phase, **symbols), table[pair], query, first=last[asked])
