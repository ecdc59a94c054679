"""P6, aggregation: an answer that depends on every symbol of the stream."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .base import ITEM, QUERY, Episode, Figure, Probe, exact
from .chance import binomial


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aggregate(Probe):
    """`length` − 1 uniform symbols, then a question.

    `question`: `majority`, the most frequent symbol (streams with a tie are drawn again); `count`, how often
    the named symbol came, modulo `values`.
    """

    length: int = 64
    values: int = 4
    question: str = "majority"

    def __post_init__(self) -> None:
        valid = ("majority", "count")
        self.need("question", self.question in valid, f"is unknown; choose from {', '.join(valid)}")
        self.need("values", self.values >= 2, "leaves nothing to choose; use 2 or more")
        self.need("length", self.length >= 2, "leaves nothing to count; use 2 or more")

    @property
    def fields(self) -> dict[str, int]:
        """The symbol."""
        return {"symbol": self.values}

    @property
    def num_answers(self) -> int:
        """Symbols, or counts modulo their number."""
        return self.values

    @property
    def scope(self) -> int:
        """Every symbol."""
        return self.length - 1

    def episode(self, key: Array) -> Episode:
        """The stream, then the question, which for `count` names a symbol."""
        key_stream, key_which = jax.random.split(key)
        if self.question == "majority":
            stream, counts = self._untied(key_stream)
            which, answer = jnp.int32(-1), counts.argmax()
        else:
            stream, counts = self._draw(key_stream)
            which = jax.random.randint(key_which, (), 0, self.values)
            answer = counts[which] % self.values
        query = jnp.arange(self.length) == self.length - 1
        tokens = self.encode(jnp.where(query, QUERY, ITEM), symbol=jnp.append(stream, which))
        return self.ask(tokens, jnp.full(self.length, answer), query)

    def _draw(self, key: Array) -> tuple[Int[Array, " T-1"], Int[Array, " V"]]:
        stream = jax.random.randint(key, (self.length - 1,), 0, self.values)
        return stream, jnp.bincount(stream, length=self.values)

    def _untied(self, key: Array) -> tuple[Int[Array, " T-1"], Int[Array, " V"]]:
        """A stream with one most frequent symbol, by rejection: exactly the law without ties."""

        def tied(drawn):
            counts = drawn[2]
            return (counts == counts.max()).sum() > 1

        def again(drawn):
            key, key_stream = jax.random.split(drawn[0])
            return key, *self._draw(key_stream)

        return jax.lax.while_loop(tied, again, again((key,)))[1:]

    def blind(self) -> Figure:
        """For counts the likeliest remainder; otherwise one symbol is as good as another."""
        if self.question == "majority":
            return super().blind()
        law = binomial(self.length - 1, 1 / self.values)
        remainders = [law[r :: self.values].sum() for r in range(self.values)]
        return exact(max(remainders), "the likeliest remainder of Binomial(length - 1, 1/values)")
