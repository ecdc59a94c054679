"""P7, in-context language learning (Akyürek et al. 2024, arXiv 2401.12973): the next symbol of a string from
a random automaton that is drawn anew for every episode. `retrieval` compares strings of such automata."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from .base import ITEM, QUERY, Episode, Figure, Probe
from .figures import simulated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Automata(Probe):
    """Strings of random automata: what probes of regular languages have in common.

    An automaton has `min_states` to `max_states` states, each with one to `max_edges` outgoing edges of
    different symbols to uniform states, and every permitted symbol is equally likely.
    """

    length: int = 64
    symbols: int = 12
    min_states: int = 4
    max_states: int = 12
    max_edges: int = 4

    knob: ClassVar[str] = "max_states"

    def __post_init__(self) -> None:
        self.need("symbols", self.symbols >= 2, "leaves nothing to predict; use 2 or more")
        self.need("max_edges", 1 <= self.max_edges <= self.symbols, f"must be 1 to symbols={self.symbols}")
        self.need("min_states", self.min_states >= 1, "must be 1 or more")
        self.need("max_states", self.max_states >= self.min_states, f"is below min_states={self.min_states}")

    @property
    def fields(self) -> dict[str, int]:
        """A symbol."""
        return {"symbol": self.symbols}

    def string(self, key: Array, steps: int) -> tuple[Int[Array, " N"], Bool[Array, "N V"]]:
        """A fresh automaton's walk of `steps` from state 0: its symbols, and which each step permitted."""
        key_states, key_edges, key_symbols, key_next, key_walk = jax.random.split(key, 5)
        states = jax.random.randint(key_states, (), self.min_states, self.max_states + 1)
        edges = jax.random.randint(key_edges, (self.max_states, 1), 1, self.max_edges + 1)
        ranks = jax.random.uniform(key_symbols, (self.max_states, self.symbols)).argsort(1).argsort(1)
        permitted = ranks < edges
        follow = jax.random.randint(key_next, permitted.shape, 0, states)

        def step(state, key):
            symbol = jax.random.categorical(key, jnp.where(permitted[state], 0.0, -jnp.inf))
            return follow[state, symbol], (symbol, permitted[state])

        return jax.lax.scan(step, jnp.int32(0), jax.random.split(key_walk, steps))[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegularLanguage(Automata):
    """Every step shows a symbol and asks for the next; any that the automaton permits is paid 1/T.

    An episode's `payoff` divided by its sum is the true law of the next symbol, against which cross-entropy
    and total variation are taken. `targets` are the symbols that did follow.
    """

    @property
    def num_answers(self) -> int:
        """The symbols."""
        return self.symbols

    @property
    def scope(self) -> int:
        """The whole string: it is all there is to learn the automaton from."""
        return self.length - 1

    def episode(self, key: Array) -> Episode:
        """The automaton's string, shown a step late."""
        string, may = self.string(key, self.length)
        shown = jnp.concatenate([jnp.array([-1]), string[:-1]])
        phase = jnp.where(jnp.arange(self.length) == 0, QUERY, ITEM)
        everywhere = jnp.ones(self.length, bool)
        return self.ask(self.encode(phase, symbol=shown), string, everywhere, may / self.length)

    def random(self) -> Figure:
        """How many symbols are permitted, on average along a walk."""
        return simulated(self, "random")

    def blind(self) -> Figure:
        """That of repeating the symbol, which is likelier than any other to be permitted again."""
        return simulated(self, "blind")

    def blind_policy(self, key: Array, tokens: Array) -> Int[Array, " T"]:
        """The symbol just shown, which a state that leads to itself permits again."""
        return self.field(tokens, "symbol").argmax(-1)
