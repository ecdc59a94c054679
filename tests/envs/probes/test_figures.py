"""Scores against the specification: closed forms exactly, simulations within four standard errors."""

import json
from importlib.resources import files

import jax
import numpy as np
import pytest

from resetta.envs.probes import Figure, make_probe, probe_names
from resetta.envs.probes import figures as module
from resetta.envs.probes.figures import SCORES, main, measure, simulate


@pytest.mark.parametrize(
    ("name", "options", "random", "blind", "reference"),
    [
        ("tmaze", {"length": 1000}, 0, 0, 1),
        ("repeat_previous", {"length": 155, "k": 64}, -0.5, 78 / 155 - 1, 1),
        ("associative_recall", {"values": 5}, 1 / 5, 1 / 5, 1),
        ("table_count", {"rows": 1, "columns": 2, "values": 3, "queries": 1}, 1 / 2, 2 / 3, 1),
        ("needle", {"length": 256, "values": 4}, 1 / 4, 1 / 4, 1),
        ("abstain_needle", {}, 1 / 9, 0.2, 1),
        ("abstain_needle", {"values": 3}, 1 / 4, 0.8 / 3, 1),
        ("ancestral_trace", {"names": 16}, 1 / 16, 1 / 15, 1),
        ("majority", {"length": 257}, 1 / 4, 1 / 4, 1),
        ("count", {"length": 3, "values": 2}, 1 / 2, 1 / 2, 1),
        ("count", {"length": 3, "values": 3}, 1 / 3, 4 / 9, 1),
        ("sorting", {"length": 40, "names": 20}, 1 / 20, 1 / 20, 1),
        ("timeline", {}, 1 / 32, 1 / 32, 1),
        ("convex_hull", {}, 1 / 32, 1 / 32, 1),
        ("pathfinder", {}, 1 / 2, 1 / 2, 1),
        ("sprite_colours", {"colours": 6}, 1 / 6, 1 / 6, 1),
        ("sprite_revisit", {}, 1 / 4, 1 / 4, 1),
        ("multiply", {"length": 4}, 1 / 10, (0.27 + 0.42) / 2, 1),
        ("graph_walk", {}, (1 - 16**-8) / (8 * 15), None, 1),
        ("graph_walk", {"nodes": 3, "hops": 4}, (1 - 3**-4) / 8, (1 / 2 + 3 * 1 / 2) / 4, 1),
        ("graph_walk", {"nodes": 3, "hops": 0, "length": 7}, (1 - 3**-4) / 8, (1 / 2 + 3 * 1 / 2) / 4, 1),
        ("table_extract", {"matches": 1, "values": 2}, (1 / 3 + 1 / 9) / 2, (1 / 2 + 1 / 2) / 2, 1),
        ("belief_state", {"places": 2, "events": 2}, (1 / 2 + 1 / 4) / 2, (1 / 2 + 1 / 2 * 3 / 4) / 2, 1),
        ("constraint_keeping", {}, 0.125, 0.25, 7 / 12),
        ("constraint_keeping", {"colours": 8}, 0.5 - 1.5 / 8, 7 / 8 * 2 / 3 - 1 / 8, 1 / 8 + 6 / 8 * 2 / 3),
        ("preference", {}, 0.5, 0.5, 1),
        ("interference", {}, 1 / 8, 1 / 8, 1),
    ],
)
def test_closed_forms(name, options, random, blind, reference):
    probe = make_probe(name, **options)
    for which, expected in (("random", random), ("blind", blind), ("reference", reference)):
        figure = getattr(probe, which)()
        assert figure.exact
        assert figure.std_error == 0
        assert figure.note
        if expected is not None:
            assert figure.value == pytest.approx(expected, abs=1e-9)


def agree(mean, spread, count, theirs, their_count, rounding=5e-4):
    """Two simulations of the same rules; `spread` is the standard deviation of an episode's score."""
    error = spread * np.sqrt(1 / count + 1 / their_count)
    assert abs(mean - theirs) <= 4 * error + rounding, (mean, theirs, error)


