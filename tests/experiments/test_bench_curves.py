"""Learning curves as CSV: made of runs, checked when read, and drawn side by side."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from resetta.experiments.bench import tables
from resetta.experiments.bench.run_curves import choose, drawn, points_of, read_curves
from resetta.experiments.cli import main
from resetta.experiments.errors import InputError
from resetta.experiments.plots import COLORS

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def row(update, *returns, **others):
    return {
        "update": update,
        "env_steps": 10 * update,
        "wall_time": update / 8,
        "episode_return": list(returns),
        "loss": [0.0 for _ in returns],
        **others,
    }


def run_of(rows, **config):
    return SimpleNamespace(path="runs/a", rows=lambda: rows, config=config)


def curve(*returns, **others):
    return [
        {"env_steps": 10.0 * k, "return": float(value), **{name: of[k - 1] for name, of in others.items()}}
        for k, value in enumerate(returns, 1)
    ]


def write(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.csv").write_text(text)


def test_a_run_keeps_every_nth_update_and_its_last():
    rows = [row(k, k / 3, **{"episode_return/b": [1.0], "entropy": [2.0]}) for k in range(1, 12)]
    points = points_of(run_of(rows), 5)  # every second, of which the last is one
    assert [point["env_steps"] for point in points] == [10, 30, 50, 70, 90, 110]
    points = points_of(run_of(rows), 3)  # every third, and the last
    assert [point["env_steps"] for point in points] == [10, 40, 70, 100, 110]
    assert points[0] == {"env_steps": 10, "seconds": 0.125, "return": 0.333333, "b": 1.0, "entropy": 2.0}
    assert len(points_of(run_of(rows), 100)) == 11
    with pytest.raises(InputError, match="no line"):
        points_of(run_of([]), 3)


def test_several_seeds_come_one_after_the_other_and_unfinished_trials_are_unknown():
    points = points_of(run_of([row(1, 2.0, None), row(2, 4.0, 6.0)], seed=7), 9)
    known = [(point["seed"], point["env_steps"], point["return"]) for point in points]
    np.testing.assert_equal(known, [(7, 10, 2.0), (7, 20, 4.0), (8, 10, np.nan), (8, 20, 6.0)])
    drawn_lines = [line.get_ydata() for line in drawn({"a": points}).axes[0].get_lines()]
    np.testing.assert_equal(drawn_lines, [[2.0, 3.0], [np.nan, 6.0], [np.nan, 4.5]])  # each, and their mean


def test_a_panel_for_each_environment_and_a_style_for_the_eight_that_end_highest():
    curves = {f"c{k}": curve(0, k, x=[k, k + 2]) for k in range(10)}
    figure = drawn(curves)
    first, second, legend = figure.axes[:3]
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["return, mean", "x"]
    assert not legend.axison
    named = {line.get_label(): line for line in second.get_lines()}
    coloured = [name for name in named if name.startswith("c")]
    assert coloured == [f"c{k}" for k in range(9, 1, -1)]
    assert [named[name].get_color() for name in coloured] == [*COLORS]
    np.testing.assert_array_equal(named["c5"].get_xydata(), [[10, 5], [20, 6]])  # a trailing mean
    assert len(second.get_lines()) == 10
    words = [text.get_text() for text in legend.get_legend().get_texts()]
    assert words == [*coloured, "2 that end lower"]


def test_means_over_other_environments_are_not_drawn_together():
    curves = {"a": curve(1, 2, x=[0, 0]), "b": curve(1, 2, y=[0, 0]), "c": curve(1, 3, x=[0, 0])}
    assert [*choose(curves, [])] == ["a", "c"]
    assert [*choose(curves, ["b"])] == ["b"]
    with pytest.raises(InputError, match="only=b has other columns"):
        choose(curves, ["a", "c", "b"])
    with pytest.raises(InputError, match="choose from a, b, c"):
        choose(curves, ["d"])


def test_runs_become_files_from_which_the_same_picture_is_drawn(tmp_path, capsys):
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("run_dir: runs/mine\nseed: 0\n")
    lines = [row(k, 100 / k, **{"episode_return/x": [k / 7], "approx_kl": [1e-9 * k]}) for k in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out"
    write(out, "comparison_learning", "core,seed,step,seconds,return\ngru,0,1,1,1\n")
    write(out, "mine", "env_steps,return\nolder and damaged\n")
    write(out, "other", "env_steps,return\n10,0\n20,nan\n")
    write(out, "another", "env_steps,return,entropy,x\n10,0,1,5\n20,,1,5\n")
    assert main(["bench", "tables", f"out={out}", f"runs=[{run}]", "points=2"]) == 0
    with (out / "mine.csv").open() as file:
        assert [*csv.reader(file)] == [
            ["env_steps", "seconds", "return", "x", "approx_kl"],
            ["10", "0.125", "100", "0.142857", "1e-09"],
            ["20", "0.25", "50", "0.285714", "2e-09"],
            ["30", "0.375", "33.3333", "0.428571", "3e-09"],
        ]
    assert "for their columns are others: other, comparison_learning\n" in capsys.readouterr().out
    picture = out / "curves.png"
    before = picture.read_bytes()
    picture.unlink()
    tables.run([{"out": str(out)}])
    assert picture.read_bytes() == before
    tables.run([{"out": str(out), "only": ["other"], "picture": "another"}])
    assert picture.read_bytes() == before != (out / "another.png").read_bytes()
    twice = [str(run), str(run)]
    with pytest.raises(InputError, match="two runs mine"):
        tables.run([{"out": str(out), "runs": twice}])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("env_steps,return\n1,2\n2,x\n", "damaged in line 3 (could not convert string to float: 'x')"),
        ("env_steps,return\n1,2\n2\n", "damaged in line 3 (1 values below 2 names)"),
        ("env_steps,return,return\n1,2,3\n", "damaged in line 1 (two columns have one name)"),
        ("env_steps,return\n\xff1,2\n", "damaged in line"),
        ("env_steps,returns\n1,2\n", "has no column `return`"),
        ("env_steps,return\n", "has no line below its names"),
        ("env_steps,return\n1,2\n1,3\n", "env_steps that do not grow"),
        ("seed,env_steps,return\n0,1,2\n1,1,2\n0,0,3\n", "env_steps that do not grow"),
        ("steps,return\n1,2\n", "no CSV that begins with env_steps"),
    ],
)
def test_a_damaged_file_is_one_sentence_and_nothing_is_written(text, expected, tmp_path):
    write(tmp_path, "a", "")
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    if text.startswith("env"):
        write(tmp_path, "b", "env_steps,return\n1,2\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError) as caught:
        tables.run([{"out": str(tmp_path)}])
    assert expected in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("wrong", [{"points": 0}, {"picture": "a/b"}, {"picture": ""}, {"pionts": 3}])
def test_a_wrong_setting_is_an_input_error(wrong, tmp_path):
    with pytest.raises(InputError):
        tables.run([{"out": str(tmp_path), **wrong}])


@pytest.mark.parametrize("folder", ["h100/meta_dm_control", "dm_control_levels", "h100"])
def test_the_curves_that_come_along_can_be_drawn(folder):
    curves, others = read_curves(RESULTS / folder)
    assert curves
    assert others == (["memory_suite"] if folder == "h100" else [])
    assert (RESULTS / folder / "curves.png").exists()
