"""A shuffled deck of cards of which only the suits matter, dealt one card at a time.

Dealing without replacement needs no shuffle: the next suit is drawn in proportion to what is left. The
law is that of a shuffled deck, and a reset costs four numbers instead of a sort of the whole deck, which
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


def full_deck(num_decks: int) -> Int[Array, " 4"]:
    """How many cards of each suit there are before the first is dealt, int32."""
    return jnp.full((SUITS,), num_decks * CARDS_PER_DECK // SUITS, jnp.int32)


def deal(key: Array, remaining: Int[Array, " 4"]) -> tuple[Int[Array, ""], Int[Array, " 4"]]:
    """The suit of the next card, 0 to 3, and what is left. An empty deck deals suit 3 for ever."""
    # Four numbers are added one by one: sums and cumulative sums would be kernels of their own on a GPU.
    upto = list(itertools.accumulate(remaining[suit] for suit in range(SUITS)))
    card = jax.random.randint(key, (), 0, jnp.maximum(upto[-1], 1))
    suit = sum((card >= bound).astype(jnp.int32) for bound in upto[:-1])
    suit = jnp.where(upto[-1] > 0, suit, SUITS - 1)
    taken = (jnp.arange(SUITS) == suit) & (upto[-1] > 0)
    return suit, remaining - taken.astype(jnp.int32)


State = TypeVar("State", bound=environment.EnvState)


class DeckTask(environment.Environment[State, environment.EnvParams]):
    """A trial that shows the suits of `num_cards` cards, one a step, and asks for a suit at each step."""

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
