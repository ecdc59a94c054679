"""P7: laws of the next symbol, judged by total variation, and why not by what is permitted."""

import functools

import jax
import numpy as np
import pytest

from resetta.envs.probes import make_probe

EPISODES = 128


@functools.cache
def drawn(**options):
    probe = make_probe("regular_language", **options)
    batch = jax.jit(lambda key: probe.sequences(key, EPISODES))(jax.random.key(1))
    return probe, jax.tree.map(np.asarray, batch)


def judged(probe, batch, law):
    """The score and the measures of an expected law `[T, B, V]`, each `[B]`."""
    with np.errstate(divide="ignore"):
        outputs = np.log(law).astype(np.float32)
    measures = {name: np.asarray(each) for name, each in probe.measures(batch, outputs).items()}
    return np.asarray(probe.grade(batch, outputs)), measures


def true_law(batch):
    return batch.payoff / batch.payoff.sum(-1, keepdims=True)


def test_the_true_law_has_the_reference_and_its_own_entropy():
    probe, batch = drawn(length=256)
    law = true_law(batch)
    score, measures = judged(probe, batch, np.maximum(law, 1e-9))  # a logarithm of nothing isn't finite
    np.testing.assert_allclose(score, probe.reference().value, atol=1e-5)
    np.testing.assert_allclose(measures["cross-entropy"], measures["entropy"], atol=1e-4)
    assert (measures["permitted"] == 1).all()
    permitted = (law > 0).sum(-1)
    np.testing.assert_allclose(measures["entropy"], np.log(permitted).mean(0), rtol=1e-5)
    score, measures = judged(probe, batch, np.full(law.shape, 1 / 12))
    np.testing.assert_allclose(score, (permitted / 12).mean(0), rtol=1e-5)
    np.testing.assert_allclose(measures["cross-entropy"], np.log(12), rtol=1e-5)


def followers(symbols, order, prior=0.05):
    """What followed the last `order` symbols so far, as laws: counts in Python, of one string."""
    counts, laws = {}, []
    for t in range(len(symbols)):
        context = tuple(symbols[max(t - order, 0) : t])
        seen = counts.setdefault(context, np.full(12, prior))
        laws.append(seen / seen.sum())
        seen[symbols[t]] += 1
    return np.stack(laws)


def test_permitted_answers_saturate_where_laws_do_not():
    probe, batch = drawn(length=256)
    law = np.stack([followers(batch.targets[:, row], 2) for row in range(EPISODES)], 1)
    half = jax.tree.map(lambda part: part[128:], batch)
    score, measures = judged(probe, half, law[128:])
    assert measures["permitted"].mean() > 0.9
    assert 0.5 < score.mean() < 0.9
    assert measures["cross-entropy"].mean() > measures["entropy"].mean() + 0.1


@pytest.mark.parametrize("options", [{}, {"min_states": 12, "max_edges": 8}])
def test_no_law_of_the_symbol_just_shown_beats_blind(options):
    probe, batch = drawn(**options)
    shown = probe.field(batch.tokens, "symbol")
    law = jax.vmap(probe.blind_policy, in_axes=(None, 1), out_axes=1)(jax.random.key(0), batch.tokens)
    blind = judged(probe, batch, np.asarray(law))[0]
    for again in (0.0, 1 / probe.symbols, 0.25, 0.4, 0.6, 0.8, 1.0):
        # what is not expected again goes to all others, or to one alone
        others = np.where(shown > 0, again, (1 - again) / (probe.symbols - 1))
        one = again * shown + (1 - again) * np.roll(shown, 1, -1)
        for expected in (others, one):
            law = np.where(shown.any(-1, keepdims=True), expected, 1 / probe.symbols)
            gained = judged(probe, batch, law)[0] - blind  # in the same episodes
            assert gained.mean() <= 4 * gained.std() / np.sqrt(EPISODES) + 1e-6


def test_the_environment_pays_what_is_permitted():
    probe, batch = drawn()
    again = probe.field(batch.tokens, "symbol").argmax(-1)
    paid = np.asarray(probe.score(batch, again))
    assert 0.35 < paid.mean() < 0.55  # the symbol just shown; its law scores less
    np.testing.assert_allclose(probe.score(batch, batch.targets), 1, rtol=1e-5)
    assert paid.mean() > probe.blind().value + 0.1
