"""P14: stretches of one string, and what finds them among a pool."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.probes import make_probe, probe_env
from resetta.envs.probes.retrieval import EpisodeRetrieval

POOLS = 6


def made(**options) -> EpisodeRetrieval:
    return make_probe("episode_retrieval", **options)  # pyright: ignore


@functools.cache
def drawn(**options):
    """A probe, the strings of some pools and the episodes that are made of them."""
    probe = made(**options)

    @jax.jit
    def draw(keys):
        strings = jax.vmap(lambda key: probe.string(key, 2 * probe.shown + probe.gap)[0])(keys)
        return strings, jax.vmap(probe.episode, out_axes=1)(keys)

    keys = jax.random.split(jax.random.key(2), POOLS * probe.pool)
    return probe, *jax.tree.map(np.asarray, draw(keys))


@functools.cache
def compared(symbols=31, **options):
    """How similar the counts of the first `symbols` of each stretch are, `[POOLS, 64, 64]`."""
    _, _, batch = drawn(**options)
    steps, probe = symbols + 1, made(**options, length=2 * (symbols + 1))
    tokens = batch.tokens.reshape(2, 32, POOLS, 64, -1)[:, :steps].copy()
    tokens[:, -1] = 0
    policy = jax.jit(jax.vmap(probe.reference_policy, in_axes=(None, 1)))
    return policy(jax.random.key(0), tokens.reshape(2 * steps, POOLS, 64, -1))


def share(similarity):
    return float(made().found(similarity).mean())


def test_the_stretches_are_disjoint_parts_of_one_string():
    probe, strings, batch = drawn()
    symbols = probe.field(batch.tokens, "symbol")
    for end in (31, 63):
        assert batch.mask[end].all()
        assert (symbols[end] == 0).all()
        assert len(np.unique(batch.tokens[end], axis=0)) == 1  # the question tells nothing
    assert batch.mask.sum() == 2 * POOLS * 64
    assert (np.flatnonzero(batch.reset[:, 0]) == [0, 32]).all()
    shown = symbols.argmax(-1).T
    assert (shown[:, :31] == strings[:, :31]).all()
    assert (shown[:, 32:63] == strings[:, 31 + 16 :]).all()
    assert strings.shape[1] == 31 + 16 + 31


def test_counts_find_the_task_and_chance_does_not():
    probe = made()
    found = np.asarray(probe.found(compared())).mean(1)
    known = probe.reference()
    assert abs(found.mean() - known.value) <= 4 * np.hypot(found.std(ddof=1) / POOLS**0.5, known.std_error)
    assert known.value > 0.8
    guesses = jax.vmap(lambda key: probe.random_policy(key, jnp.zeros(())))(
        jax.random.split(jax.random.key(3), 400)
    )
    by_chance = np.asarray(probe.found(guesses)).mean(1)
    assert abs(by_chance.mean() - 1 / 64) <= 4 * by_chance.std() / 20
    assert probe.random().value == probe.blind().value == 1 / 64


def test_a_larger_pool_shorter_stretches_and_more_states_are_harder():
    whole = compared()
    assert share(whole[:, :8, :8]) > share(whole) + 0.03
    assert share(whole) > share(compared(symbols=15)) + 0.1
    assert share(whole) > share(compared(min_states=64, max_states=64)) + 0.1


@functools.cache
def behind():
    """Episodes of four pools of stretches behind projections."""
    probe = make_probe("projection_retrieval", pool=32)
    return probe, jax.tree.map(np.asarray, jax.jit(lambda key: probe.sequences(key, 128))(jax.random.key(4)))


def test_stretches_behind_one_projection_span_the_same_observations():
    probe, batch = behind()
    seen, action = (probe.field(batch.tokens, name) for name in ("observation", "action"))
    assert len(np.unique(batch.tokens[[31, 63]].reshape(256, -1), axis=0)) == 1  # the question tells nothing
    assert (np.flatnonzero(batch.mask[:, 0]) == [31, 63]).all()
    assert (np.flatnonzero(batch.reset[:, 0]) == [0, 32]).all()
    assert (action[0] == 0).all()  # a second stretch begins in the middle of things
    assert (action[1:31].sum(-1) == 1).all()
    assert (action[32:63].sum(-1) == 1).all()
    assert not (seen[:31] == seen[32:63]).all(-1).any()
    axes = np.linalg.svd(seen[:31].swapaxes(0, 1), full_matrices=False)[2][:, :4]
    later = seen[32:63].swapaxes(0, 1)
    for others, least, most in ((axes, 0.99, 1.01), (np.roll(axes, 1, 0), 0, 0.9)):
        within = np.linalg.norm(later @ others.swapaxes(1, 2), axis=-1) / np.linalg.norm(later, axis=-1)
        assert least < within.mean() < most


def test_likelihoods_find_projections_unless_noise_hides_them():
    _, batch = behind()
    scores = []
    for noise in (0.0, 0.5, 2.0):
        probe = make_probe("projection_retrieval", pool=32, noise=noise)
        tokens = batch.tokens.copy()
        tokens[..., :8] += noise * np.random.default_rng(0).normal(size=tokens[..., :8].shape)
        policy = jax.jit(jax.vmap(probe.reference_policy, in_axes=(None, 1)))
        pools = tokens.reshape(64, 4, 32, -1)
        scores.append(float(probe.found(policy(jax.random.key(0), pools)).mean()))  # pyright: ignore
    assert make_probe("projection_retrieval").reference().value > 0.99
    assert scores[0] > 0.99
    assert scores[0] > scores[1] + 0.1 > scores[2] + 0.3


def test_what_looks_the_same_to_a_core_is_found_by_chance_alone():
    probe = made(pool=4, length=8, embedding=3)
    steps = jnp.arange(8.0)[:, None, None]
    constant = jnp.broadcast_to(jnp.cos(steps + jnp.arange(3)), (8, 12, 3))  # differs from step to step
    np.testing.assert_allclose(probe.grade(None, constant), 1 / 4)  # pyright: ignore
    np.testing.assert_allclose(probe.loss(None, constant), np.log(4), rtol=1e-5)  # pyright: ignore


def test_the_loss_is_the_cross_entropy_of_cosines_within_each_pool():
    probe = made(pool=4, length=8, embedding=3)
    outputs = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)
    losses, scores = [], []
    for pool in (slice(4), slice(4, 8)):
        first, second = (e / np.linalg.norm(e, axis=-1, keepdims=True) for e in outputs[[3, 7], pool])
        cosines = first @ second.T
        for logits in (cosines / 0.1, cosines.T / 0.1):
            losses.append(np.log(np.exp(logits).sum(-1)) - np.diag(logits))
        own = [cosines.argmax(way) == np.arange(4) for way in (0, 1)]
        scores.append(np.mean(own, 0))
    np.testing.assert_allclose(probe.loss(None, outputs), np.mean(losses), rtol=1e-4)  # pyright: ignore
    np.testing.assert_allclose(probe.grade(None, outputs), np.concatenate(scores))  # pyright: ignore
    outputs[7] = 2 * outputs[3]  # the same but for their length
    assert (np.asarray(probe.grade(None, outputs)) == 1).all()  # pyright: ignore


def test_what_it_cannot_be_is_said():
    with pytest.raises(ValueError, match="EpisodeRetrieval compares episodes with one another"):
        probe_env("episode_retrieval")
    with pytest.raises(ValueError, match="length=9 of EpisodeRetrieval must be even"):
        made(length=9)
    with pytest.raises(ValueError, match="pool=1 of EpisodeRetrieval leaves no choice"):
        made(pool=1)
    with pytest.raises(
        ValueError, match="source=music of EpisodeRetrieval is unknown; choose from automaton"
    ):
        made(source="music")
