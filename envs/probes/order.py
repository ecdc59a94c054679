"""P9, sorting and pointing: items in random order, then their names in the order of their values or dates."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .base import ITEM, QUERY, Episode, Probe, distinct

_DATE = (10, 12, 28)  # years, months, days


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order(Probe):
    """`length`/2 items, each with one of `names` names that no other has; then as many questions.

    `by` is `value`, a number in [0, 1] that is seen as it is, or `date`, whose year, month and day are seen
    as symbols and of which no two are the same. Answers are names, ascending. Names rather than positions
    are pointed to, so that a reader of short episodes can be tested on long ones.
    """

    length: int = 16
    names: int = 32
    by: str = "value"

    knob: ClassVar[str] = "length"
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.need("by", self.by in ("value", "date"), "is unknown; choose value or date")
        self.need("length", self.length >= 4 and self.length % 2 == 0, "must be even, 4 or more")
        self.need(
            "length", self.length <= 2 * self.names, f"is more than twice names={self.names}; give more names"
        )

    @property
    def fields(self) -> dict[str, int]:
        """A name, and what it is sorted by."""
        return {"name": self.names} | (
            {"value": 1} if self.by == "value" else dict(zip(("year", "month", "day"), _DATE, strict=True))
        )

    @property
    def num_answers(self) -> int:
        """The names."""
        return self.names

    @property
    def scope(self) -> int:
        """All items."""
        return self.length // 2

    def episode(self, key: Array) -> Episode:
        """Names, and values that differ."""
        key_names, key_values = jax.random.split(key)
        items = self.length // 2
        names = distinct(key_names, items, self.names)
        shown = jnp.concatenate([names, jnp.full(items, -1)])
        asked = jnp.arange(self.length) >= items
        if self.by == "value":
            rank = jax.random.uniform(key_values, (items,))
            seen = {"value": jnp.concatenate([rank, jnp.zeros(items)])[:, None]}
        else:
            years, months, days = _DATE
            rank = distinct(key_values, items, years * months * days)
            parts = rank // (months * days), rank // days % months, rank % days
            seen = {
                part: jnp.concatenate([digits, jnp.full(items, -1)])
                for part, digits in zip(("year", "month", "day"), parts, strict=True)
            }
        tokens = self.encode(jnp.where(asked, QUERY, ITEM), name=shown, **seen)
        first = jnp.zeros(items, jnp.int32)  # who comes next is known from all items
        return self.ask(tokens, jnp.concatenate([names, names[rank.argsort()]]), asked, first=first)
