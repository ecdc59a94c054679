"""RepeatFirst (POPGym, Morad et al. 2023, arXiv 2303.01859): name the suit of the very first card.

Every step shows one card of a shuffled deck of N cards; the answer is always the suit of the first. A
right answer pays 1/(N − 1), a wrong one −1/(N − 1), so that a trial's return lies in [−1, 1]. The trial
ends when the deck is exhausted, after N − 1 steps: the task's own end, so `terminated`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment
from jaxtyping import Array

from .deck import CARDS_PER_DECK, DeckTask, check_decks, deal, full_deck


@struct.dataclass
class RepeatFirstState(environment.EnvState):
    """`remaining` [4] counts the cards left per suit; `first` and `current` are suits."""

    remaining: jax.Array
    first: jax.Array
    current: jax.Array
    time: Any


class RepeatFirst(DeckTask[RepeatFirstState]):
    """Observation: the current suit, `Discrete(4)`. Action: the first suit, `Discrete(4)`."""

    def __init__(self, num_decks: int = 1):
        super().__init__()
        check_decks(num_decks)
        self.num_decks = num_decks
        self.num_cards = num_decks * CARDS_PER_DECK

    def reset_env(self, key: Array, params: Any) -> tuple[Array, RepeatFirstState]:
        """A full deck with its first card dealt."""
        suit, remaining = deal(key, full_deck(self.num_decks))
        return suit, RepeatFirstState(remaining=remaining, first=suit, current=suit, time=jnp.int32(0))

    def step_env(
        self, key: Array, state: RepeatFirstState, action: Any, params: Any
    ) -> tuple[Array, RepeatFirstState, Array, Array, dict[Any, Any]]:
        """Judge the answer, then deal the next card."""
        reward = jnp.where(action == state.first, 1.0, -1.0) / (self.num_cards - 1)
        suit, remaining = deal(key, state.remaining)
        state = RepeatFirstState(remaining=remaining, first=state.first, current=suit, time=state.time + 1)
        return suit, state, reward, self.is_terminated(state, params), {}

    def observe(self, key: Array, state: RepeatFirstState, action: Any, params: Any) -> Array:
        """The current suit."""
        return state.current
