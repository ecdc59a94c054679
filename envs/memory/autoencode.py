"""Autoencode (POPGym, Morad et al. 2023, arXiv 2303.01859): recite a deck backwards.

The cards of a shuffled deck are shown one by one; nothing is paid meanwhile. With the last card the mode
turns from watching (1) to playing (0): the suits are asked for in reverse order, the last one first, and
suit 0 is shown in place of cards. A right answer pays 1/N, a wrong one −1/N, N being the number of cards,
so that a trial's return lies in [−1, 1]. It ends after N − 1 steps of watching and N of playing: the
task's own end, so `terminated`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Float

from .deck import CARDS_PER_DECK, SUITS, DeckTask, check_decks, deal, full_deck


@struct.dataclass
class AutoencodeState(environment.EnvState):
    """`remaining` [4] counts the cards left per suit; `cards` [N] are the suits dealt so far, in order."""

    remaining: jax.Array
    cards: jax.Array
    time: Any


class Autoencode(DeckTask[AutoencodeState]):
    """Observation: mode and suit as one-hot vectors side by side, six entries. Action: a suit."""

    def __init__(self, num_decks: int = 1):
        super().__init__()
        check_decks(num_decks)
        self.num_decks = num_decks
        self.num_cards = num_decks * CARDS_PER_DECK

    @property
    def default_params(self) -> environment.EnvParams:
        """The trial's length follows from the number of decks."""
        return environment.EnvParams(max_steps_in_episode=2 * self.num_cards - 1)

    def is_terminated(self, state: AutoencodeState, params: Any) -> Array:
        """Whether the first card has been asked for."""
        return state.time >= 2 * self.num_cards - 1

    def observation_space(self, params: Any) -> spaces.Box:
        """Two one-hot vectors."""
        return spaces.Box(0.0, 1.0, (2 + SUITS,), jnp.float32)

    def reset_env(self, key: Array, params: Any) -> tuple[Array, AutoencodeState]:
        """A full deck with its first card dealt."""
        suit, remaining = deal(key, full_deck(self.num_decks))
        cards = jnp.zeros((self.num_cards,), jnp.int32).at[0].set(suit)
        state = AutoencodeState(remaining=remaining, cards=cards, time=jnp.int32(0))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Array, state: AutoencodeState, action: Any, params: Any
    ) -> tuple[Array, AutoencodeState, Array, Array, dict[Any, Any]]:
        """Judge the answer once all cards are known; deal the next card before."""
        last = self.num_cards - 1
        sign = jnp.where(action == state.cards[2 * last - state.time], 1.0, -1.0)
        reward = jnp.where(state.time >= last, sign / self.num_cards, 0.0)
        suit, remaining = deal(key, state.remaining)
        seen = state.time + 1
        cards = jnp.where(jnp.arange(self.num_cards) == seen, suit, state.cards)
        state = AutoencodeState(remaining=remaining, cards=cards, time=seen)
        return self.observe(key, state, action, params), state, reward, self.is_terminated(state, params), {}

    def observe(self, key: Array, state: AutoencodeState, action: Any, params: Any) -> Float[Array, " 6"]:
        """The mode, and the newest card if there is one."""
        watching = (state.time < self.num_cards - 1).astype(jnp.int32)
        suit = jnp.where(state.time < self.num_cards, state.cards[state.time % self.num_cards], 0)
        return jnp.concatenate([jax.nn.one_hot(watching, 2), jax.nn.one_hot(suit, SUITS)])
