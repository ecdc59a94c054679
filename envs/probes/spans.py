"""P5 and P6, spans found by name or by meaning: items with a symbol for a name, or a vector that a question
repeats with noise (M4LE, Kwan et al. 2023, arXiv 2310.19240; LongBioBench, arXiv 2506.02921)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .base import FILLER, ITEM, QUERY, Episode, Figure, Probe, at
from .diffusion import sorted_diffusion
from .figures import simulated
from .needle import scattered

FAR = 1e9  # a squared distance that is never the nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spans(Probe):
    """`items` with a key and a value, scattered among empty steps; then `spans` answers to one question.

    `semantic` keys are random vectors of `dim` entries and the question is one of them plus noise of standard
    deviation `sigma`; otherwise keys are symbols. With several spans the question names a class: one key that
    `spans` items share (each with its own noise, if semantic), and their values are asked for in the order in
    which they were shown. With `attributes` above 1 an item also says which attribute of its key the value
    is, and every key has all of them.

    `scatter` says how far the spans of a question lie apart: 0, one follows the other; 1, they come anywhere
    among the items. `similarity` is the expected cosine between semantic keys: of those that nobody asks for
    the more alike are the more easily mistaken.
    """

    length: int = 64
    items: int = 16
    values: int = 8
    spans: int = 1
    semantic: bool = False
    dim: int = 16
    sigma: float = 0.3
    attributes: int = 1
    scatter: float = 1.0
    similarity: float = 0.0

    knob: ClassVar[str] = "items"

    def __post_init__(self) -> None:
        group = self.spans * self.attributes
        self.need("values", self.values >= 2, "leaves nothing to find; use 2 or more")
        self.need("spans", self.spans >= 1, "leaves nothing to find; use 1 or more")
        self.need("attributes", self.attributes >= 1, "must be 1 or more")
        fits = self.items >= 2 * group and self.items % group == 0
        self.need(
            "items", fits, f"must be a multiple of spans x attributes = {group}, and {2 * group} at least"
        )
        self.need("dim", self.dim >= 1, "must be 1 or more")
        self.need("sigma", self.sigma >= 0, "must be 0 or more")
        self.need("scatter", 0 <= self.scatter <= 1, "must be 0 (neighbours) to 1 (anywhere)")
        self.need("similarity", 0 <= self.similarity < 1, "must be a cosine, 0 or more and below 1")
        alike = self.semantic or self.similarity == 0
        self.need("similarity", alike, "needs semantic=true: symbols are all equally different")
        least = self.items + self.spans
        self.need("length", self.length >= least, f"has no room for its items; use {least} or more")

    @property
    def keys(self) -> int:
        """How many different keys the items have."""
        return self.items // (self.spans * self.attributes)

    @property
    def fields(self) -> dict[str, int]:
        """Key (a symbol or a vector), attribute where there are several, value."""
        attribute = {"attribute": self.attributes} if self.attributes > 1 else {}
        return {"key": self.dim if self.semantic else self.keys, **attribute, "value": self.values}

    @property
    def num_answers(self) -> int:
        """The values."""
        return self.values

    @property
    def scope(self) -> int:
        """The spans asked for: which is the third depends on where the first two were."""
        return self.spans

    @property
    def diffusion(self) -> float:
        """As `scatter` says, among the items."""
        return sorted_diffusion(self.spans, self.items // self.spans, self.scatter)

    @property
    def distractor_similarity(self) -> float:
        """That of keys."""
        return self.similarity

    def episode(self, key: Array) -> Episode:
        """Items scattered over all steps but the last `spans`, which are the question."""
        key_where, key_values, key_order, key_ask, key_vectors, key_noise = jax.random.split(key, 6)
        where = jnp.sort(scattered(key_where, self.items, self.length - self.spans))
        values = jax.random.randint(key_values, (self.items,), 0, self.values)
        kinds = self._kinds(key_order)
        item_keys = kinds // self.attributes
        asked = jax.random.randint(key_ask, (), 0, self.keys * self.attributes)
        # The spans asked for come first in a stable sort, in the order in which they were shown.
        found = jnp.argsort(kinds != asked, stable=True)[: self.spans]

        step = jnp.arange(self.length)
        query = step >= self.length - self.spans
        position = at(self.length, where, jnp.arange(self.items))
        phase = jnp.where(query, QUERY, jnp.where(position < 0, FILLER, ITEM))
        whole = jnp.where(query, asked // self.attributes, jnp.where(position < 0, -1, item_keys[position]))
        symbols: dict[str, Array] = {"key": whole, "value": at(self.length, where, values)}
        if self.semantic:
            symbols["key"] = self._vectors(key_vectors, key_noise, whole, query)
        if self.attributes > 1:
            kind = jnp.where(query, asked, jnp.where(position < 0, -1, kinds[position]))
            symbols["attribute"] = jnp.where(kind < 0, -1, kind % self.attributes)
        answers = at(self.length, self.length - self.spans + jnp.arange(self.spans), values[found])
        first = jnp.full(self.spans, where[found[0]])
        return self.ask(self.encode(phase, **symbols), answers, query, first=first)

    def _kinds(self, key: Array) -> Int[Array, " items"]:
        """The kind (key and attribute) of every item, in the order shown: of each as many as spans."""
        key_blocks, key_places = jax.random.split(key)
        kinds = jnp.arange(self.items) // self.spans
        number = self.keys * self.attributes
        blocks = jax.random.permutation(key_blocks, number)[kinds] / number
        places = jax.random.uniform(key_places, (self.items,))
        return kinds[jnp.argsort((1 - self.scatter) * blocks + self.scatter * places)]

    def _vectors(
        self, key: Array, key_noise: Array, keys: Int[Array, " T"], query: Array
    ) -> Float[Array, "T dim"]:
        """The key of every step as a vector; noisy in questions, and in items that share their key."""
        prototypes = jax.random.normal(key, (self.keys + 1, self.dim))
        common = jnp.sqrt(self.similarity) * prototypes[-1]
        prototypes = common + jnp.sqrt(1 - self.similarity) * prototypes[:-1]
        noise = self.sigma * jax.random.normal(key_noise, (self.length, self.dim))
        # One question has one noise, however many answers it wants.
        noise = jnp.where(query[:, None], noise[-1], noise)
        shared = self.spans * self.attributes > 1
        vectors = prototypes[keys] + jnp.where(query[:, None] | shared, noise, 0.0)
        return jnp.where((keys < 0)[:, None], 0.0, vectors)

    def reference(self) -> Figure:
        """One where keys are exact; else that of the nearest keys."""
        return simulated(self, "reference") if self.semantic and self.sigma else super().reference()

    def reference_policy(self, key: Array, tokens: Array) -> Int[Array, " T"]:
        """The values of the items whose keys are nearest to the question's, in the order shown."""
        keys, question = self.field(tokens, "key"), self.field(tokens, "key")[-1]
        distance = ((keys - question) ** 2).sum(-1)
        eligible = self.field(tokens, "item") > 0
        if self.attributes > 1:
            attribute = self.field(tokens, "attribute")
            eligible &= (attribute * attribute[-1]).sum(-1) > 0
        near = jnp.argsort(jnp.where(eligible, distance, FAR))[: self.spans]
        values = self.field(tokens, "value").argmax(-1)[jnp.sort(near)]
        return jnp.zeros(self.length, jnp.int32).at[self.length - self.spans :].set(values)
