"""CountRecall (POPGym, Morad et al. 2023, arXiv 2303.01859): how often was this kind of card seen?

Two equal decks are shuffled. Every step shows a card of the first (the value) and one of the second (the
query); the answer is how many values of the query's kind have been shown, the current one included. A
right answer pays 1/(N − 1), a wrong one −1/(N − 1), N being the number of cards of a deck, so that a trial's
return lies in [−1, 1]. Answers reach from 0 to all cards of a kind. The trial ends when the decks are
exhausted, after N − 1 steps: the task's own end, so `terminated`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Float

from .deck import CARDS_PER_DECK, DeckTask, check_decks, deal, full_deck, kinds_of


@struct.dataclass
class CountRecallState(environment.EnvState):
    """What is left of the decks by kind, `values` and `queries`, [kinds] each, and the two cards shown."""

    values: jax.Array
    queries: jax.Array
    value: jax.Array
    query: jax.Array
    time: Any


class CountRecall(DeckTask[CountRecallState]):
    """Observation: value and query as one-hot vectors side by side. Action: the count."""

    def __init__(self, num_decks: int = 1, deck_type: str = "colors"):
        super().__init__()
        check_decks(num_decks)
        self.kinds = kinds_of(deck_type, ("colors", "suits", "ranks"))
        self.num_decks = num_decks
        self.num_cards = num_decks * CARDS_PER_DECK

    @property
    def num_actions(self) -> int:
        """Every count, from none to all cards of a kind."""
        return self.num_cards // self.kinds + 1

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """The counts."""
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: Any) -> spaces.Box:
        """Two one-hot vectors."""
        return spaces.Box(0.0, 1.0, (2 * self.kinds,), jnp.float32)

    def reset_env(self, key: Array, params: Any) -> tuple[Array, CountRecallState]:
        """Two full decks with their first cards dealt."""
        full = full_deck(self.num_decks, self.kinds)
        state = self._deal(key, full, full, jnp.int32(0))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: Array, state: CountRecallState, action: Any, params: Any
    ) -> tuple[Array, CountRecallState, Array, Array, dict[Any, Any]]:
        """Judge the answer, then deal the next cards."""
        count = self.num_cards // self.kinds - state.values[state.query]
        reward = jnp.where(action == count, 1.0, -1.0) / (self.num_cards - 1)
        state = self._deal(key, state.values, state.queries, state.time + 1)
        return self.observe(key, state, action, params), state, reward, self.is_terminated(state, params), {}

    def _deal(self, key: Array, values: Array, queries: Array, time: Array) -> CountRecallState:
        key_value, key_query = jax.random.split(key)
        value, values = deal(key_value, values)
        query, queries = deal(key_query, queries)
        return CountRecallState(values=values, queries=queries, value=value, query=query, time=time)

    def observe(self, key: Array, state: CountRecallState, action: Any, params: Any) -> Float[Array, " D"]:
        """The two cards."""
        return jax.nn.one_hot(jnp.stack([state.value, state.query]), self.kinds).ravel()
