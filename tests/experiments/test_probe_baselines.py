"""Baselines of memory: the last steps alone, and the best matching ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.cores import make_core
from resetta.envs.probes import make_probe
from resetta.experiments.bench.core_cases import count_core
from resetta.experiments.bench.expand import expand
from resetta.experiments.cli import main
from resetta.experiments.probes.answers import answer
from resetta.experiments.probes.baselines import retrieved, truncated
from resetta.experiments.probes.questions import content, read_questions, state_bytes
from resetta.testing import check_core

TINY = ["core.features=4", "tokens=64", "batch_tokens=32", "dispatch=1", "seeds=1", "episodes=8", "depths=[]"]


def sequences(probe, batch):
    return jax.tree.map(np.asarray, jax.jit(probe.sequences, static_argnums=1)(jax.random.key(0), batch))


def test_a_core_cut_short_obeys_the_laws():
    assert check_core(truncated(make_core("gru", features=4), 3), width=4) == []


def test_a_core_cut_short_sees_the_last_steps_from_an_empty_memory():
    inner, keep = make_core("gru", features=4), 3
    core = truncated(inner, keep)
    x, reset = jax.random.normal(jax.random.key(0), (7, 2, 4)), jnp.zeros((7, 2), bool).at[0].set(True)
    params = core.init(jax.random.key(1), core.initial_carry(2), x, reset)
    y = core.apply(params, core.initial_carry(2), x, reset)[1]
    own = {"params": params["params"]["inner"]}
    for end in (2, 3, 7):
        last = x[max(end - keep, 0) : end]
        first = jnp.zeros(last.shape[:2], bool).at[0].set(True)
        expected = inner.apply(own, inner.initial_carry(2), last, first)[1][-1]
        np.testing.assert_allclose(y[end - 1], expected, atol=1e-6)


def test_without_the_middle_a_needle_is_lost_there_alone():
    keep, inner = 8, make_core("gru", features=4, num_layers=1)
    core = truncated(inner, keep, middle=True)
    x = jax.random.normal(jax.random.key(0), (33, 1, 4))
    reset = jnp.zeros((33, 1), bool).at[0].set(True)
    params = core.init(jax.random.key(1), core.initial_carry(1), x, reset)
    run = jax.jit(lambda carry, x, reset: core.apply(params, carry, x, reset))
    y = run(core.initial_carry(1), x, reset)[1]
    for depth, lost in ((0.0, False), (0.5, True), (1.0, False)):
        where = sequences(make_probe("needle", length=33, depth=depth), 1).tokens[..., -4].argmax(0)[0]
        other = run(core.initial_carry(1), x.at[where].add(1.0), reset)[1]
        assert bool((other[-1] == y[-1]).all()) == lost
    own = {"params": params["params"]["inner"]}
    first = jnp.arange(keep)[:, None] == 0
    expected = inner.apply(own, inner.initial_carry(1), jnp.concatenate([x[:4], x[-4:]]), first)[1][-1]
    np.testing.assert_allclose(y[-1], expected, atol=1e-6)


def test_a_core_without_the_middle_obeys_the_laws():
    assert check_core(truncated(make_core("gru", features=4), 4, middle=True), width=4) == []


def test_what_matches_a_question_comes_before_it_and_nothing_else():
    probe = make_probe("multi_query_recall", overwrites=4)
    cut = retrieved(probe, 1)
    batch = sequences(cut, 64)
    assert cut.length == 2 * 8
    assert (batch.reset == (np.arange(16) % 2 == 0)[:, None]).all()
    assert (batch.reset == (cut.field(batch.tokens, "start") == 1)).all()
    shown, asked = batch.tokens[::2], batch.tokens[1::2]
    assert (cut.field(shown, "key") == cut.field(asked, "key")).all()
    assert (cut.field(shown, "value").argmax(-1) == batch.targets[1::2]).all()  # of several, the last
    np.testing.assert_allclose(cut.score(batch, batch.targets), 1, atol=1e-5)
    assert cut.blind() == probe.blind()
    assert batch.distance[1::2].max() > 2  # steps of the whole episode
    assert (batch.distance[::2] == 0).all()


def test_a_question_that_names_nothing_finds_the_latest_steps_and_none_before_a_reset():
    probe = make_probe("majority", length=9)
    cut = retrieved(probe, 3)
    whole, short = (sequences(part, 4).tokens for part in (probe, cut))
    np.testing.assert_array_equal(cut.field(short, "symbol"), probe.field(whole, "symbol")[-4:])
    cut = retrieved(make_probe("interference"), 30)  # an episode of it has 14 pairs and then questions
    shown = sequences(cut, 1).tokens[:, 0].reshape(-1, 31, cut.width)
    assert (np.abs(shown[:, :30, :-1]).sum(-1) > 0).sum(1).max() < cut.probe.length // 3  # pyright: ignore


def test_baselines_stand_beside_their_cores(tmp_path):
    words = [*TINY, "core=gru", "probe=multi_query_recall", "length=24", f"out={tmp_path}"]
    words += ["options.pairs=4", "options.queries=2", "baseline=null,truncate,retrieve", "keep=4"]
    own, questions = read_questions(expand("bench/probes", words))
    assert [question.case.label for question in questions] == ["gru", "gru truncate 4", "gru retrieve 4"]
    asked = [content(question, own, 0) for question in questions]
    assert "baseline" not in asked[0]  # what was kept before there were baselines stays good
    assert asked[1]["code"] == asked[0]["code"]
    assert [state_bytes(question.core) for question in questions] == [4 * 4, 3 * (4 + 1) * 4, 4 * 4]
    assert len({count_core(question.core) for question in questions}) == 1
    (row,) = answer(own, questions[2:])
    assert row["baseline"] == "retrieve"
    assert row["options"] == dataclasses.asdict(questions[0].probe)  # one row of the table
    assert row["trained_tokens"] == [3 * 3 * 2 * 5]  # steps, episodes of a step, questions, steps of each


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["probe=bandit", "baseline=retrieve"], "baseline=retrieve needs questions that are there at once"),
        (["probe=episode_retrieval", "baseline=retrieve"], "and EpisodeRetrieval asks about whole episodes"),
        (["probe=tmaze", "baseline=truncate", "keep=64"], "keep=64 leaves out none of the 64 steps of tmaze"),
        (["probe=tmaze", "baseline=truncate_middle", "keep=1"], "keeps two ends, and keep=1 has one; keep 2"),
        (["probe=tmaze", "baseline=cut"], "truncate, truncate_middle, retrieve"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(words, message, capsys):
    assert main(["bench", "probes", "core=gru", *words]) == 2
    assert message in capsys.readouterr().err
