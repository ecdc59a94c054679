"""P8, many-shot labelling: points of many classes with labels that mean something only in this episode
(LIConBench, Li et al. 2024, arXiv 2404.02060)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .base import FILLER, ITEM, QUERY, Episode, Figure, Probe, at
from .figures import simulated
from .spans import FAR


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManyShot(Probe):
    """`shots` labelled points of each of `classes`, shuffled; filler; then `queries` points to label.

    A class is a standard normal prototype in `dim` dimensions, a point its prototype plus noise of standard
    deviation `sigma`. `online` asks at every step instead, and each step shows the right label of the point
    before; there `shots` and `queries` mean nothing.
    """

    length: int = 64
    classes: int = 8
    shots: int = 2
    queries: int = 16
    dim: int = 16
    sigma: float = 0.5
    online: bool = False

    knob: ClassVar[str] = "classes"

    def __post_init__(self) -> None:
        self.need("classes", self.classes >= 2, "leaves nothing to tell apart; use 2 or more")
        self.need("dim", self.dim >= 1, "must be 1 or more")
        self.need("sigma", self.sigma >= 0, "must be 0 or more")
        self.need("shots", self.shots >= 1, "must be 1 or more")
        self.need("queries", self.queries >= 1, "must be 1 or more")
        least = 1 if self.online else self.classes * self.shots + self.queries
        self.need("length", self.length >= least, f"has no room for shots and queries; use {least} or more")

    @property
    def fields(self) -> dict[str, int]:
        """The point, and a label: its own, or online that of the point before."""
        return {"point": self.dim, "label": self.classes}

    @property
    def num_answers(self) -> int:
        """The classes."""
        return self.classes

    @property
    def scope(self) -> int:
        """One example of each class."""
        return self.classes

    def episode(self, key: Array) -> Episode:
        """Fresh prototypes; the demonstrations are balanced, the questions independent."""
        key_classes, key_order, key_ask, key_noise = jax.random.split(key, 4)
        prototypes = jax.random.normal(key_classes, (self.classes, self.dim))
        labels = jax.random.randint(key_ask, (self.length,), 0, self.classes)
        step = jnp.arange(self.length)
        if self.online:
            query, item, empty = step >= 0, step < 0, step < 0
            shown = jnp.concatenate([jnp.array([-1]), labels[:-1]])
        else:
            demonstrations = self.classes * self.shots
            query, item = step >= self.length - self.queries, step < demonstrations
            order = jax.random.permutation(key_order, demonstrations) % self.classes
            labels = jnp.where(item, at(self.length, step[:demonstrations], order), labels)
            shown, empty = jnp.where(item, labels, -1), ~query & ~item
        points = prototypes[labels] + self.sigma * jax.random.normal(key_noise, (self.length, self.dim))
        phase = jnp.where(query, QUERY, jnp.where(item, ITEM, FILLER))
        tokens = self.encode(phase, point=jnp.where(empty[:, None], 0.0, points), label=shown)
        return self.ask(tokens, labels, query)

    def measures(self, episode: Episode, outputs: Float[Array, "T B O"]) -> dict[str, Float[Array, "B C"]]:
        """How often the answers name the class whose last example came first, second, …, last of all.

        Nothing is told online, where examples go on coming, and of questions that come with examples of their
        own (`baseline=retrieve`).
        """
        if self.online or episode.tokens.shape[0] != self.length:
            return {}
        step = jnp.arange(self.length)[:, None, None]
        shown = self.field(episode.tokens, "label") > 0
        order = jnp.where(shown, step, -1).max(0).argsort(-1).argsort(-1)  # [B, C], a place of each class
        places = jnp.take_along_axis(order[None], outputs.argmax(-1)[..., None], -1)[..., 0]
        answered = jax.nn.one_hot(places, self.classes) * episode.mask[..., None]
        return {"places": answered.sum(0) / self.queries}

    def told(self, means: dict[str, np.ndarray]) -> dict[str, float]:
        """How far answers lean to some places of examples (LIConBench's bias to labels at the end).

        `recency bias` is the Kullback–Leibler divergence, in nats, of the places that answers name from those
        of the right classes, which are all equally likely; `towards the end` is how much later the answers'
        places are on average, 0: not at all, 1: always the last, −1: always the first. Chance alone has a
        bias of about (classes − 1) / (2 · answers).
        """
        if "places" not in means:
            return super().told(means)
        places = np.asarray(means["places"], np.float64)
        named = places[places > 0]
        later = places @ np.linspace(-1, 1, self.classes)
        bias = float(named @ np.log(named * self.classes))
        return {"recency bias": bias, "towards the end": float(later)}

    def reference(self) -> Figure:
        """That of the nearest mean."""
        return simulated(self, "reference")

    def reference_policy(self, key: Array, tokens: Array) -> Int[Array, " T"]:
        """The class whose points so far have the nearest mean."""

        def step(carry, token):
            sums, counts, before = carry
            point, label = self.field(token, "point"), self.field(token, "label")
            labelled = before if self.online else point
            sums, counts = sums + label[:, None] * labelled, counts + label
            return (sums, counts, point), self._nearest(point, sums, counts)

        empty = jnp.zeros((self.classes, self.dim)), jnp.zeros(self.classes), jnp.zeros(self.dim)
        return jax.lax.scan(step, empty, tokens)[1]

    def _nearest(
        self, point: Float[Array, " D"], sums: Float[Array, "C D"], counts: Float[Array, " C"]
    ) -> Int[Array, ""]:
        distance = ((sums / jnp.maximum(counts, 1.0)[:, None] - point) ** 2).sum(-1)
        return jnp.where(counts > 0, distance, FAR).argmin()
