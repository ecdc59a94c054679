"""RepeatPrevious and RepeatFirst: POPGym's rules, solvable by remembering and by nothing less."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.memory.deck import deal, full_deck
from resetta.envs.registry import make_env
from resetta.envs.scores import trial_returns

GRADES = {
    "repeat_previous_easy": (52, 4),
    "repeat_previous_medium": (104, 32),
    "repeat_previous_hard": (156, 64),
    "repeat_first_easy": (52, None),
    "repeat_first_medium": (416, None),
    "repeat_first_hard": (832, None),
}


def remember_previous(k):
    """Carries the last k suits, oldest first, and answers with the oldest."""

    def act(carry, key, observation):
        carry = jnp.concatenate([carry[1:], jnp.argmax(observation)[None]])
        return carry, carry[0]

    return jnp.zeros(k, jnp.int32), act


def remember_first(carry, key, observation):
    carry = jnp.where(carry < 0, jnp.argmax(observation), carry)
    return carry, carry


def trial(base_env, key):
    """One trial of a constant answer 0: suits [N], rewards and ends [N - 1]."""
    key_reset, key = jax.random.split(key)
    observation, state = base_env.reset(key_reset, base_env.params)

    def step(state, key):
        out = base_env.step(key, state, jnp.int32(0), base_env.params)
        return out[1], (out[0], *out[2:])

    _, (rest, *others) = jax.lax.scan(step, state, jax.random.split(key, base_env.max_steps))
    return jnp.argmax(jnp.concatenate([observation[None], rest]), -1), *others


# Rewards of every grade are compared with POPGym's in test_memory_popgym.
@pytest.mark.parametrize("name", ["repeat_previous_medium", "repeat_first_easy"])
def test_a_trial_deals_the_whole_deck_and_pays_by_the_rules(name):
    num_cards, k = GRADES[name]
    base_env = make_env(name)
    suits, rewards, terminated, truncated = jax.jit(lambda key: trial(base_env, key))(jax.random.key(0))
    suits = np.asarray(suits)
    assert len(rewards) == num_cards - 1
    assert Counter(suits.tolist()) == dict.fromkeys(range(4), num_cards // 4)
    if k is None:
        expected = np.where(suits[0] == 0, 1, -1) / (num_cards - 1) * np.ones(num_cards - 1)
    else:
        # Before step t the hand is cards 0..t; the answer is the k-th last of them.
        asked = np.arange(num_cards - 1) + 1 - k
        expected = np.where(asked < 0, 0, np.where(suits[asked] == 0, 1, -1) / (num_cards - k))
    np.testing.assert_allclose(rewards, expected, rtol=1e-6)
    assert terminated.tolist() == [False] * (num_cards - 2) + [True]
    assert not truncated.any()


@pytest.mark.parametrize("name", [name for name in GRADES if not name.endswith("medium")])
def test_remembering_scores_one(name):
    _, k = GRADES[name]
    carry, act = (jnp.int32(-1), remember_first) if k is None else remember_previous(k)
    np.testing.assert_allclose(trial_returns(make_env(name), carry, act, 16, 0), 1.0, atol=2e-4)


@pytest.mark.parametrize(("name", "short"), [("repeat_previous_medium", 31)])
def test_a_memory_one_card_too_short_scores_like_chance(name, short):
    carry, act = remember_previous(short)
    returns = trial_returns(make_env(name), carry, act, 512, 0)
    # Dealing without replacement makes the neighbour a little less likely to match: (13 n - 1)/(52 n - 1).
    cards = GRADES[name][0]
    expected = 2 * (cards / 4 - 1) / (cards - 1) - 1
    assert abs(returns.mean() - expected) < 5 * returns.std() / np.sqrt(512)


def test_dealing_has_the_law_of_a_shuffled_deck():
    # Frequencies of ordered triples against exact hypergeometric probabilities.
    def three(key):
        remaining, suits = full_deck(1), []
        for step in jax.random.split(key, 3):
            suit, remaining = deal(step, remaining)
            suits.append(suit)
        return jnp.stack(suits)

    draws = 40_000
    triples = np.asarray(jax.jit(jax.vmap(three))(jax.random.split(jax.random.key(0), draws)))
    counts = Counter(map(tuple, triples.tolist()))
    for triple in [(0, 0, 0), (3, 3, 3), (0, 1, 2), (2, 2, 1), (1, 3, 1)]:
        left, p = dict.fromkeys(range(4), 13), 1.0
        for dealt, suit in enumerate(triple):
            p *= left[suit] / (52 - dealt)
            left[suit] -= 1
        assert abs(counts[triple] / draws - p) < 5 * np.sqrt(p * (1 - p) / draws)


def test_an_empty_deck_stays_empty():
    suit, remaining = deal(jax.random.key(0), jnp.zeros(4, jnp.int32))
    assert 0 <= int(suit) < 4
    assert remaining.tolist() == [0, 0, 0, 0]