def test_regular_languages():
    probe, count = make_probe("regular_language", length=256), 512
    batch = jax.jit(lambda key: probe.sequences(key, count))(jax.random.key(5))
    permitted = np.asarray(batch.payoff > 0).sum(-1)
    valid, entropy = (permitted / 12).mean(0), np.log(permitted).mean(0)
    agree(valid.mean(), valid.std(), count, 0.191, 300)
    agree(entropy.mean(), entropy.std(), count, 0.685, 300)


@pytest.mark.parametrize(
    ("classes", "dim", "theirs"), [(28, 16, 0.994), (77, 16, 0.987), (174, 16, 0.974), (174, 32, 1.0)]
)
def test_nearest_means_label_many_classes(classes, dim, theirs):
    probe = make_probe("many_shot", classes=classes, dim=dim, queries=50, length=2 * classes + 50)
    scores = simulate(probe, "reference", 64, 3)
    agree(scores.mean(), scores.std(), 64, theirs, 100)


@pytest.mark.parametrize(("sigma", "theirs"), [(0.3, 1.0), (0.5, 1.0), (0.8, 0.947)])
def test_nearest_keys_find_the_span(sigma, theirs):
    probe = make_probe("semantic_single", items=64, length=80, sigma=sigma, values=32)
    found = simulate(probe, "reference", 1024, 4)
    identified = (found.mean() - 1 / 32) / (1 - 1 / 32)  # a wrong item may have the right value
    agree(identified, max(found.std(), np.sqrt(theirs * (1 - theirs))), 1024, theirs, 300)


def test_a_window_of_32_caps_the_majority():
    probe, count = make_probe("majority", length=257), 2000
    batch = jax.jit(lambda key: probe.sequences(key, count))(jax.random.key(6))
    stream = np.asarray(probe.field(batch.tokens, "symbol"))[:-1].argmax(-1)
    counts = (stream[..., None] == np.arange(4)).sum(0)
    assert ((counts == counts.max(-1, keepdims=True)).sum(-1) == 1).all()  # no ties
    right = (stream[-32:, :, None] == np.arange(4)).sum(0).argmax(-1) == batch.targets[-1]
    agree(right.mean(), right.std(), count, 0.40, 18_800, rounding=5e-3)


def test_the_table_holds_every_simulated_figure_of_the_registered_probes_and_no_other():
    table = json.loads(files("resetta.envs").joinpath("probe_scores.json").read_text())
    expected = {}
    for name in probe_names():
        probe = make_probe(name)
        simulated = {which for which in SCORES if not getattr(probe, which)().exact}
        if simulated:
            expected[repr(probe)] = simulated
    assert {key: set(entry) for key, entry in table.items()} == expected
    for entry in table.values():
        for figure in entry.values():
            assert figure["episodes"] >= 1024
            assert figure["measured"].startswith("seed ")
            assert figure["policy"]


@pytest.mark.parametrize("name", ["regular_language", "many_shot_online"])
def test_simulated_figures_can_be_measured_again(name):
    probe = make_probe(name)
    fresh = measure(probe, 512, seed=12345)
    assert fresh
    for which, entry in fresh.items():
        known = getattr(probe, which)()
        assert not known.exact
        assert abs(entry["mean"] - known.value) <= 5 * np.hypot(entry["std_error"], known.std_error)


def test_other_options_are_simulated_when_asked():
    figure = make_probe("many_shot", classes=2, queries=4, length=8).reference()
    assert isinstance(figure, Figure)
    assert not figure.exact
    assert 0.9 < figure.value <= 1
    assert "simulated when asked" in figure.note
    assert "nearest mean" in figure.note


def test_the_command_writes_what_it_measures(tmp_path, monkeypatch, capsys):
    path = tmp_path / "probe_scores.json"
    monkeypatch.setattr(module, "_PATH", path)
    main(["many_shot", "tmaze", "--episodes", "32", "--seed", "3"])
    (entry,) = json.loads(path.read_text()).values()
    assert entry["reference"]["episodes"] == 32
    assert entry["reference"]["measured"].startswith("seed 3, jax ")
    assert "many_shot" in capsys.readouterr().out
