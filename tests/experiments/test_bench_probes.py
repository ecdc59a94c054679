"""The harness of probes at tiny sizes: its schema, what it keeps, whom it refuses, and its arithmetic."""

import dataclasses
import importlib
import json
import shlex
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from resetta.cores import Core, make_core
from resetta.envs.probes import make_probe, probe_names
from resetta.envs.probes.registry import probe_category
from resetta.experiments.bench.expand import expand
from resetta.experiments.bench.probe_figures import distances, quadrants
from resetta.experiments.bench.probes import _grouped, _ranked, _retrieval
from resetta.experiments.cli import main
from resetta.experiments.listing import core_classes
from resetta.experiments.probes import answers, source
from resetta.experiments.probes.learn import Budget, examine, learn
from resetta.experiments.probes.progress import Bar
from resetta.experiments.probes.questions import MEASURES, read_questions
from resetta.experiments.probes.source import code_of
from resetta.experiments.probes.summary import (
    by_distance,
    correlations,
    effective_length,
    effective_lengths,
    not_learnt,
    of_categories,
    of_classes,
    of_lengths,
    of_outputs,
    of_quadrants,
    of_retrieval,
    predictions,
    ranking,
    sign_test,
    spearman,
    win_rates,
)

TINY = ["core.features=8", "core.num_layers=1", "tokens=20000", "batch_tokens=256", "dispatch=20"]


