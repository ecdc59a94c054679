"""RepeatPrevious (POPGym, Morad et al. 2023, arXiv 2303.01859): name the suit of the card k cards back.

Every step shows one card of a shuffled deck. As in POPGym, the current card counts: with `k = 4` the
answer is the suit seen three steps ago, and nothing is asked until k cards have been seen. A right answer
pays 1/(N − k), a wrong one −1/(N − k), so that a trial's return lies in [−1, 1]; N is the number of cards.
The trial ends when the deck is exhausted, after N − 1 steps: the task's own end, so `terminated`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment
from jaxtyping import Array

from .deck import CARDS_PER_DECK, DeckTask, deal, full_deck


@struct.dataclass
class RepeatPreviousState(environment.EnvState):
    """`remaining` [4] counts the cards left per suit; `recent` [k] holds card i at entry i mod k."""

    remaining: jax.Array
    recent: jax.Array
    time: Any


class RepeatPrevious(DeckTask[RepeatPreviousState]):
    """Observation: the current suit, `Discrete(4)`. Action: the suit k cards back, `Discrete(4)`."""

    def __init__(self, num_decks: int = 1, k: int = 4):
        super().__init__()
        self.num_cards = num_decks * CARDS_PER_DECK
        if num_decks < 1 or not 1 <= k < self.num_cards:
            raise ValueError(f"k={k} does not fit num_decks={num_decks}; use 1 <= k < 52 * num_decks")
        self.num_decks = num_decks
        self.k = k

    def reset_env(self, key: Array, params: Any) -> tuple[Array, RepeatPreviousState]:
        """A full deck with its first card dealt."""
        suit, remaining = deal(key, full_deck(self.num_decks))
        state = RepeatPreviousState(
            remaining=remaining, recent=jnp.full((self.k,), suit, jnp.int32), time=jnp.int32(0)
        )
        return suit, state

    def step_env(
        self, key: Array, state: RepeatPreviousState, action: Any, params: Any
    ) -> tuple[Array, RepeatPreviousState, Array, Array, dict[Any, Any]]:
        """Judge the answer, then deal the next card."""
        seen = state.time + 1
        # Card seen − k, the one that is asked for, sits exactly where the next card goes.
        slot = seen % self.k
        sign = jnp.where(action == state.recent[slot], 1.0, -1.0)
        reward = jnp.where(seen >= self.k, sign / (self.num_cards - self.k), 0.0)
        suit, remaining = deal(key, state.remaining)
        recent = jnp.where(jnp.arange(self.k) == slot, suit, state.recent)
        state = RepeatPreviousState(remaining=remaining, recent=recent, time=seen)
        return suit, state, reward, self.is_terminated(state, params), {}

    def observe(self, key: Array, state: RepeatPreviousState, action: Any, params: Any) -> Array:
        """The current suit."""
        return state.recent[state.time % self.k]
