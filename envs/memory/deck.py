"""A shuffled deck of which only the kinds of cards matter (colours, suits or ranks), dealt card by card.

Dealing without replacement needs no shuffle: the next kind is drawn in proportion to what is left. The
law is that of a shuffled deck, and a reset costs a few numbers instead of a sort of the whole deck, which
counts because a batch of environments computes a reset at every step.
"""

import itertools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces
from jaxtyping import Array, Int

SUITS = 4
CARDS_PER_DECK = 52
# How many kinds of cards there are when only this is looked at.
KINDS = {"colors": 2, "suits": SUITS, "ranks": 13}


def check_decks(num_decks: int) -> None:
    """Raises ValueError where there is no card."""
    if num_decks < 1:
        raise ValueError(f"num_decks={num_decks} leaves nothing to deal; use 1 or more")


def kinds_of(deck_type: str, allowed: tuple[str, ...]) -> int:
    """The number of kinds; raises ValueError on a deck type that is not allowed."""
    if deck_type not in allowed:
        raise ValueError(f"deck_type={deck_type!r} must be {' or '.join(allowed)}")
    return KINDS[deck_type]


def full_deck(num_decks: int, kinds: int = SUITS) -> Int[Array, " kinds"]:
    """How many cards of each kind there are before the first is dealt, int32."""
    return jnp.full((kinds,), num_decks * CARDS_PER_DECK // kinds, jnp.int32)


def deal(key: Array, remaining: Int[Array, " kinds"]) -> tuple[Int[Array, ""], Int[Array, " kinds"]]:
    """The kind of the next card, counted from 0, and what is left. An empty deck deals the last for ever."""
    kinds = len(remaining)
    # The numbers are added one by one: sums and cumulative sums would be kernels of their own on a GPU.
    upto = list(itertools.accumulate(remaining[kind] for kind in range(kinds)))
    card = jax.random.randint(key, (), 0, jnp.maximum(upto[-1], 1))
    kind = sum((card >= bound).astype(jnp.int32) for bound in upto[:-1])
    kind = jnp.where(upto[-1] > 0, kind, kinds - 1)
    taken = (jnp.arange(kinds) == kind) & (upto[-1] > 0)
    return kind, remaining - taken.astype(jnp.int32)


State = TypeVar("State", bound=environment.EnvState)


class DeckTask(environment.Environment[State, environment.EnvParams]):
    """A trial that shows `num_cards` cards, one a step, and asks at each step; by suits unless overridden."""

    never_truncates = True
    num_cards: int

    @property
    def default_params(self) -> environment.EnvParams:
        """The trial's length follows from the number of decks."""
        return environment.EnvParams(max_steps_in_episode=self.num_cards - 1)

    def is_terminated(self, state: Any, params: Any) -> Array:
        """Whether the last card has been dealt."""
        return state.time >= self.num_cards - 1

    @property
    def num_actions(self) -> int:
        """One answer per suit."""
        return SUITS

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """The four suits."""
        return spaces.Discrete(SUITS)

    def observation_space(self, params: Any) -> spaces.Discrete:
        """The four suits."""
        return spaces.Discrete(SUITS)