@pytest.fixture(autouse=True, scope="module")
def quick_compiler():
    """Half the compile time; nothing here is about speed or exact numbers."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_a_grid_is_kept_and_extended(tmp_path, monkeypatch, capsys):
    words = [*TINY, "probe=tmaze", "length=4", "mode=extrapolate", "factors=[2]", "episodes=64", "maps=true"]
    words += [f"out={tmp_path}"]

    def run(*more):
        assert main(["bench", "probes", *words, *more]) == 0
        return json.loads((tmp_path / "probes.json").read_text())

    first = run("core=gru,none", "seeds=2")
    assert [(row["label"], row["trained_length"], row["length"]) for row in first["rows"]] == [
        ("gru", 4, 4),
        ("gru", 4, 8),
        ("none", 4, 4),
        ("none", 4, 8),
    ]
    gru, none = first["rows"][0], first["rows"][2]
    assert gru["learnt"]
    assert gru["normalized"]["value"] > 0.9
    assert all(gru["stopped_early"])
    assert not none["learnt"]
    assert max(none["trained_tokens"]) >= 20000 > max(gru["trained_tokens"])
    assert none["state_bytes"] == 0
    assert gru["state_bytes"] == 8 * 4
    assert gru["parameters"] == 3 * 8 * (8 + 8 + 1) + 8
    for row in first["rows"]:
        assert np.allclose(np.mean(row["blocks"], 1), row["scores"])
        assert (row["random"]["value"], row["blind"]["value"], row["reference"]["value"]) == (0, 0, 1)
    assert first["ranking"][0]["label"] == "gru"
    assert first["correlations"] is None
    for looked, recall in ((gru["maps"], list), (none["maps"], type(None))):
        assert np.array(looked["mixing"]).shape == (4, 4)
        assert looked["asked"] == [False, False, False, True]
        assert looked["delays"] == [1, 2, 3]
        assert isinstance(looked["recall"], recall)
    assert gru["maps"]["recall"][:2] == [None, None]  # the corridor is always the same
    assert gru["maps"]["recall"][2] > 0.5  # the cue
    assert np.count_nonzero(none["maps"]["mixing"]) == 4  # the diagonal
    assert first["rows"][1]["maps"] is None  # of what was trained on
    for picture in ("options", "recall", "mixing"):
        assert (tmp_path / f"probes_{picture}.png").stat().st_size > 1000
    page = (tmp_path / "probes.html").read_text()
    assert page.count("<svg") == 4
    assert "tmaze @4→8" in page
    assert "http" not in page.replace("http://www.w3.org", "")  # opens offline
    text = (tmp_path / "probes.md").read_text()
    assert "tmaze @4→8" in text
    assert "(probes.png)" in text

    trained = []

    def counted(core, probe, budget, seeds, report):
        trained.append(list(seeds))
        return learn(core, probe, budget, seeds, report)

    monkeypatch.setattr(answers, "learn", counted)
    capsys.readouterr()
    assert run("core=gru,none", "seeds=2")["rows"] == first["rows"]
    assert trained == []
    assert "known already" in capsys.readouterr().err
    more = run("core=gru", "seed=0,2", "seeds=1")
    assert trained == [[2]]
    assert more["rows"][0]["seeds"] == [0, 2]
    assert more["rows"][0]["blocks"][0] == gru["blocks"][0]


def test_what_is_measured_beside_the_score_is_kept_and_told(tmp_path):
    words = ["probe=constraint_keeping", "length=3", "core=none", "seeds=2", "episodes=64", "tokens=4000"]
    assert main(["bench", "probes", *TINY, *words, f"out={tmp_path}"]) == 0
    (row,) = json.loads((tmp_path / "probes.json").read_text())["rows"]
    kept = row["measures"]["kept"]
    assert set(row["measures"]) == {"kept"}
    assert len(kept) == 2
    # a door is chosen twice; by guessing, a quarter of them are forbidden
    assert all(0.3 < each < 0.8 for each in kept)
    text = (tmp_path / "probes.md").read_text()
    assert f"kept of constraint_keeping @3: none {np.mean(kept):.3g}" in text
    assert [right[1] / asked[1] for right, asked in row["tallies"]["outputs"]] == pytest.approx(kept)
    assert "the first 2 outputs of constraint_keeping @3, as many as every answer" in text
    assert f"are all allowed: none {np.mean(kept):.2f}" in text


def test_all_answers_right_is_measured_of_whole_outputs():
    probe = make_probe("sorting", length=8)
    batch = probe.sequences(jax.random.key(0), 4)
    right = jax.nn.one_hot(batch.targets, probe.num_answers)
    wrong = np.array(right)
    wrong[5, 1] = np.roll(wrong[5, 1], 1)  # one answer of one episode
    wrong[2, 2] = np.roll(wrong[2, 2], 1)  # nobody asked
    assert probe.measures(batch, right)["exact"].tolist() == [1, 1, 1, 1]
    assert probe.measures(batch, jax.numpy.asarray(wrong))["exact"].tolist() == [1, 0, 1, 1]
    np.testing.assert_allclose(probe.grade(batch, jax.numpy.asarray(wrong)), [1, 3 / 4, 1, 1])
    whole = {name for name in probe_names() if type(make_probe(name)).whole}
    assert whole == {
        *("sorting", "timeline", "convex_hull", "multiply"),
        *("graph_walk", "table_extract", "countdown", "belief_state", "constraint_keeping"),
    }


def test_what_lies_at_a_depth_is_asked_for_there_but_a_formulas_depth_is_no_place():
    deep = {name for name in probe_names() if answers.at_depths(make_probe(name), [0, 1])}
    assert deep == {
        *("needle", "multi_needle", "abstain_needle"),
        *("projected_cartpole", "projected_pendulum", "projected_point_mass"),
    }


def test_a_policy_that_imitates_acts():
    probe, core = make_probe("bandit", length=4), make_core("none", features=8, num_layers=1)
    budget = Budget(tokens=64, batch_tokens=32, lr=1e-3, dispatch=2, solved=0.0)
    told = []
    learnt = learn(core, probe, budget, [3], lambda *row: told.append(row))
    assert learnt.dispatches.tolist() == [1]  # 2 steps of 8 episodes of 4 tokens
    assert told[0][0] == 1
    scores = examine(core, probe, learnt.params, [3], 400, 400).scores
    assert scores.shape == (1, 400)
    assert abs(scores.mean() - 0.5) < 5 * scores.std() / 20  # what it knows of arms is nothing yet


class Forgetful(Core):
    """Ignores resets."""

    features: int = 8

    def initial_carry(self, batch, size=None):
        return jax.numpy.zeros((batch, self.features))

    @nn.compact
    def __call__(self, carry, x, reset):
        y = nn.Dense(self.features, dtype=x.dtype)(x).cumsum(0) + carry.astype(x.dtype)
        return y[-1].astype(jax.numpy.float32), y


def test_embeddings_are_learnt_by_comparing_episodes():
    probe = make_probe("episode_retrieval", length=12, pool=4, gap=0, embedding=8)
    budget = Budget(tokens=20_000, batch_tokens=256, lr=1e-2, dispatch=20, solved=2.0)
    assert budget.batch(probe) == 20
    assert dataclasses.replace(budget, batch_tokens=1).batch(probe) == 4
    found = {}
    for name in ("gru", "none"):
        core = make_core(name, features=8, num_layers=1)
        learnt = learn(core, probe, budget, [1], lambda *_: None)
        found[name] = examine(core, probe, learnt.params, [1], 202, 256).scores
    assert found["gru"].shape == (1, 51)  # pools
    assert found["gru"].mean() > 0.35
    np.testing.assert_allclose(found["none"], 1 / 4)


def test_mistakes_are_answered_in_a_sentence(capsys):
    def refused(*words):
        assert main(["bench", "probes", *words]) == 2
        return capsys.readouterr().err

    name = f"{Forgetful.__module__}:Forgetful"
    said = refused(f"core={name}", "probe=tmaze")
    assert f"core={name} breaks laws of a core: law 3" in said
    assert "unknown probe 'needel'; did you mean needle" in refused("core=gru", "probe=needel")
    assert "has no option 'paris'; valid names are pairs" in refused(
        "core=gru", "probe=multi_query_recall", "options.paris=2"
    )
    assert "seeds takes one value, not 1 and others" in refused("core=gru", "seeds=1,2", "probe=tmaze")
    assert "in_length, extrapolate" in refused("core=gru", "mode=both")
    assert "length=8 and options.length=9; give one" in refused("core=gru", "length=8", "options.length=9")
    assert "leave one of the two out" in refused("core=gru", "equal=parameters", "core.features=16")
    assert "amount=9 says nothing without equal=parameters|state|compute" in refused("core=gru", "amount=9")
    assert "factors=[2] says nothing without mode=extrapolate" in refused("core=gru", "factors=[2]")
    assert "keep=4 says nothing without baseline=truncate|truncate_middle|retrieve" in refused(
        "core=gru", "keep=4"
    )
    assert "add full_attention=false" in refused("core=attention", "core.window=32", "probe=tmaze")
    assert "use equal=parameters or compute" in refused("core=gru", "equal=state", "baseline=truncate")


def test_cores_are_made_equal_and_see_whole_episodes():
    words = ["core=gru,attention,none", "probe=needle", "length=256", "equal=state", "amount=512"]
    _, questions = read_questions(expand("bench/probes", words))
    gru, attention, none = (question.core for question in questions)
    assert MEASURES["state"](gru) == 512
    assert attention.window == 256
    assert attention.features == 8  # the narrowest has too large a memory already
    assert none.features == 64  # has none to make equal
    compute = [MEASURES["compute"](make_core("gru", features=width)) for width in (32, 64)]
    assert 3 < compute[1] / compute[0] <= 4


def test_code_is_what_runs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    texts = {
        "plainly": "class C:\n    def f(self):\n        return 1\n",
        "wordily": "# One.\nclass C:\n    def f(self):\n        'Gives one.'\n        return 1  # one\n",
        "otherwise": "class C:\n    def f(self):\n        return 2\n",
    }
    found = {}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
        found[name] = code_of(importlib.import_module(name).C)
    assert found["plainly"] == found["wordily"] != found["otherwise"]


def test_code_is_what_it_is_built_upon_as_well(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    texts = {
        "__init__": "from .deep import g\n",  # hands on
        "core": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .checked import T\n"
        "class C:\n    def f(self):\n        from . import g\n        return g()\n",
        "deep": "from . import deeper\ndef g():\n    return deeper.N\n",
        "deeper": "N = 1\n",
        "checked": "T = int\n",
    }
    others = {"same": {}, "checks": {"checked": "T = str\n"}, "differs": {"deeper": "N = 2\n"}}
    found = {}
    for name, other in others.items():
        (tmp_path / name).mkdir()
        for module, text in {**texts, **other}.items():
            (tmp_path / name / f"{module}.py").write_text(text)
        found[name] = code_of(importlib.import_module(f"{name}.core").C)
    assert found["same"] == found["checks"] != found["differs"]


SOURCE = '''"""A docstring."""
def f(x: int, *more, y="é\u0378", **named):
    """Another."""
    text = f"{x:>{more[0]}} of {y!r}, {{{named}}}"  # a comment
    return [text, None, ..., 0.1, b"\\0"]
'''


def test_every_python_finds_the_same_digest(monkeypatch):
    def digest(text):
        monkeypatch.setattr(source, "_source", lambda module: text)
        source._read.cache_clear()
        return source._read("any")[0]

    # as 3.11, 3.12 and 3.13 find it, whose `ast.dump` are three
    assert digest(SOURCE) == "d6541eca1d1808745bbfc38fa895bb5704839df9f48d73a92f3c818f7b798734"
    commented = SOURCE.replace("    return", "    # why\n\n    return").replace("Another", "One more")
    assert digest(commented.replace("y!r}", "y !r}")) == digest(SOURCE)
    for old, new in (("0.1", "0.2"), ("\u0378", "\u0379"), ("!r", "!s"), ("None", "False"), ("{{", "{{ ")):
        assert digest(SOURCE.replace(old, new)) != digest(SOURCE)
    source._read.cache_clear()


@pytest.mark.parametrize(
    ("thing", "module", "built_upon"),
    [
        (lambda: type(make_core("s5")), "cores.scan", True),
        (lambda: type(make_core("s5")), "cores.scan_kernels", True),  # imported where it is used
        (lambda: type(make_core("s5")), "cores.mamba", False),
        (lambda: type(make_probe("episode_retrieval")), "envs.probes.language", True),
        (lambda: type(make_probe("needle")), "envs.probes.language", False),
        (lambda: type(make_probe("bandit")), "envs.meta", True),
        (lambda: learn, "envs.probes.base", True),
        (lambda: learn, "envs.probes.imitation", False),  # for type checkers only
    ],
)
def test_code_of_ours_changes_with_what_it_is_built_upon(thing, module, built_upon, monkeypatch):
    before, text = code_of(thing()), source._source

    def edited(name):
        return text(name) + "\nEDITED = 1\n" * (name == f"resetta.{module}")

    monkeypatch.setattr(source, "_source", edited)
    source._read.cache_clear()
    after = code_of(thing())
    monkeypatch.undo()
    source._read.cache_clear()
    assert (after != before) is built_upon


def row(label, values, probe="needle", length=16, **more):
    """A row with blocks that say what its scores say."""
    figures = {"random": 0.25, "blind": 0.25, "reference": 1.0}
    return {
        "label": label,
        "probe": probe,
        "category": probe_category(probe),
        "scope": 1,
        "diffusion": 1.0,
        "options": {"length": length},
        "mode": "in_length",
        "trained_length": length,
        "length": length,
        "seeds": list(range(len(values))),
        "scores": values,
        "blocks": [[value, value] for value in values],
        **{which: {"value": value, "std_error": 0.0} for which, value in figures.items()},
        **more,
    }


def test_what_no_core_learns_is_left_out_of_the_ranking():
    rows = [
        row("a", [1.0, 0.9]),
        row("b", [0.25, 0.3]),
        row("a", [0.25, 0.25], "majority"),
        row("b", [0.26, 0.2], "majority"),
    ]
    assert not_learnt(rows) == ["majority @16"]
    assert [each["label"] for each in ranking(rows)] == ["a", "b"]
    assert ranking(rows)[0]["mean"] == pytest.approx((0.95 - 0.25) / 0.75)
    assert ranking(rows[2:]) == []


def test_of_one_seed_no_interval_is_told():
    rows = [row("a", [1.0]), row("b", [0.5])]
    assert _ranked(ranking(rows)) == "a 1.00 (one seed), b 0.33 (one seed)"
    assert _ranked(ranking([row("a", [1.0, 1.0])])) == "a 1.00 (1.00–1.00)"
    assert win_rates(rows)[0]["seeds"] == 1


def test_a_grid_that_is_stopped_says_what_is_kept(capsys):
    def stopped():
        with Bar(3) as bar:
            bar.begin("one")
            bar.end()
            bar.begin("another")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert "1 of 3 trainings are kept; the same command goes on from there" in capsys.readouterr().err


def test_win_rates_count_ties_as_half():
    rows = [row("a", [1.0, 0.9, 0.5]), row("b", [1.0, 0.9, 0.5])]
    (same,) = win_rates(rows)
    assert (same["rate"], same["low"], same["high"]) == (0.5, 0.5, 0.5)
    # the third seed is one's alone; of the two in common one is won and one is tied
    rows = [row("a", [1.0, 0.9]), row("b", [0.8, 0.9, 0.5]), row("a", [0.3, 0.2], "majority")]
    rows += [row("b", [0.2, 0.3, 0.2], "majority")]  # nobody has learnt it
    (found,) = win_rates(rows)
    assert (found["label"], found["other"], found["rate"]) == ("a", "b", 0.75)
    assert (found["low"], found["high"]) == (0.5, 1.0)
    assert win_rates(rows[2:]) == []


def test_cores_are_ranked_within_categories():
    rows = [row("a", [1.0]), row("b", [0.5]), row("a", [0.5], "majority"), row("b", [0.75], "majority")]
    rows += [row("a", [0.25], "count"), row("b", [0.25], "count"), row("a", [0.25], "multiply")]
    found = of_categories(rows)
    assert {name: [each["label"] for each in ranked] for name, ranked in found.items()} == {
        "lookup": ["a", "b"],
        "aggregate": ["b", "a"],  # of which nobody has learnt to count
    }
    assert found["aggregate"][0]["mean"] == pytest.approx((0.75 - 0.25) / 0.75)


def test_cores_are_ranked_by_scope_and_diffusion_and_drawn_so():
    wide, apart = {"scope": 4, "diffusion": 1.0}, {"scope": 4, "diffusion": 2.0}
    rows = [row("a", [1.0]), row("b", [0.5]), row("a", [0.5], "sorting", **wide)]
    rows += [row("b", [0.75], "sorting", **wide)]
    found = of_quadrants(rows)
    assert {name: [each["label"] for each in ranked] for name, ranked in found.items()} == {
        "scope below 3, diffusion below 1.5": ["a", "b"],
        "scope 3 or more, diffusion below 1.5": ["b", "a"],
    }
    rows = [{**each, "normalized": {"value": 0.5}} for each in rows]
    assert quadrants(rows[:2]) is None
    drawn = quadrants([*rows, {**row("a", [0.1], "timeline", **apart), "normalized": {"value": 0.1}}])
    assert drawn is not None
    assert quadrants([{"scope": 1}]) is None  # of results from before


def test_shares_of_right_answers_are_told_by_distance_and_by_outputs_in_common():
    far = {"tallies": {"distance": [[[15, 0, 5, 9], [20, 0, 20, 9]], [[20, 0, 5, 9], [20, 0, 10, 20]]]}}
    rows = [row("a", [1.0, 1.0], **far), row("b", [0.5])]  # of b nothing was counted
    found = [(each["label"], each["steps"], each["right"], each["answers"]) for each in by_distance(rows)]
    assert found == [("a", 1, 0.875, 40), ("a", 4, 0.375, 30)]  # 29 answers are too few to tell
    assert distances(rows) is not None
    assert distances(rows[1:]) is None
    assert "a 1–1: 0.88, 4–7: 0.38" in _notes_of(rows)
    short = {"tallies": {"outputs": [[[8, 6, 1, 0], [8, 8, 4, 0]]]}}
    long = {"tallies": {"outputs": [[[8, 4, 2, 1], [8, 8, 8, 8]]]}}
    rows = [row("a", [1.0], "countdown", 16, **short), row("a", [1.0], "countdown", 32, **long)]
    found = [(each["question"], each["outputs"], each["right"]) for each in of_outputs(rows)]
    assert found == [("countdown @16", 2, 0.75), ("countdown @32", 2, 0.5)]
    assert of_outputs(rows[1:])[0]["outputs"] == 8
    assert {each["all"] for each in of_outputs(rows)} == {"right"}
    (ruled,) = of_outputs([row("a", [1.0], "constraint_keeping", measures={"kept": [0.5]}, **short)])
    assert (ruled["all"], ruled["outputs"], ruled["right"]) == ("allowed", 2, 0.75)


def test_short_answers_rank_cores_as_long_ones_or_they_do_not():
    def counted(k, length, right):
        tallies = {"outputs": [[[16, right, 0], [16, 16, 16]]]}
        return row(f"core {k}", [1.0], "constraint_keeping", length, tallies=tallies)

    order = [3, 7, 0, 5, 6, 1, 4, 2]
    rows = [
        counted(k, 64, 9 - k) for k in range(8)
    ]  # the longest first, between them one that is passed over
    rows += [counted(k, 32, order[k]) for k in range(8)]
    short = [counted(k, 16, k) for k in range(8)]
    for each in rows[:8] + short:
        each["tallies"]["outputs"][0][1][2] = 0  # so that two outputs are all that they have in common
    (found,) = of_lengths(rows + short)
    assert (found["one"], found["other"]) == ("constraint_keeping @16", "constraint_keeping @64")
    assert found["rho"] == pytest.approx(-1)
    (found,) = of_lengths(rows)
    assert found["rho"] == pytest.approx(-np.corrcoef(order, np.arange(8))[0, 1])
    assert of_lengths(short) == []  # one length
    assert of_lengths([each for each in rows if each["label"] != "core 3"]) == []  # seven cores


def test_whom_retrieval_helps_is_counted_by_pairs_and_tested_by_sign():
    # 40, 30, 20 and 10 answers: the classes are cut after the first, 40 against 60
    def counted(label, rights, length=16, **more):
        tallies = {"distance": [[right, [40, 30, 20, 10]] for right in rights]}
        return row(label, [1.0] * len(rights), "spans", length, tallies=tallies, **more)

    without = counted("gru", [[10, 30, 0, 0], [20, 15, 10, 5], [10, 0, 0, 0]], baseline=None)
    found = counted(
        "gru retrieve 4",
        # gains of 20/40 and 18/60, of 10/40 and 15/60, and of 4/40 and 30/60
        [[30, 30, 10, 8], [30, 25, 15, 5], [14, 0, 20, 10]],
        baseline="retrieve",
    )
    others = [
        counted("gru", [[0, 0, 0, 0]], 32, baseline=None),
        counted("gru truncate 4", [[9, 9, 9, 9]], baseline="truncate"),
        counted("s5 retrieve 4", [[9, 9, 9, 9]], baseline="retrieve"),  # without its like
    ]
    (told,) = of_retrieval([without, found, *others])
    assert told == {"keep": 4, "short": 1, "long": 1, "ties": 1, "p": None}
    assert "more than those whose need lies far in 1 pairs" in _retrieval(told)
    assert "too few pairs for a sign test, which needs 6" in _retrieval(told)
    assert of_retrieval([without, *others]) == []
    better = counted("gru retrieve 8", [[40, 0, 0, 0]] * 6, baseline="retrieve")
    nothing = counted("gru", [[0, 0, 0, 0]] * 6, baseline=None)
    (told,) = of_retrieval([nothing, better])
    assert told == {"keep": 8, "short": 6, "long": 0, "ties": 0, "p": 2 / 64}
    assert "p = 0.031" in _retrieval(told)
    few = {"tallies": {"distance": [[[0, 0, 9, 9], [0, 0, 40, 29]]]}}  # 29 answers are too few
    rows = [row("a", [1.0], **few, baseline=None), row("a retrieve 2", [1.0], **few, baseline="retrieve")]
    assert of_retrieval(rows) == []
    assert (
        of_retrieval([row("a", [1.0], baseline=None), row("a retrieve 2", [1.0], baseline="retrieve")]) == []
    )


def test_the_sign_test_is_exact():
    assert sign_test(7, 2) == sign_test(2, 7) == 2 * (1 + 9 + 36) / 512
    assert sign_test(3, 3) == sign_test(0, 0) == 1
    assert sign_test(6, 0) == 2 / 64


def _notes_of(rows):
    grouped = _grouped(by_distance(rows))
    return "; ".join(f"{label} {', '.join(cells)}" for of in grouped.values() for label, cells in of.items())


def test_classes_of_cores_are_ranked_by_the_mean_of_their_cores():
    rows = [row("gru", [1.0], core="gru"), row("s5", [0.625], core="s5"), row("mine", [0.5], core="m:Mine")]
    rows.append(row("gru truncate 4", [0.25], core="gru", baseline="truncate"))
    found = {each["class"]: (each["mean"], each["best"]) for each in of_classes(rows, core_classes)}
    assert list(found) == ["gated", "recurrent", "structural"]
    assert found == {"gated": (1, "gru"), "recurrent": (0.75, "gru"), "structural": (0.5, "s5")}
    assert of_classes(rows[2:3], core_classes) == []


def test_effective_length():
    assert effective_length([16, 32, 64], [1.0, 0.86, 0.84]) == 32
    assert effective_length([16, 32, 64], [1.0, 0.8, 0.95]) == 16  # at every shorter length too
    assert effective_length([16, 32], [0.49, 0.49]) is None
    rows = [row("a", [1.0], length=length) for length in (32, 16)]
    assert [(each["lengths"], each["effective"]) for each in effective_lengths(rows)] == [([16, 32], 32)]


def test_rank_correlations():
    values = np.array([[1.0, 2.0, 4.0, 8.0], [0.1, 0.2, 0.3, 0.4], [4, 3, 2, 1], [1, 1, 1, 1], [1, 1, 2, 3]])
    found = spearman(values)
    assert found[0, 1] == pytest.approx(1)
    assert found[0, 2] == pytest.approx(-1)
    assert (found[3] == 0).all()
    assert found[0, 4] == pytest.approx(0.9486833)  # ranks 0, 1, 2, 3 and .5, .5, 2, 3
    rows = [row(f"core {k}", [k / 8], probe) for probe in ("needle", "majority") for k in range(8)]
    found = correlations(rows)
    assert found is not None
    (pair,) = found.pop("intervals_of_categories")
    assert (pair["one"], pair["other"], pair["rho"]) == ("lookup", "aggregate", pytest.approx(1))
    assert found.pop("intervals_of_quadrants") == []
    assert found == {
        "questions": ["needle @16", "majority @16"],
        "spearman": [[pytest.approx(1)] * 2] * 2,
        "quadrants": ["scope below 3, diffusion below 1.5"],
        "spearman_of_quadrants": [[pytest.approx(1)]],
        "categories": ["lookup", "aggregate"],
        "spearman_of_categories": [[pytest.approx(1)] * 2] * 2,
    }
    # of two that disagree the steeper decides the mean of their category
    rows += [row(f"core {k}", [(8 - k) / 4], "count") for k in range(8)]
    found = correlations(rows)
    assert found is not None
    assert found["spearman"][0] == [pytest.approx(1), pytest.approx(1), pytest.approx(-1)]
    assert found["spearman_of_categories"][0][1] == pytest.approx(-1)
    assert correlations([each for each in rows if each["label"] != "core 3"]) is None


def test_probes_predict_projected_control_and_shuffled_labels_do_not():
    control, noise = "projected_cartpole", [3, 7, 0, 5, 6, 1, 4, 2, 9, 8]
    rows = [row(f"core {k}", [k / 10], probe) for probe in ("needle", control) for k in range(10)]
    rows += [row(f"core {k}", [noise[k] / 10], "majority") for k in range(10)]
    needle, majority = predictions(rows)
    assert needle["question"] == "needle @16"
    assert (needle["rho"], needle["low"], needle["high"]) == (pytest.approx(1),) * 3
    ranks = np.array([np.arange(10), noise])
    assert majority["rho"] == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert majority["low"] < majority["rho"] < majority["high"]
    for each in (needle, majority):
        assert -1 < each["shuffled"]["low"] < -0.3
        assert 0.3 < each["shuffled"]["high"] < 1
    assert predictions(rows[:10]) == []  # no control
    assert predictions([each for each in rows if each["label"] < "core 7"]) == []


def test_the_commands_of_the_page_are_understood(monkeypatch):
    monkeypatch.setattr("resetta.experiments.probes.questions.of_width", lambda *_: 64)  # takes its time
    page = (Path(__file__).parents[2] / "docs/probes.md").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in page.splitlines() if line.startswith("resetta bench probes ")]
    assert len(commands) >= 8
    for _, _, _, *words in commands:
        assert read_questions(expand("bench/probes", words))[1]


def test_the_battery_can_be_made():
    own, questions = read_questions(expand("bench/probes", ["core=none"]))
    assert [question.probe_name for question in questions] == own.probes
    assert all(question.seeds == (0, 1, 2) for question in questions)


def test_the_tutorials_core_has_forty_lines_and_obeys_the_laws(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/new_core.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 40
    (tmp_path / "my_memory.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    _, (question,) = read_questions(expand("bench/probes", ["core=my_memory:FastWeights", "probe=needle"]))
    assert question.core.keys == 16  # which means that the laws hold
