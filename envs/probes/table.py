"""P4, table recall: cells of a table in random order, then questions about cells, rows or columns."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .base import FILLER, ITEM, QUERY, Episode, Figure, Probe, at, distinct, exact
from .chance import binomial
from .diffusion import scattered_diffusion

QUESTIONS = ("cell", "largest", "count")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableRecall(Probe):
    """A `rows` x `columns` table, its cells in random order; the values of a row all differ.

    `question`: `cell`, the value at (row, column); `largest`, the column of a row's largest value; `count`,
    how many rows have a value in a column. The questions of an episode are all of that kind.
    """

    length: int = 64
    rows: int = 4
    columns: int = 4
    values: int = 8
    queries: int = 4
    question: str = "cell"

    knob: ClassVar[str] = "rows"

    def __post_init__(self) -> None:
        self.need("question", self.question in QUESTIONS, f"is unknown; choose from {', '.join(QUESTIONS)}")
        self.need("columns", self.columns >= 2, "must be 2 or more")
        self.need("values", self.values >= self.columns, f"must be columns={self.columns} or more")
        most = self.rows if self.question == "largest" else self.rows * self.columns
        self.need("queries", 1 <= self.queries <= most, f"must be 1 to {most}, the different questions")
        least = self.rows * self.columns + self.queries
        self.need("length", self.length >= least, f"has no room for the table; use {least} or more")

    @property
    def fields(self) -> dict[str, int]:
        """Row, column and value; a question leaves out what it asks for."""
        return {"row": self.rows, "column": self.columns, "value": self.values}

    @property
    def num_answers(self) -> int:
        """Values, columns, or counts from 0 to the number of rows."""
        return {"cell": self.values, "largest": self.columns, "count": self.rows + 1}[self.question]

    @property
    def scope(self) -> int:
        """A cell, a row, or a column."""
        return {"cell": 1, "largest": self.columns, "count": self.rows}[self.question]

    @property
    def diffusion(self) -> float:
        """Cells in random order."""
        return scattered_diffusion(self.scope, self.rows * self.columns)

    def episode(self, key: Array) -> Episode:
        """Every row a random choice of different values."""
        key_table, key_order, key_queries, key_value = jax.random.split(key, 4)
        rows = jax.random.split(key_table, self.rows)
        table = jax.vmap(lambda k: distinct(k, self.columns, self.values))(rows)  # [rows, columns]
        cells = table.size
        order = jax.random.permutation(key_order, cells)
        asked = distinct(key_queries, self.queries, self.rows if self.question == "largest" else cells)
        sought = jax.random.randint(key_value, (self.queries,), 0, self.values)
        none = jnp.full(self.queries, -1)
        if self.question == "largest":
            row, column, value, answer = asked, none, none, table.argmax(1)[asked]
        elif self.question == "cell":
            row, column, value = asked // self.columns, asked % self.columns, none
            answer = table.ravel()[asked]
        else:
            row, column, value = none, asked % self.columns, sought
            answer = (table[:, column] == sought).sum(0)
        cell = jnp.arange(cells)
        needed = ((row[:, None] < 0) | (cell // self.columns == row[:, None])) & (
            (column[:, None] < 0) | (cell % self.columns == column[:, None])
        )
        place = order.argsort()  # of each cell
        step = jnp.arange(self.length)
        query = step >= self.length - self.queries
        phase = jnp.where(query, QUERY, jnp.where(step < cells, ITEM, FILLER))

        def track(items: Array, questions: Array) -> Array:
            return at(self.length, jnp.arange(cells), items).at[-self.queries :].set(questions)

        tokens = self.encode(
            phase,
            row=track(order // self.columns, row),
            column=track(order % self.columns, column),
            value=track(table.ravel()[order], value),
        )
        answers = at(self.length, jnp.arange(self.queries) + self.length - self.queries, answer)
        return self.ask(tokens, answers, query, first=jnp.where(needed, place, cells).min(1))

    def blind(self) -> Figure:
        """For counts the most likely one; otherwise every answer is as likely as another."""
        if self.question != "count":
            return super().blind()
        return exact(binomial(self.rows, 1 / self.values).max(), "the mode of Binomial(rows, 1/values)")
