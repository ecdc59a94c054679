import re
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from resetta.experiments.plots import adaptation_curve, carry_norm, learning_curve, save_png, to_svg
from resetta.experiments.stats import adaptation_curve as statistics


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    rows = [
        {
            "env_steps": 1000 * k,
            "episode_return": [None if k < 3 else k / 100 + 0.1 * generator.normal(), k / 120],
        }
        for k in range(1, 100)
    ]
    return [*rows, {"update": 7}, {"env_steps": 1, "episode_return": None}]


@pytest.fixture
def curve():
    generator = np.random.default_rng(0)
    return statistics(generator.normal(size=(2, 30, 1)) + np.linspace(0, 1, 16), reps=50)


def lines(figure):
    return figure.axes[0].get_lines()


def test_learning_curve_of_several_environments_has_a_named_line_for_each():
    names = ("env_steps", "episode_return", "episode_return/a", "episode_return/b")
    values = (10, [1.0, 3.0], [0.0, 2.0], [None, None]), (20, [4.0, 6.0], [1.0, None], [8.0, 9.0])
    rows = [dict(zip(names, row, strict=True)) for row in values]
    figure = learning_curve(rows, window=1)
    a, b, average = lines(figure)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["a", "b", "mean of all"]
    np.testing.assert_array_equal(a.get_xydata(), [[10, 1], [20, 1]])
    np.testing.assert_array_equal(b.get_xydata(), [[20, 8.5]])
    np.testing.assert_array_equal(average.get_xydata(), [[10, 2], [20, 5]])


def test_learning_curve_has_a_line_a_seed_and_their_mean(rows):
    first, second, average = lines(learning_curve(rows, window=1))
    assert len(first.get_xdata()) == 97  # nulls are skipped
    assert len(second.get_xdata()) == len(average.get_xdata()) == 99
    np.testing.assert_allclose(second.get_ydata(), np.arange(1, 100) / 120)
    np.testing.assert_allclose(average.get_ydata()[:2], second.get_ydata()[:2])
    np.testing.assert_allclose(average.get_ydata()[2:], (first.get_ydata() + second.get_ydata()[2:]) / 2)


def test_smoothing_is_a_trailing_mean_over_what_is_known():
    rows = [
        {"env_steps": k, "episode_return": [value]} for k, value in enumerate([None, 1.0, 3.0, None, 5.0])
    ]
    line = lines(learning_curve(rows, window=2))[-1]
    np.testing.assert_allclose(line.get_ydata(), [1, 2, 3, 5])


@pytest.mark.parametrize("rows", [[], [{"env_steps": 5, "episode_return": [None]}], [{"update": 1}]])
def test_an_empty_run_says_so(rows):
    assert "no trial has finished" in learning_curve(rows).axes[0].texts[0].get_text()


def test_adaptation_curve(curve):
    figure = adaptation_curve(
        {"held-out tasks": curve, "training tasks": {"mean": curve.mean}},
        trained_trials=8,
        baselines={"random": 0.1, "memoryless": [0.2] * 16},
    )
    axes = figure.axes[0]
    held_out, train, random, memoryless, limit = lines(figure)
    np.testing.assert_allclose(held_out.get_ydata(), curve.iqm)
    np.testing.assert_allclose(train.get_ydata(), curve.mean)
    np.testing.assert_array_equal(held_out.get_xdata(), np.arange(1, 17))
    assert set(random.get_ydata()) == {0.1}
    assert set(memoryless.get_ydata()) == {0.2}
    assert limit.get_xdata()[0] == 8.5
    assert limit.get_linestyle() == ":"
    assert len(axes.collections) == 1  # one interval: the other curve has none
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["held-out tasks", "training tasks", "random", "memoryless"]


def test_no_line_where_nothing_lies_beyond(curve):
    assert len(lines(adaptation_curve({"a": curve}, trained_trials=16))) == 1


def test_carry_norm():
    starts, resets = np.zeros(60, bool), np.zeros(60, bool)
    starts[::20], resets[[0, 40]] = True, True
    figure = carry_norm(np.linspace(0, 2, 60), starts, resets)
    ticks, marks = figure.axes[0].collections
    assert [segment[0][0] for segment in ticks.get_segments()] == [0, 20, 40]
    assert [segment[0][0] for segment in marks.get_segments()] == [0, 40]
    carry_norm(np.zeros(0))


def test_files(tmp_path, rows, curve):
    path = save_png(learning_curve(rows), tmp_path / "curve.png", dpi=100)
    with Image.open(path) as image:
        picture = np.asarray(image.convert("RGB"))
    assert picture.shape == (390, 720, 3)
    assert (picture[0, 0] == 255).all()
    alt = 'held-out "curve" <script>'
    svg = to_svg(adaptation_curve({"a & b": curve}, 8), alt)
    assert ElementTree.fromstring(svg).attrib["aria-label"] == alt
    assert "http" not in svg
    identifiers = re.findall(r'\bid="([^"]+)"', svg)
    assert len(set(identifiers)) == len(identifiers)
    used = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
    assert used <= set(identifiers)
    assert svg == to_svg(adaptation_curve({"a & b": curve}, 8), alt)


def test_no_global_state(rows):
    learning_curve(rows)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
