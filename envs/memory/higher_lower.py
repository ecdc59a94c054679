"""HigherLower (POPGym, Morad et al. 2023, arXiv 2303.01859): will the next card be higher or lower?

Every step shows the rank of one card of a shuffled deck and asks whether the next is higher (0) or lower
(1). A right guess pays 1/N, a wrong one −1/N, a tie nothing; N is the number of cards. Who counts cards
knows the better guess: a trial's best expected return is well below 1, but it can be attained. The trial ends
when the deck is exhausted, after N − 1 steps: the task's own end, so `terminated`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array

from .deck import CARDS_PER_DECK, KINDS, DeckTask, check_decks, deal, full_deck


@struct.dataclass
class HigherLowerState(environment.EnvState):
    """`remaining` [13] counts the cards left per rank; `current` is the rank of the card shown."""

    remaining: jax.Array
    current: jax.Array
    time: Any


class HigherLower(DeckTask[HigherLowerState]):
    """Observation: the current rank, `Discrete(13)`. Action: higher or lower, `Discrete(2)`."""

    def __init__(self, num_decks: int = 1):
        super().__init__()
        check_decks(num_decks)
        self.num_decks = num_decks
        self.num_cards = num_decks * CARDS_PER_DECK

    @property
    def num_actions(self) -> int:
        """Higher or lower."""
        return 2

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """Higher (0) or lower (1)."""
        return spaces.Discrete(2)

    def observation_space(self, params: Any) -> spaces.Discrete:
        """The ranks, from the ace (0) to the king (12)."""
        return spaces.Discrete(KINDS["ranks"])

    def reset_env(self, key: Array, params: Any) -> tuple[Array, HigherLowerState]:
        """A full deck with its first card dealt."""
        rank, remaining = deal(key, full_deck(self.num_decks, KINDS["ranks"]))
        return rank, HigherLowerState(remaining=remaining, current=rank, time=jnp.int32(0))

    def step_env(
        self, key: Array, state: HigherLowerState, action: Any, params: Any
    ) -> tuple[Array, HigherLowerState, Array, Array, dict[Any, Any]]:
        """Deal the next card and judge the guess by it."""
        rank, remaining = deal(key, state.remaining)
        rise = jnp.sign(rank - state.current)
        reward = jnp.where(action == 0, rise, -rise) / self.num_cards
        state = HigherLowerState(remaining=remaining, current=rank, time=state.time + 1)
        return rank, state, reward, self.is_terminated(state, params), {}

    def observe(self, key: Array, state: HigherLowerState, action: Any, params: Any) -> Array:
        """The current rank."""
        return state.current
