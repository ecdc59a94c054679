"""A shuffled deck of cards of which only the suits matter, dealt one card at a time.

Dealing without replacement needs no shuffle: the next suit is drawn in proportion to what is left. The
law is that of a shuffled deck, and a reset costs four numbers instead of a sort of the whole deck, which
counts because a batch of environments computes a reset at every step.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

SUITS = 4
CARDS_PER_DECK = 52


def full_deck(num_decks: int) -> Int[Array, " 4"]:
    """How many cards of each suit there are before the first is dealt, int32."""
    return jnp.full((SUITS,), num_decks * CARDS_PER_DECK // SUITS, jnp.int32)


def deal(key: Array, remaining: Int[Array, " 4"]) -> tuple[Int[Array, ""], Int[Array, " 4"]]:
    """The suit of the next card, 0 to 3, and what is left. An empty deck deals suit 3 for ever."""
    total = jnp.sum(remaining)
    card = jax.random.randint(key, (), 0, jnp.maximum(total, 1))
    suit = jnp.minimum(jnp.sum(card >= jnp.cumsum(remaining)), SUITS - 1).astype(jnp.int32)
    taken = (jnp.arange(SUITS) == suit) & (total > 0)
    return suit, remaining - taken.astype(jnp.int32)
