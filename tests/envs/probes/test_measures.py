"""What probes count beside scores: bias to places, abstaining, and what earlier episodes said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.probes import make_probe
from resetta.envs.probes.base import Episode


def drawn(name, rows=64, **options):
    probe = make_probe(name, **options)
    return probe, jax.jit(probe.sequences, static_argnums=1)(jax.random.key(0), rows)


def told(probe, batch, answers):
    """What is said of answers `[T, B]`."""
    counted = probe.measures(batch, jax.nn.one_hot(answers, probe.num_answers))
    return probe.told({name: np.asarray(each).mean(0) for name, each in counted.items()})


def test_labels_of_late_examples_are_a_bias():
    probe, batch = drawn("many_shot", rows=256, classes=4, shots=2)
    labels = np.asarray(probe.field(batch.tokens, "label"))
    shown = labels.any(-1)
    last, first = labels[shown.sum(0)[0] - 1].argmax(-1), labels[0].argmax(-1)
    assert (shown.sum(0) == 8).all()
    honest = told(probe, batch, batch.targets)
    assert honest["recency bias"] < 0.005
    assert abs(honest["towards the end"]) < 0.03
    always = told(probe, batch, np.broadcast_to(last, batch.targets.shape))
    assert always["recency bias"] == pytest.approx(np.log(4))
    assert always["towards the end"] == pytest.approx(1)
    half = np.where(np.arange(probe.length)[:, None] % 2, batch.targets, last)
    assert 0.1 < told(probe, batch, half)["recency bias"] < 0.6
    begun = told(probe, batch, np.broadcast_to(first, batch.targets.shape))
    assert begun["towards the end"] < -0.2  # its last example may come late


def test_abstaining_has_an_f1():
    probe, batch = drawn("abstain_needle", rows=256)
    absent = float((batch.targets == probe.values)[-1].mean())
    assert told(probe, batch, batch.targets) == {"abstain F1": 1}
    assert told(probe, batch, jnp.zeros_like(batch.targets)) == {"abstain F1": 0}
    always = told(probe, batch, jnp.full_like(batch.targets, probe.values))
    assert always["abstain F1"] == pytest.approx(2 * absent / (1 + absent))
    assert told(*drawn("needle", rows=2), jnp.zeros((64, 2), int)) == {}


def test_what_an_earlier_episode_said_is_stale_and_what_is_right_is_told_by_episode():
    probe, batch = drawn("interference")
    names = [f"right in episode {k}" for k in (1, 2, 3)]
    right = told(probe, batch, batch.targets)
    assert right == pytest.approx({**dict.fromkeys(names, 1), "stale": 0})
    believed = np.asarray(jax.vmap(probe.stale, 1, 2)(batch.tokens))
    first = told(probe, batch, np.maximum(believed[0], 0))  # a memory that is never overwritten
    assert first["right in episode 1"] == pytest.approx(1)
    assert first["right in episode 2"] == 0
    assert first["stale"] == pytest.approx(0.5)  # all of the second's, none of the third's


def test_nothing_of_places_is_told_where_each_question_has_its_own_examples():
    for name in ("many_shot", "interference"):
        probe = make_probe(name)
        shape = 9, 2  # steps of all questions with their examples
        no = np.zeros(shape)
        few = Episode(np.zeros((*shape, probe.width)), no, no, no, np.zeros((*shape, probe.num_answers)))
        assert probe.measures(few, jnp.zeros((*shape, probe.num_answers))) == {}


def test_answers_are_counted_by_how_far_back_lies_what_they_depend_on():
    probe = make_probe("needle", length=16, depth=0.0)
    batch = jax.jit(probe.sequences, static_argnums=1)(jax.random.key(0), 6)
    answers = batch.targets.at[-1, :2].add(1) % probe.num_answers
    counted = probe.tallies(batch, jax.nn.one_hot(answers, probe.num_answers))["distance"].sum(0)
    np.testing.assert_array_equal(counted, [[0, 0, 0, 4, 0], [0, 0, 0, 6, 0]])  # 15 steps: from 8 to 15
    absent = batch._replace(distance=jnp.zeros_like(batch.distance))
    counted = probe.tallies(absent, jax.nn.one_hot(answers, probe.num_answers))["distance"]
    assert (np.asarray(counted) == 0).all()
    probe, batch = drawn("timeline", rows=2, length=8)
    np.testing.assert_array_equal(batch.distance[:, 0], [0, 0, 0, 0, 4, 5, 6, 7])


def test_first_outputs_are_counted_of_answers_that_are_long_enough():
    probe, batch = drawn("graph_walk", rows=3, length=32, hops=5)
    answers = batch.targets.at[-1, 0].add(1).at[-3, 1].add(1) % probe.num_answers  # the fifth, and the third
    counted = probe.tallies(batch, jax.nn.one_hot(answers, probe.num_answers))["outputs"].sum(0)
    np.testing.assert_array_equal(counted, [[3, 3, 2, 0, 0, 0], [3, 3, 3, 0, 0, 0]])


def test_doors_are_counted_up_to_the_first_forbidden_one():
    probe, batch = drawn("constraint_keeping", rows=4, length=8, distractors=1)
    pays = np.asarray(batch.payoff)
    poorer = np.where((pays < 0).any(-1), batch.targets, 1 - batch.targets)  # of two allowed doors
    forbidden, asked = pays.min(-1) < 0, np.asarray(batch.mask)
    assert (forbidden & asked).any(0).all()  # so that every row can break the rule
    firsts = np.where(forbidden, np.arange(8)[:, None], 8).min(0)
    broken = np.where(np.arange(8)[:, None] >= firsts, pays.argmin(-1), poorer)
    for answers, kept in ((poorer, np.full(4, 6)), (broken, firsts - 2)):
        outputs = jax.nn.one_hot(answers, 2)
        right, number = np.asarray(probe.tallies(batch, outputs)["outputs"]).sum(0)
        np.testing.assert_array_equal(right, [*((kept >= n).sum() for n in (1, 2, 4)), 0])
        np.testing.assert_array_equal(number, [4, 4, 4, 0])  # six doors
        assert probe.measures(batch, outputs)["kept"].tolist() == (kept == 6).tolist()
    assert 0 < (firsts - 2 >= 2).sum() < 4  # some lose it sooner than others
