"""P3, a cue and a delay: T-maze (Bakker 2001) and RepeatPrevious (POPGym, Morad et al. 2023)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .base import FILLER, ITEM, QUERY, Episode, Figure, Probe, at, distinct, exact


@dataclasses.dataclass(frozen=True, kw_only=True)
class TMaze(Probe):
    """The first step shows where the goal will be, the last is the junction: +1 for the right turn, −1 else.

    `distractors` of the steps between show a cue as well, without the flag that marks the true one.
    """

    distractors: int = 0

    def __post_init__(self) -> None:
        self.need("length", self.length >= 2, "leaves no junction; use 2 or more")
        self.need("distractors", 0 <= self.distractors <= self.length - 2, f"must be 0 to {self.length - 2}")

    @property
    def fields(self) -> dict[str, int]:
        """The cue: left or right."""
        return {"cue": 2}

    @property
    def num_answers(self) -> int:
        """Left or right."""
        return 2

    def episode(self, key: Array) -> Episode:
        """Cue, corridor, junction."""
        key_goal, key_where, key_cue = jax.random.split(key, 3)
        goal = jax.random.randint(key_goal, (), 0, 2)
        where = 1 + distinct(key_where, self.distractors, self.length - 2)
        cues = at(self.length, where, jax.random.randint(key_cue, (self.distractors,), 0, 2)).at[0].set(goal)
        step = jnp.arange(self.length)
        last = step == self.length - 1
        phase = jnp.where(step == 0, ITEM, jnp.where(last, QUERY, FILLER))
        payoff = jnp.where(last[:, None], 2 * jax.nn.one_hot(goal, 2) - 1, 0.0)
        return self.ask(self.encode(phase, cue=cues), jnp.full(self.length, goal), last, payoff)

    def random(self) -> Figure:
        """Zero."""
        return exact(0, "right as often as wrong")

    def blind(self) -> Figure:
        """Zero: the junction looks the same whatever the cue was."""
        return exact(0, "right as often as wrong")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepeatPrevious(Probe):
    """A card of a shuffled deck at each step; name the suit `k` cards back, the present one counting.

    The deck holds the next multiple of four above `length`, so that lengths 51, 103 and 155 are POPGym's one,
    two and three decks of 52. A right answer pays 1/(number of questions), a wrong one as much less.
    """

    length: int = 51
    k: int = 4

    knob: ClassVar[str] = "k"

    def __post_init__(self) -> None:
        self.need("k", 2 <= self.k <= self.length, f"must be 2 to length={self.length}")

    @property
    def fields(self) -> dict[str, int]:
        """The suit."""
        return {"suit": 4}

    @property
    def num_answers(self) -> int:
        """The four suits."""
        return 4

    @property
    def cards_per_suit(self) -> int:
        """A quarter of the deck."""
        return self.length // 4 + 1

    def episode(self, key: Array) -> Episode:
        """All cards of the deck but at least one, and the suit asked for at each."""
        deck = jax.random.permutation(key, jnp.repeat(jnp.arange(4), self.cards_per_suit))[: self.length]
        asked = jnp.arange(self.length) >= self.k - 1
        suits = jnp.roll(deck, self.k - 1)
        sign = 2 * jax.nn.one_hot(suits, 4) - 1
        payoff = jnp.where(asked[:, None], sign / asked.sum(), 0.0)
        return self.ask(self.encode(jnp.where(asked, QUERY, ITEM), suit=deck), suits, asked, payoff)

    def random(self) -> Figure:
        """One in four is right."""
        return exact(-0.5, "2/4 - 1")

    def blind(self) -> Figure:
        """Any suit but the present one, which is a little rarer among the other cards."""
        n = self.cards_per_suit
        return exact(2 * n / (4 * n - 1) - 1, "2n/(4n - 1) - 1, n cards a suit")
