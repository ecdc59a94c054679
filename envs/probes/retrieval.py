"""P14, episode retrieval: which of many stretches is of the same task as another, by embeddings of each.

Embeddings of long contexts are compared in this way by LoCo (Saad-Falcon et al. 2024, arXiv 2402.07440), and
learnt by InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, eq. 4), in both directions as in CLIP (Radford
et al. 2021, arXiv 2103.00020, fig. 3).
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..meta import LaneState
from .base import ITEM, QUERY, Episode, Figure
from .figures import simulated
from .language import Automata
from .projected import TASKS, Projected

_TEMPERATURE = 0.1
_EQUAL = 1e-5  # cosines that differ by no more are equal
_LEAST = 1e-4  # a variance where nothing is seen, for the sake of logarithms
_PRIOR = 0.3  # how often, before anything was seen, a symbol followed each other


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeRetrieval(Automata):
    """Two stretches of one `source`, `gap` steps apart, each read from an empty memory.

    The source is a random automaton, whose string is read, or a task of `projected`, acted in at random,
    trial after trial of at most `steps`, behind one projection to `observation_width` entries, `noise` added.
    A stretch is length/2 − 1 of its steps and then a question that looks the same after every one: the core's
    output there is its embedding, `embedding` numbers. The episodes of a batch are judged `pool` at a time:
    of each stretch, its other one must be the most similar, by cosine, among the others of the pool. A pair's
    score is the mean over both directions (R@1); those equally similar share it. `targets` are 0: an answer
    is how many of the pool are more similar.

    Harder is a larger pool. A longer stretch asks more of a memory, yet tells more of the source.
    """

    length: int = 64
    source: str = "automaton"
    pool: int = 64
    gap: int = 16
    embedding: int = 64
    steps: int = 50
    observation_width: int = 8
    noise: float = 0.0

    knob: ClassVar[str] = "pool"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = self.length >= 6 and self.length % 2 == 0
        self.need("length", whole, "must be even, for two stretches of two symbols or more; use 6 or more")
        self.need("pool", self.pool >= 2, "leaves no choice; use 2 or more")
        self.need("gap", self.gap >= 0, "must be 0 or more")
        self.need("embedding", self.embedding >= 1, "must be 1 or more")
        known = ("automaton", *TASKS)
        self.need("source", self.source in known, f"is unknown; choose from {', '.join(known)}")
        _ = self.control  # has its own say on its options

    @functools.cached_property
    def control(self) -> Projected | None:
        """What is acted in, with as many trials as may end; None of automata."""
        if self.source == "automaton":
            return None
        return Projected(
            length=self.steps * (2 * self.shown + self.gap),
            task=self.source,
            steps=self.steps,
            observation_width=self.observation_width,
            noise=self.noise,
        )

    @property
    def environments(self) -> tuple[type, ...]:
        """What is acted in, if anything is."""
        return () if self.control is None else self.control.environments

    @property
    def fields(self) -> dict[str, int]:
        """A symbol, or what an agent sees."""
        return super().fields if self.control is None else self.control.fields

    @property
    def shown(self) -> int:
        """Steps of a stretch, without the question."""
        return self.length // 2 - 1

    @property
    def num_answers(self) -> int:
        """How many of the pool can be more similar."""
        return self.pool

    @property
    def outputs(self) -> int:
        """The width of an embedding."""
        return self.embedding

    @property
    def together(self) -> int:
        """The pool."""
        return self.pool

    @property
    def trials(self) -> int:
        """Two stretches."""
        return 2

    @property
    def scope(self) -> int:
        """The whole stretch."""
        return self.shown

    def stream(self, key: Array) -> dict[str, Array]:
        """The fields of a source's steps, those that are left out among them."""
        steps, control = 2 * self.shown + self.gap, self.control
        if control is None:
            return {"symbol": jax.nn.one_hot(self.string(key, steps)[0], self.symbols)}

        def act(memory: Any, key: Array, token: Array, state: LaneState) -> tuple[Any, Array]:
            return memory, control.random_policy(key, token[None])[0]

        tokens = control.rollout(key, (), act, steps)[0]
        return {name: control.field(tokens, name) for name in control.fields}

    def episode(self, key: Array) -> Episode:
        """A source's steps, of which `gap` in the middle are left out."""
        place = jnp.arange(self.length) % (self.length // 2)
        first, last = place == 0, place == self.shown

        def cut(part: Array) -> Array:
            nothing = jnp.zeros_like(part[:1])
            return jnp.concatenate([part[: self.shown], nothing, part[self.shown + self.gap :], nothing])

        parts = jax.tree.map(cut, self.stream(key))
        tokens = self.encode(jnp.where(last, QUERY, ITEM), **parts)
        tokens = tokens.at[:, self.width - 1].set(first)  # the flag of a first step
        return self.ask(tokens, jnp.zeros(self.length, int), last, reset=first)

    def similarity(self, outputs: Float[Array, "T B E"]) -> Float[Array, "G P P"]:
        """Cosines of first stretches (down) and second ones (to the right), of every pool."""
        ends = outputs[np.array([self.shown, self.length - 1])]
        ends = ends * jax.lax.rsqrt(jnp.square(ends).sum(-1, keepdims=True) + 1e-12)
        first, second = ends.reshape(2, -1, self.pool, ends.shape[-1])
        return jnp.einsum("gpe,gqe->gpq", first, second, precision="highest")

    def found(self, similarity: Float[Array, "*G P P"]) -> Float[Array, "*G P"]:
        """The score of every pair: whether its own are the most similar, in both directions."""

        def one_way(similarity: Array) -> Array:
            best = similarity >= similarity.max(-1, keepdims=True) - _EQUAL
            return jnp.diagonal(best / best.sum(-1, keepdims=True), axis1=-2, axis2=-1)

        return (one_way(similarity) + one_way(similarity.swapaxes(-1, -2))) / 2

    def loss(self, episode: Episode, outputs: Float[Array, "T B E"]) -> Float[Array, ""]:
        """InfoNCE: cross-entropy of a stretch's other one among those of its pool, in both directions."""
        logits = self.similarity(outputs) / _TEMPERATURE
        likely = jax.nn.log_softmax(logits, -1) + jax.nn.log_softmax(logits, -2)
        return -jnp.diagonal(likely, axis1=-2, axis2=-1).mean() / 2

    def grade(self, episode: Episode, outputs: Float[Array, "T B E"]) -> Float[Array, " B"]:
        """R@1 of every pair."""
        return self.found(self.similarity(outputs)).reshape(-1)

    def play(self, which: str, key: Array) -> Float[Array, ""]:
        """The score of a policy, which says how similar stretches are, in one pool."""
        key_episode, key_policy = jax.random.split(key)
        tokens = self.sequences(key_episode, self.pool).tokens
        return self.found(getattr(self, f"{which}_policy")(key_policy, tokens)).mean()

    def random_policy(self, key: Array, tokens: Float[Array, "T P D"]) -> Float[Array, "P P"]:
        """Uniformly random similarities."""
        return jax.random.uniform(key, (self.pool, self.pool))

    def reference(self) -> Figure:
        """That of comparing likelihoods; automata that say the same for ever can't be told apart."""
        return simulated(self, "reference")

    def reference_policy(self, key: Array, tokens: Float[Array, "T P D"]) -> Float[Array, "P P"]:
        """How much likelier what was seen is under one law than under two.

        Of automata the law is that of what follows each symbol: the logarithm of the Bayes factor, with a
        Dirichlet prior. Of projections it is a normal one, about zero, of observations: of the likelihoods'
        ratio, twice over the number of steps.
        """
        if self.control is not None:
            return self._likeness(tokens)
        counts = self.counts(tokens)
        each = self._evidence(counts)
        both = jax.lax.map(lambda one: self._evidence(one + counts[1]), counts[0])
        return both - each[0][:, None] - each[1]

    def _likeness(self, tokens: Float[Array, "T P D"]) -> Float[Array, "P P"]:
        seen = self.field(tokens, "observation").reshape(2, self.length // 2, *tokens.shape[1:-1], -1)
        moments = jnp.einsum("htpi,htpj->hpij", seen, seen, precision="highest") / self.shown
        moments = moments + (_LEAST + self.noise**2) * jnp.eye(seen.shape[-1])
        size = jnp.linalg.slogdet(moments)[1]
        both = jax.lax.map(lambda one: jnp.linalg.slogdet(one + moments[1])[1], moments[0])
        return size[0][:, None] + size[1] - 2 * both

    def counts(self, tokens: Float[Array, "T P D"]) -> Int[Array, "2 P V V"]:
        """How often each symbol was followed by each in either stretch."""
        symbols = self.field(tokens, "symbol").reshape(2, self.length // 2, *tokens.shape[1:-1], self.symbols)
        return jnp.einsum("htpv,htpw->hpvw", symbols[:, :-1], symbols[:, 1:]).astype(jnp.int32)

    def _evidence(self, counts: Int[Array, "*P V V"]) -> Float[Array, "*P"]:
        """The logarithm of how likely the counts are, less what does not depend on them."""
        most = jnp.arange(2 * self.shown + 1)  # looked up, as there are few of them
        one, all_ = (jax.lax.lgamma(most + prior) for prior in (_PRIOR, _PRIOR * self.symbols))
        return ((one - one[0])[counts].sum(-1) - (all_ - all_[0])[counts.sum(-1)]).sum(-1)
