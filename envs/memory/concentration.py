"""Concentration (POPGym, Morad et al. 2023, arXiv 2303.01859): find the pairs among cards lying face down.

Every action turns one card over. Two turned cards of one kind stay face up and pay 2/n, n being the number
of cards; any other two cost 2/T, T being the time limit, and are turned back, and so are those of a turn
that touches a card already face up, which costs 1/T a card. The trial ends when all cards are face up
(`terminated`), or after T = ⌈2n − n/(2n − 1)⌉ actions (`truncated`).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Float

from .deck import CARDS_PER_DECK, check_decks, kinds_of


@struct.dataclass
class ConcentrationState(environment.EnvState):
    """`cards` [n] are kinds, `face_up` [n] those found.

    `first` and `second` are the places turned in the current or last turn, −1 for none; `waiting` says that
    `first` waits for its second.
    """

    cards: jax.Array
    face_up: jax.Array
    first: jax.Array
    second: jax.Array
    waiting: jax.Array
    time: Any


class Concentration(environment.Environment[ConcentrationState, environment.EnvParams]):
    """Observation: every place's kind, or face down, as one-hot vectors side by side. Action: a place."""

    def __init__(self, num_decks: int = 1, deck_type: str = "colors"):
        super().__init__()
        check_decks(num_decks)
        # There are 13 cards of a suit in a deck: too odd to pair.
        self.kinds = kinds_of(deck_type, ("colors", "ranks"))
        self.num_cards = num_decks * CARDS_PER_DECK

    @property
    def default_params(self) -> environment.EnvParams:
        """POPGym's time limit."""
        n = self.num_cards
        return environment.EnvParams(max_steps_in_episode=math.ceil(2 * n - n / (2 * n - 1)))

    def reset_env(self, key: Array, params: Any) -> tuple[Array, ConcentrationState]:
        """Shuffled cards, all face down."""
        none = jnp.int32(-1)
        state = ConcentrationState(
            cards=jax.random.permutation(key, jnp.arange(self.num_cards) % self.kinds),
            face_up=jnp.zeros(self.num_cards, bool),
            first=none,
            second=none,
            waiting=jnp.bool_(False),
            time=jnp.int32(0),
        )
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Array, state: ConcentrationState, action: Any, params: Any
    ) -> tuple[Array, ConcentrationState, Array, Array, dict[Any, Any]]:
        """Turn a card over; judge the pair, or the touch of a card already face up."""
        action, two = jnp.int32(action), state.waiting
        first = jnp.where(two, state.first, action)
        touched = state.face_up[action]  # the first of a waiting pair lay face down
        pair = two & ~touched & (state.cards[first] == state.cards[action]) & (first != action)
        cost = (1.0 + two) / params.max_steps_in_episode
        reward = jnp.where(pair, 2.0 / self.num_cards, jnp.where(two | touched, -cost, 0.0))
        places = jnp.arange(self.num_cards)
        face_up = state.face_up | (pair & ((places == first) | (places == action)))
        state = ConcentrationState(
            cards=state.cards,
            face_up=face_up,
            first=first,
            second=jnp.where(two, action, -1),
            waiting=~two & ~touched,
            time=state.time + 1,
        )
        return self.observe(key, state, action, params), state, reward, self.is_terminated(state, params), {}

    def observe(self, key: Array, state: ConcentrationState, action: Any, params: Any) -> Float[Array, " D"]:
        """The cards face up and those just turned."""
        places = jnp.arange(self.num_cards)
        seen = state.face_up | (places == state.first) | (places == state.second)
        return jax.nn.one_hot(jnp.where(seen, state.cards, self.kinds), self.kinds + 1).ravel()

    def is_terminated(self, state: ConcentrationState, params: Any) -> Array:
        """Whether every pair has been found."""
        return state.face_up.all()

    @property
    def num_actions(self) -> int:
        """One per place."""
        return self.num_cards

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """The places."""
        return spaces.Discrete(self.num_cards)

    def observation_space(self, params: Any) -> spaces.Box:
        """A one-hot vector a place; the last entry of each stands for face down."""
        return spaces.Box(0.0, 1.0, (self.num_cards * (self.kinds + 1),), jnp.float32)
