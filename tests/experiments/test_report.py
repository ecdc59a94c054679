import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from resetta.experiments.media import write_gif, write_mp4, write_png
from resetta.experiments.report import write_report
from resetta.experiments.report_words import headline
from resetta.experiments.run_record import read_metrics, read_run
from resetta.experiments.stats import adaptation_curve

VOID = {"meta", "img", "source", "br", "hr", "link", "input", "path", "use", "rect"}


class Page(HTMLParser):
    """Checks nesting and collects what a reader, a screen reader and a network would get."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.sources, self.images = [], [], [], []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert tag not in {"script", "link", "iframe", "object", "base"}, tag
        assert not [name for name in attrs if name.startswith("on")]
        self.sources += [
            value for name, value in attrs.items() if name in {"src", "href", "poster", "action"}
        ]
        if tag in {"img", "video", "svg"}:
            self.images.append((tag, attrs.get("alt") or attrs.get("aria-label")))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


@pytest.fixture
def run(tmp_path):
    directory = tmp_path / "my run & <co>"
    (directory / "media").mkdir(parents=True)
    (directory / "config.yaml").write_text(
        "env: {name: meta_cartpole, lanes: {cartpole: {}}}\n"
        "core: {name: gru}\ntrials: 3\nx: <script>x</script>\n"
    )
    lines = [
        json.dumps({"update": k, "env_steps": 100 * k, "episode_return": [None, k / 9]}) for k in range(1, 10)
    ]
    (directory / "metrics.jsonl").write_text("\n".join(lines) + '\n{"update": 10, "env_st')
    generator = np.random.default_rng(0)
    returns = np.linspace(0.2, 0.7, 6) + 0.01 * generator.normal(size=(2, 40, 6))
    np.savez(
        directory / "eval.npz",
        held_out_returns=returns,
        train_returns=returns + 0.1,
        held_out_random=0 * returns[0],
        held_out_envs=np.repeat("cartpole", 40),
        held_out_task_ids=np.arange(40),
    )
    (directory / "eval.json").write_text(
        json.dumps({"trained_trials": 3, "train_seconds": 61.5, "device": "CPU"})
    )
    frames = generator.integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    write_mp4(directory / "media" / "task_0.mp4", frames)
    write_gif(directory / "media" / "task_0.gif", frames)
    write_png(directory / "media" / "first.png", frames[0])
    np.savez(directory / "media" / "carry.npz", norms=np.ones(9), resets=np.arange(9) == 4)
    return directory


def test_a_report_tells_what_it_was_trained_on_from_what_it_was_evaluated_on(run):
    def told(**summary):
        (run / "eval.json").write_text(json.dumps({"trained_trials": 3, "train_seconds": 61.5, **summary}))
        return " ".join(Page(write_report(run).read_text(encoding="utf-8")).text)

    words = told(device="cpu (B)", trained_on=["2 x gpu (A)", "cpu (B)"])
    assert "device 2 x gpu, cpu " in words
    assert "trained on 2 x gpu (A), cpu (B) evaluated on cpu (B)" in words
    words = told(device="cpu (B)", trained_on=None)
    assert "device cpu " in words
    assert "trained on 2" not in words


def test_a_full_report_is_whole_and_fetches_nothing(run):
    path = write_report(run)
    html = path.read_text(encoding="utf-8")
    page, words = Page(html), " ".join(Page(html).text)
    assert path == run / "report.html"
    assert "http" not in re.sub(r"base64,[^\"]*", "", html)  # which may hold any four letters by chance
    assert "@import" not in html
    assert page.sources
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    assert not re.search(r"url\((?!#)", html)
    assert all(label for _, label in page.images)
    # Two curves and the memory; a film with its GIF; one picture.
    assert sorted(tag for tag, _ in page.images) == ["img", "img", "svg", "svg", "svg", "video"]
    assert (
        "On 40 tasks it never trained on, the agent’s return rises from 0.20 in its first trial to 0.40"
        in words
    )
    assert "it gains a further 0.30" in words
    assert "meta_cartpole · gru" in words
    assert "62" in words
    assert "resetta train 'run_dir=" in words
    assert "<script>" not in html
    assert "<script>x</script>" in words  # shown, not run
    assert "prefers-color-scheme: dark" in html


def test_the_table_holds_the_figures(run):
    html = write_report(run).read_text(encoding="utf-8")
    with np.load(run / "eval.npz") as stored:
        curve = adaptation_curve(stored["held_out_returns"])
    rows = re.findall(
        r'<tr class="(\w*)"><th scope="row">(\d+)</th><td>([\d.]+) \[([\d.]+), ([\d.]+)\]', html
    )
    assert [row[0] for row in rows] == ["", "", "limit", "beyond", "beyond", "beyond"]
    for k, (_, trial, *figures) in enumerate(rows):
        assert int(trial) == k + 1
        np.testing.assert_allclose(
            np.array(figures, float), [curve.mean[k], curve.mean_low[k], curve.mean_high[k]], atol=0.0051
        )


def test_an_empty_directory_gets_a_report_that_says_what_is_missing(tmp_path):
    words = " ".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).text)
    for said in (
        "Nothing has been trained",
        "Not evaluated yet",
        "No film yet",
        "No metrics.jsonl",
        "no config.yaml",
    ):
        assert said in words


def test_broken_pieces_are_said_not_errors(run):
    (run / "eval.npz").write_bytes(b"PK torn")
    (run / "eval.json").write_text("{")
    (run / "config.yaml").write_text("a: [")
    (run / "media" / "carry.npz").write_bytes(b"torn")
    words = " ".join(Page(write_report(run).read_text(encoding="utf-8")).text)
    for said in (
        "Eval.npz could not be read",
        "Eval.json is not valid",
        "Config.yaml is not valid",
        "Nothing recorded",
    ):
        assert said in words
    assert "Trained for 900 steps, with a return of 0.56" in words


def test_metrics_with_a_torn_end_and_a_bad_middle(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n\n{"b": 2\n3\n{"c": 3}\n{"d":')
    notes = []
    assert read_metrics(path, notes) == [{"a": 1}, {"c": 3}]
    assert notes == ["2 lines of metrics.jsonl could not be read"]
    assert read_metrics(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("curve", "trained", "said"),
    [
        ([0.5, 0.5, 0.5], 3, "does not clearly change: it is 0.50 in its first trial and 0.50 in its third."),
        ([0.8, 0.6, 0.2], 2, "falls from 0.80 in its first trial to 0.60 in its second."),
        ([0.4], 1, "earns a return of 0.40."),
        ([-250.0, -120.0], 2, "rises from −250 in its first trial to −120"),
    ],
)
def test_headlines_say_what_the_numbers_say(tmp_path, curve, trained, said):
    noise = np.random.default_rng(0).normal(size=(1, 200, len(curve)))
    returns = np.array(curve) + 0.05 * (noise - noise.mean(axis=1, keepdims=True))
    np.savez(tmp_path / "eval.npz", held_out_returns=returns)
    (tmp_path / "eval.json").write_text(json.dumps({"trained_trials": trained}))
    run = read_run(tmp_path)
    sentence, more = headline(run, {"held_out": adaptation_curve(returns)})
    assert said in sentence
    assert any("With one seed" in line for line in more)
    if trained == 2 and len(curve) == 3:
        assert any("loses 0.40" in line and "by trial 3" in line for line in more)


def test_several_environments_are_compared_by_normalised_returns(tmp_path):
    (tmp_path / "config.yaml").write_text("env: {lanes: {a: {}, b: {}}}\n")
    np.savez(
        tmp_path / "eval.npz",
        held_out_returns=np.full((1, 4, 1), 300.0),
        held_out_normalized=np.full((1, 4, 1), 0.5),
    )
    assert "return of 0.50" in write_report(tmp_path).read_text(encoding="utf-8")


def test_not_a_directory(tmp_path):
    with pytest.raises(ValueError, match="not a directory"):
        write_report(tmp_path / "none")
    assert os.listdir(tmp_path) == []
