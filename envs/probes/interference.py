"""P15, reset and interference: consecutive episodes use the same keys with other values."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .base import Episode, Probe
from .recall import Recall


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interference(Probe):
    """`episodes` of recall in one stream; each gives every key a value that differs from the one before.

    With `resets` the memory is cleared where an episode begins, so that nothing may leak: `stale` answers
    must be no commoner than chance. Without, the answers per episode are the curve of overwriting. An episode
    is `length`/`episodes` steps, of which filler takes what pairs and queries leave: no core's chunks end
    where they do.
    """

    length: int = 66
    episodes: int = 3
    keys: int = 8
    values: int = 8
    queries: int = 8
    resets: bool = True

    knob: ClassVar[str] = "keys"

    def __post_init__(self) -> None:
        self.need("episodes", self.episodes >= 2, "interferes with nothing; use 2 or more")
        each = self.length // self.episodes
        cure = f"must be a multiple of episodes={self.episodes}"
        self.need("length", self.length % self.episodes == 0, f"{cure}; use {(each + 1) * self.episodes}")
        least = (self.keys + self.queries) * self.episodes
        self.need("length", self.length >= least, f"has no room for pairs and queries; use {least} or more")
        self._recall  # noqa: B018  # its own checks

    @property
    def _recall(self) -> Recall:
        return Recall(
            length=self.length // self.episodes,
            keys=self.keys,
            values=self.values,
            pairs=self.keys,
            queries=self.queries,
        )

    @property
    def fields(self) -> dict[str, int]:
        """Key and value."""
        return self._recall.fields

    @property
    def num_answers(self) -> int:
        """The values."""
        return self.values

    @property
    def trials(self) -> int:
        """The environment makes a trial of each episode, or one of all where the memory is kept."""
        return self.episodes if self.resets else 1

    def episode(self, key: Array) -> Episode:
        """Tables of values that differ from one to the next in every key, each asked about in its turn."""
        key_first, key_change, key_episodes = jax.random.split(key, 3)
        first = jax.random.randint(key_first, (1, self.keys), 0, self.values)
        change = jax.random.randint(key_change, (self.episodes - 1, self.keys), 1, self.values)
        tables = jnp.concatenate([first, change]).cumsum(0) % self.values
        parts = jax.vmap(self._recall.compose)(jax.random.split(key_episodes, self.episodes), tables)
        whole: Episode = jax.tree.map(lambda part: part.reshape(self.length, *part.shape[2:]), parts)
        reset = whole.reset if self.resets else jnp.arange(self.length) == 0
        return whole._replace(reset=reset, payoff=whole.payoff / self.episodes)

    def stale(self, tokens: Array) -> Int[Array, "E T"]:
        """What each episode says about the key at each step, −1 where there is none: `[episodes, T]`.

        Row e holds the answers of a memory that still believes episode e.
        """
        keys, values = self.field(tokens, "key"), self.field(tokens, "value")
        of = jnp.arange(self.length) // (self.length // self.episodes)
        shown = values.any(-1)[None] & (of == jnp.arange(self.episodes)[:, None])
        tables = jnp.einsum("et,tk,tv->ekv", shown.astype(jnp.float32), keys, values).argmax(-1)
        return jnp.where(keys.any(-1), tables[:, keys.argmax(-1)], -1)

    def measures(self, episode: Episode, outputs: Float[Array, "T B O"]) -> dict[str, Float[Array, " B"]]:
        """The curve of overwriting, right answers of each episode, and how many later ones are `stale`.

        Stale is what the episode before would have been right with; of guesses, one in `values` is. Nothing
        is told of questions that come with pairs of their own (`baseline=retrieve`).
        """
        if episode.tokens.shape[0] != self.length:
            return {}
        answers, parts = outputs.argmax(-1), self.episodes
        right = ((answers == episode.targets) & episode.mask).reshape(parts, -1, answers.shape[1]).sum(1)
        believed = jax.vmap(self.stale, 1, 2)(episode.tokens).reshape(parts, parts, -1, answers.shape[1])
        before = believed[jnp.arange(parts - 1), jnp.arange(1, parts)]  # the one before each
        later = answers.reshape(parts, -1, answers.shape[1])[1:] == before
        asked = episode.mask.reshape(parts, -1, answers.shape[1])
        shares = {f"right in episode {k + 1}": each / self.queries for k, each in enumerate(right)}
        return {**shares, "stale": (later & asked[1:]).sum((0, 1)) / asked[1:].sum((0, 1))}
