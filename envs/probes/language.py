"""P7, in-context language learning (Akyürek et al. 2024, arXiv 2401.12973): the next symbol of a string from
a random automaton that is drawn anew for every episode. `retrieval` compares strings of such automata."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

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
    """Every step shows a symbol and asks for the next.

    The environment pays 1/T for any symbol that the automaton permits. That saturates: to look up what
    followed the last two symbols is nearly always permitted. So a learner of the sequence view is judged by
    the law that it expects: its score is 1 minus the total variation between that and the true law, the mean
    over steps. Cross-entropy against the true law (in nats; the true law's own is `entropy`) and the share of
    likeliest answers that are permitted are measured as well.

    An episode's `payoff` divided by its sum is the true law. `targets` are the symbols that did follow.
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

    def law(self, episode: Episode) -> Float[Array, "T *B V"]:
        """The true law of the next symbol."""
        return episode.payoff / jnp.maximum(episode.payoff.sum(-1, keepdims=True), 1e-9)

    def grade(self, episode: Episode, outputs: Float[Array, "T *B V"]) -> Float[Array, "*B"]:
        """1 minus total variation: what the expected law and the true one have in common."""
        return jnp.minimum(jax.nn.softmax(outputs), self.law(episode)).sum(-1).sum(0) / episode.mask.sum(0)

    def measures(self, episode: Episode, outputs: Float[Array, "T *B V"]) -> dict[str, Float[Array, "*B"]]:
        """See the class."""
        law = self.law(episode)
        surprise = -(law * jax.nn.log_softmax(outputs)).sum(-1)
        entropy = jax.scipy.special.entr(law).sum(-1)
        permitted = jnp.take_along_axis(law, outputs.argmax(-1)[..., None], -1)[..., 0] > 0
        each = {"cross-entropy": surprise, "entropy": entropy, "permitted": permitted}
        return {name: value.sum(0) / episode.mask.sum(0) for name, value in each.items()}

    def play(self, which: str, key: Array) -> Float[Array, ""]:
        """The score of a policy, which says what law it expects: probabilities `[T, V]`."""
        key_episode, key_policy = jax.random.split(key)
        episode = self.episode(key_episode)
        return self.grade(episode, jnp.log(getattr(self, f"{which}_policy")(key_policy, episode.tokens)))

    def random(self) -> Figure:
        """How many symbols are permitted, on average along a walk: what uniform answers are paid as well."""
        return simulated(self, "random")

    def random_policy(self, key: Array, tokens: Float[Array, "T D"]) -> Float[Array, "T V"]:
        """Every symbol equally likely."""
        return jnp.full((tokens.shape[0], self.symbols), 1 / self.symbols)

    def blind(self) -> Figure:
        """That of expecting the symbol just shown, which is likelier than any other to be permitted again."""
        return simulated(self, "blind")

    def blind_policy(self, key: Array, tokens: Float[Array, "T D"]) -> Float[Array, "T V"]:
        """The symbol just shown is expected again, with the best fixed chance, and any other equally."""
        shown = self.field(tokens, "symbol")
        law = jnp.where(shown > 0, self.again, (1 - self.again) / (self.symbols - 1))
        return jnp.where(shown.any(-1, keepdims=True), law, 1 / self.symbols)

    @functools.cached_property
    def again(self) -> float:
        """The chance of seeing a symbol again that a memoryless law does best to expect, by 512 episodes.

        It is one of 1/k for k permitted symbols: between these the score is linear in it. It is concave and
        all symbols are alike, so that no other law of the symbol just shown does better.
        """
        with jax.ensure_compile_time_eval():  # a policy may ask while it is compiled
            episode = jax.jit(self.sequences, static_argnums=1)(jax.random.key(0), 512)
            law, shown = self.law(episode)[1:], self.field(episode.tokens, "symbol")[1:]
            permitted = (law * shown).sum(-1, keepdims=True)
            chances = 1 / jnp.arange(1, self.symbols + 1)
            others = ((law > 0).sum(-1, keepdims=True) - (permitted > 0)) / (self.symbols - 1)
            common = jnp.minimum(chances, permitted) + others * (1 - chances)
            return float(chances[common.mean((0, 1)).argmax()])
