"""P1 and P2: histories of a reference policy, and policies that act."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.probes import make_probe, picture, probe_env
from resetta.envs.probes.figures import simulate

SMALL = {"bandit": {"length": 30}, "dark_room": {"length": 60}}


@functools.cache
def drawn(name, **options):
    probe = make_probe(name, **SMALL[name], **options)
    batch = jax.jit(lambda key: probe.sequences(key, 256))(jax.random.key(0))
    return probe, jax.tree.map(np.asarray, batch)


def close(scores, expected, theirs=0.0):
    error = np.hypot(scores.std() / np.sqrt(len(scores)), theirs)
    assert abs(scores.mean() - expected) <= 4 * error + 1e-5, (scores.mean(), expected, error)


@pytest.mark.parametrize("name", SMALL)
def test_a_key_fixes_the_history(name):
    probe, batch = drawn(name)
    key = jax.random.split(jax.random.key(0), 256)[7]
    one_alone = jax.jit(probe.episode)(key)
    for one, many in zip(jax.tree.leaves(one_alone), jax.tree.leaves(batch), strict=True):
        np.testing.assert_allclose(one, many[:, 7], atol=1e-6)
    assert batch.mask.all()
    assert batch.reset.sum() == 256
    assert (batch.reset == (probe.field(batch.tokens, "start") == 1)).all()
    np.testing.assert_allclose(probe.score(batch, batch.targets), 1, rtol=1e-5)
    assert picture(probe, jax.tree.map(lambda part: part[:, 0], batch)).dtype == np.uint8


@pytest.mark.parametrize("name", SMALL)
def test_the_history_holds_what_was_done(name):
    probe, batch = drawn(name, astray=0.0)
    done = probe.field(batch.tokens, "action")
    assert (done[0] == 0).all()
    assert (done[1:].argmax(-1) == batch.targets[:-1]).all()


def copied(probe, batch):
    """How often a right answer is the action that was taken before, and its standard error."""
    last = probe.field(batch.tokens, "action").argmax(-1)
    agrees = (last == batch.targets)[1:].mean(0)
    return agrees.mean(), agrees.std() / np.sqrt(agrees.size)


def test_to_repeat_the_last_action_is_not_to_imitate():
    assert copied(*drawn("dark_room", astray=0.0))[0] > 0.8
    probe, batch = drawn("dark_room")
    share, error = copied(probe, batch)
    # The goal is known: on it the answer is to stay, and half of what was done before was chance.
    assert share + 4 * error < 0.5
    home = probe.field(batch.tokens, "trial")[..., 0] > 0
    rewarded = (probe.field(batch.tokens, "reward")[..., 0] > 0) & ~home
    assert (batch.targets[rewarded] == 0).all()
    taken = probe.field(batch.tokens, "action").argmax(-1)[1:]
    strays = (taken != batch.targets[:-1])[~home[1:]]
    # a share uniform up to 1 of steps takes one of five actions, one of them right
    assert strays.mean() == pytest.approx(0.4, abs=0.03)

    def repeat(memory, key, token, state):
        return memory, probe.field(token, "action").argmax()

    earned = jax.jit(jax.vmap(lambda key: probe.rollout(key, (), repeat)[2]))(
        jax.random.split(jax.random.key(6), 2048)
    )
    close(np.asarray(earned), probe.random().value)  # it never leaves its place
    assert probe.random().value < probe.blind().value


def test_the_bandits_figures():
    probe = make_probe("bandit")
    close(simulate(probe, "random", 2048, 1), 0.5)
    # The specification's were simulated with 3,000 episodes; an episode's spread is about .2.
    for options, theirs in (({}, 0.755), ({"arms": 10}, 0.774)):
        probe = make_probe("bandit", **options)
        scores = simulate(probe, "reference", 1024, 2)
        close(scores, theirs, scores.std() / np.sqrt(3000))
    fresh, known = simulate(make_probe("bandit"), "blind", 2048, 3), make_probe("bandit").blind()
    close(fresh, known.value, known.std_error)
    assert make_probe("bandit").random().value < known.value < make_probe("bandit").reference().value


@pytest.mark.parametrize("stay", [0.1, 0.3, 0.6])
def test_win_stay_lose_shift_is_the_best_without_memory(stay):
    # A policy of the previous arm and reward: stay after a reward; after none, stay with a probability.
    probe = make_probe("bandit")

    def act(memory, key, token, state):
        shift = probe.blind_policy(key, token)
        arm = probe.field(token, "action").argmax()
        return memory, jnp.where(jax.random.bernoulli(key, stay), arm, shift)

    scores = jax.jit(jax.vmap(lambda key: probe.rollout(key, (), act)[2]))(
        jax.random.split(jax.random.key(4), 2048)
    )
    blind, error = probe.blind(), np.std(scores) / np.sqrt(2048)
    assert np.mean(scores) <= blind.value + 4 * np.hypot(error, blind.std_error)


def test_dark_rooms_figures():
    probe = make_probe("dark_room")
    assert probe.reference().value == pytest.approx(16.54, abs=5e-3)
    assert probe.random().value == pytest.approx(20 / 81)
    assert probe.blind().value == pytest.approx(210 / 81)
    close(simulate(probe, "random", 2048, 1), probe.random().value)
    close(simulate(probe, "reference", 2048, 2), probe.reference().value)


def spiral(size):
    """Which way to go from every cell, so that a walk from the centre meets a new cell every step."""
    moves = {1: (1, 0), 3: (0, 1), 2: (-1, 0), 4: (0, -1)}
    table, cell, turn, run = np.zeros((size, size), int), np.array([size // 2, size // 2]), 0, 1
    order = [1, 3, 2, 4]
    while True:
        for _ in range(2):
            for _ in range(run):
                table[tuple(cell)] = order[turn % 4]
                cell = cell + moves[order[turn % 4]]
                if not ((cell >= 0) & (cell < size)).all():
                    return table
            turn += 1
        run += 1


@pytest.mark.parametrize("size", [3, 9])
def test_a_walk_without_memory_reaches_dark_rooms_blind_score(size):
    probe = make_probe("dark_room", size=size, length=40)
    table = jnp.asarray(spiral(size).ravel())

    def act(memory, key, token, state):
        cell = probe.field(token, "observation").argmax()
        # At the start of a trial it waits a step: the goal may be where it stands.
        stay = (probe.field(token, "reward")[0] > 0) | (probe.field(token, "trial")[0] > 0)
        return memory, jnp.where(stay, 0, table[cell])

    scores = jax.jit(jax.vmap(lambda key: probe.rollout(key, (), act)[2]))(
        jax.random.split(jax.random.key(5), 2048)
    )
    close(np.asarray(scores), probe.blind().value)


def test_imitating_is_no_environment_of_its_own():
    with pytest.raises(ValueError, match="DarkRoom imitates a policy; act in its own environment"):
        probe_env("dark_room")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dark_room", {"length": 50}, "length=50 of DarkRoom is not a number of trials .* use 40"),
        ("dark_room", {"size": 8}, "size=8 of DarkRoom must be odd"),
        ("dark_room", {"astray": 1.5}, "astray=1.5 of DarkRoom must be a share, 0 to 1"),
        ("bandit", {"arms": 1}, "arms=1 of Bandit leaves no choice"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_probe(name, **options)
