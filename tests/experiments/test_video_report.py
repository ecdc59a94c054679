"""Reports of video runs: what the headline claims, what a page holds, and what it does without."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resetta.experiments.media import write_gif, write_mp4, write_png
from resetta.experiments.plots import to_svg
from resetta.experiments.report import write_report
from resetta.experiments.video_plots import horizon_curve, loss_curve
from resetta.experiments.video_report import headline, ordinal

VOID = {"meta", "img", "source", "br", "path", "use", "rect"}


class Page(HTMLParser):
    """Checks the nesting of elements, and collects text, sources, pictures and tables."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.sources, self.images = [], [], [], []
        self.rows = []  # of all tables, a list of cells each
        self.feed(html)
        assert not self.open, self.open
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert tag not in {"script", "link", "iframe", "object", "base"}, tag
        assert not [name for name in attrs if name.startswith("on")]
        self.sources += [v for name, v in attrs.items() if name in {"src", "href", "poster", "action"}]
        if tag in {"img", "video", "svg"}:
            self.images.append((tag, attrs.get("alt") or attrs.get("aria-label")))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
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
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data


def entry(**values):
    """The measure of one eval.json: everybody's means, one below and one above them as their intervals."""

    def moved(means, by):
        return [None if mean is None else mean + by for mean in means]

    out = {}
    for who, means in values.items():
        out |= {who: means, f"{who}_low": moved(means, -1), f"{who}_high": moved(means, 1)}
    return out


PSNR = entry(
    model=[24.06, 20.0, 15.0, 12.0, 11.0],
    copy_last=[20.0, 18.0, 15.0, 11.0, 10.0],
    mean_frame=[14.0, 14.0, 14.0, 14.0, 14.0],
)
POSITION = entry(
    model=[0.5, 1.25, None, 9.0, 12.34],
    copy_last=[1.0, 2.0, None, 4.0, 5.0],
    mean_frame=[3.0, 3.0, None, 3.0, 3.0],
    constant=[8.0, 8.0, None, 10.0, 13.0],
)
SUMMARY = {
    "step": 40,
    "protocol": {
        "name": "own",
        "context": 10,
        "frames": 15,
        "clips": 64,
        "samples": 1,
        "seed": 0,
        "split": "test",
        "actions": "recorded",
        "data": {"name": "moving_digits", "size": 64},
        "metric_versions": {"psnr": "psnr-v1"},
    },
    "metrics": {
        "mse": entry(model=[0.1] * 5, copy_last=[0.2] * 5, mean_frame=[0.3] * 5),
        "psnr": PSNR,
        "position_error": POSITION,
        "identity": entry(model=[None] * 5, copy_last=[None] * 5, mean_frame=[0.5] * 5),
        "mine": entry(model=[1.0] * 5, copy_last=[2.0] * 5, mean_frame=[3.0] * 5),
        "lpips": "unavailable",
    },
    "missing": {"lpips": "needs a network's <weights>"},
    "rfvd": "unavailable",
    "parameters": 1234567,
    "memory_bytes": 65536,
    "device": "CPU x (16 cores)",
    "train_seconds": 150.0,
    "versions": {"jax": "0.1"},
}


@pytest.fixture
def run(tmp_path):
    """A run of which everything is there."""
    directory = tmp_path / "my run & <co>"
    (directory / "media").mkdir(parents=True)
    (directory / "autoencoder").mkdir()
    (directory / "config.yaml").write_text(
        "data: {name: moving_digits, size: 64}\nmodel: {name: conv_s5}\ntotal_steps: 40\n"
        "autoencoder: {path: null, steps: 3}\nx: <script>x</script>\n"
    )
    fills = (None, 1.0, 0.5, 0.75)
    rows = [
        {"step": 10 * k, "loss": 1 / k, "wall_time": 3.0 * k, "perf_queue_fill": fill}
        for k, fill in enumerate(fills, 1)
    ]
    (directory / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 50, "lo'
    )
    (directory / "autoencoder" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    (directory / "eval.json").write_text(json.dumps(SUMMARY))
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    write_mp4(directory / "media" / "prediction_test.mp4", frames)
    write_gif(directory / "media" / "prediction_test.gif", frames)
    write_png(directory / "media" / "strip_test.png", frames[0])
    return directory


def page_of(directory):
    path = write_report(directory)
    assert path == directory / "report.html"
    html = path.read_text(encoding="utf-8")
    assert "http" not in re.sub(r"base64,[^\"]*", "", html)  # which may hold any four letters by chance
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert "<script>" not in html
    page = Page(html)
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    assert all(label for _, label in page.images)
    return page


def test_a_full_report_is_whole_and_fetches_nothing(run):
    page = page_of(run)
    assert page.sources
    # curves of PSNR, position error, identity and one's own; two losses; a film with its GIF; a strip
    assert sorted(tag for tag, _ in page.images) == ["img", "img", *["svg"] * 6, "video"]
    assert "moving_digits · conv_s5" in page.words
    for name, value in (
        ("optimiser steps", "40"),
        ("test clips", "64"),
        ("parameters", "1,234,567"),
        ("memory of a clip", "66 kB"),
        ("training time", "2 min"),
        ("device", "CPU x"),
    ):
        assert re.search(rf"\b{name} {value}\b", page.words), name
    assert "evaluated at step" not in page.words
    assert "Not evaluated yet" not in page.words
    assert "<script>x</script>" in page.words  # shown, not run
    assert ["lpips", "needs a network's <weights>"] in page.rows
    assert ["context", "10"] in page.rows
    assert ["queue of clips, full to", "75% on average, 50% at its emptiest"] in page.rows
    assert ["data", "name moving_digits, size 64"] in page.rows
    assert "rfvd-v1: unavailable." in page.words
    assert "PSNR (dB), mean over clips; higher is better." in page.words
    assert "position error (pixels), mean over clips; lower is better." in page.words
    assert "mine, mean over clips." in page.words  # of which nobody knows
    assert "resetta video-evaluate 'run_dir=" in page.words
    assert "it was trained first and is frozen since" in page.words


def test_the_headline_is_what_the_numbers_say():
    sentence, more = headline(SUMMARY["metrics"])
    assert sentence == "The first predicted frame has a PSNR of 24.1 dB, the 5th 11.0 dB."
    assert more == [
        "By PSNR it beats showing the last frame again up to the 2nd of 5 frames.",  # equal is not better
        "By PSNR it beats the mean of the context up to the 3rd of 5 frames.",
        "Objects are 0.5 pixels off in the first frame and 12.3 in the last.",
        "By position error it beats showing the last frame again up to the 2nd of 5 frames.",
        "By position error it beats guessing the centre at every one of the 4 frames where it is defined.",
    ]


@pytest.mark.parametrize(
    ("model", "other", "said"),
    [
        ([9, 9, 9], [1, 1, 1], "it beats showing the last frame again at every one of the 3 frames."),
        ([1, 9, 9], [5, 5, 5], "it does not beat showing the last frame again even at the first frame."),
        ([9, 1, 9], [5, 5, 5], "it beats showing the last frame again up to the 1st of 3 frames."),
        ([9], [5], "it beats showing the last frame again at the only frame."),
        ([None, 9, 1], [5, 5, 5], "it beats showing the last frame again up to the 2nd of 3 frames."),
        ([9, 9, 9], [5, None, 5], "at every one of the 2 frames where it is defined."),
        ([None, 1], [5, 5], "even at the first frame where it is defined."),
    ],
)
def test_how_long_it_is_better(model, other, said):
    _, more = headline({"psnr": entry(model=model, copy_last=other, mean_frame=[None] * len(model))})
    assert len(more) == 1  # nothing is said of the mean frame, of which nothing is known
    assert more[0].startswith("By PSNR it ")
    assert more[0].endswith(said)


values = st.lists(
    st.tuples(*[st.one_of(st.none(), st.integers(0, 9))] * 2),
    min_size=1,
    max_size=120,
)


@given(values)
def test_a_claim_of_being_better_holds_for_every_frame_before_it(pairs):
    model, other = zip(*pairs, strict=True)
    _, more = headline({"psnr": entry(model=list(model), copy_last=list(other))})
    known = {k: a > b for k, (a, b) in enumerate(pairs, 1) if None not in (a, b)}
    if not known:
        assert more == []
        return
    claimed = re.search(r"up to the (\d+)(st|nd|rd|th) of", more[0])
    if claimed:
        last = int(claimed[1])
        assert known[last]
        assert all(won for k, won in known.items() if k <= last)
        assert not next(won for k, won in known.items() if k > last)
    elif "does not beat" in more[0]:
        assert not next(iter(known.values()))
    else:
        assert all(known.values())


def test_positions_that_are_known_in_between_only():
    def said(*model):
        return headline({"psnr": PSNR, "position_error": entry(model=list(model))})[1][2]

    assert said(None, 2.0, 3.0, None) == "Objects are 2.0 pixels off in the 2nd frame and 3.0 in the 3rd."
    assert said(None, 2.0) == "Objects are 2.0 pixels off in the 2nd frame."
    assert len(headline({"psnr": PSNR, "position_error": entry(model=[None, None])})[1]) == 2


def test_one_predicted_frame():
    sentence, _ = headline({"psnr": entry(model=[9.96], copy_last=[1], mean_frame=[1])})
    assert sentence == "The first predicted frame has a PSNR of 10.0 dB."
    assert headline({}) == headline({"psnr": "unavailable"}) == ("Not evaluated yet.", [])


def test_ordinals():
    said = {
        1: "1st",
        2: "2nd",
        3: "3rd",
        4: "4th",
        11: "11th",
        12: "12th",
        13: "13th",
        20: "20th",
        21: "21st",
    }
    said |= {101: "101st", 111: "111th", 122: "122nd", 1112: "1112th", 1300: "1300th"}
    assert {number: ordinal(number) for number in said} == said


def test_the_tables_hold_the_figures(run):
    rows = page_of(run).rows
    at = rows.index(["frame", "the model", "the last frame again", "the context's mean", "always the centre"])
    assert rows[at + 1 : at + 4] == [
        [
            "+1",
            "0.500 [-0.500, 1.500]",
            "1.000 [0.000, 2.000]",
            "3.000 [2.000, 4.000]",
            "8.000 [7.000, 9.000]",
        ],
        [
            "+2",
            "1.250 [0.250, 2.250]",
            "2.000 [1.000, 3.000]",
            "3.000 [2.000, 4.000]",
            "8.000 [7.000, 9.000]",
        ],
        [
            "+5",
            "12.340 [11.340, 13.340]",
            "5.000 [4.000, 6.000]",
            "3.000 [2.000, 4.000]",
            "13.000 [12.000, 14.000]",
        ],
    ]
    head = ["frame", "the model", "the last frame again", "the context's mean"]
    identity = next(k for k, row in enumerate(rows) if row == head)
    assert rows[identity + 1][1:3] == ["–", "–"]


def test_what_is_true_of_clips_has_a_curve_and_a_table(run):
    by = {"fact": "delay", "values": [4, 32], "clips": [31, 33]}
    by |= entry(model=[0.75, 0.25], copy_last=[0.125, 0.0])
    metrics = SUMMARY["metrics"] | {"recall": entry(model=[None, 1.0, None, None, None])}
    (run / "eval.json").write_text(json.dumps(SUMMARY | {"by": {"recall": by}, "metrics": metrics}))
    page = page_of(run)
    assert ("svg", "recall against frames behind the wall") in page.images
    assert ("svg", "recall against the predicted frame") not in page.images
    assert "higher is better. Of 31, 33 clips, in order." in page.words
    assert ["frames behind the wall", "the model", "the last frame again"] in page.rows
    assert ["32", "0.250 [-0.750, 1.250]", "0.000 [-1.000, 1.000]"] in page.rows


def test_a_curve_against_what_is_true_of_clips():
    curve = {"fact": "delay", "values": [4, 128], **entry(model=[0.75, 0.25], copy_last=[0.0, None])}
    axes = horizon_curve(curve, "recall").axes[0]
    assert (axes.get_xlabel(), axes.get_xscale()) == ("frames behind the wall", "log")
    np.testing.assert_array_equal(axes.get_lines()[0].get_xdata(), [4, 128])


def test_a_long_horizon_is_shown_at_some_frames(run):
    falling = (30 - np.arange(1200) / 100).tolist()
    long = entry(model=falling, copy_last=[20.0] * 1200, mean_frame=[1.0] * 1200)
    (run / "eval.json").write_text(json.dumps({"metrics": {"psnr": long}}))
    page = page_of(run)
    shown = [row for row in page.rows if row and row[0].startswith("+")]
    assert [row[0] for row in shown] == [
        f"+{k}" for k in (1, 2, 5, 10, 20, 50, 100, 200, 400, 800, 1200)
    ]  # each of them once
    assert shown[6][1].startswith("29.010 ")
    assert "the 1200th 18.0 dB" in page.words
    assert "up to the 1000th of 1200 frames" in page.words
    assert "mean of the context at every one of the 1200 frames" in page.words


def test_one_clip_has_no_intervals(run):
    one = {k: None if k.endswith(("_low", "_high")) else v for k, v in PSNR.items()}
    (run / "eval.json").write_text(json.dumps({**SUMMARY, "metrics": {"psnr": one}}))
    assert ["+1", "24.060", "20.000", "14.000"] in page_of(run).rows


def test_rfvd_beside_its_floor(run):
    def score(mean):
        return {"mean": mean, "spread": 0.01, "per_net": [mean] * 5, "n": 300}

    scores = {"version": "rfvd-v1", "floor": "unavailable", "model": score(0.25), "shuffled": score(0.5)}
    (run / "eval.json").write_text(json.dumps({**SUMMARY, "rfvd": scores}))
    rows = page_of(run).rows
    assert ["model", "0.250 ± 0.010 over five nets, 300 windows"] in rows
    assert ["shuffled", "0.500 ± 0.010 over five nets, 300 windows"] in rows
    assert ["floor", "unavailable: too few windows to set one half against the other"] in rows
    (run / "eval.json").write_text(json.dumps({**SUMMARY, "rfvd": scores | {"floor": score(0.125)}}))
    assert ["floor", "0.125 ± 0.010 over five nets, 300 windows"] in page_of(run).rows


def test_an_older_checkpoint_is_said(run):
    (run / "eval.json").write_text(json.dumps({**SUMMARY, "step": 20, "model_options": {"euler_steps": 9}}))
    page = page_of(run)
    assert "evaluated at step 20" in page.words
    assert ["evaluated with", "euler_steps 9"] in page.rows


def test_a_run_without_an_evaluation_has_a_report(run):
    (run / "eval.json").unlink()
    page = page_of(run)
    assert "Not evaluated yet." in page.words
    assert "resetta video-evaluate 'run_dir=" in page.words
    assert "training time 12 s" in page.words  # from metrics.jsonl
    assert sum(tag == "svg" for tag, _ in page.images) == 2


def test_a_run_that_has_only_begun_has_a_report(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {name: folder}\nmodel: {name: far}\n")
    page = page_of(tmp_path)
    for said in ("Not evaluated yet", "No film yet", "video-sample run_dir=", "No metrics.jsonl yet"):
        assert said in page.words
    assert "folder · far" in page.words
    assert page.images == []


@pytest.mark.parametrize(
    "broken", ["{", "[]", "{}", '{"metrics": {"psnr": {}}}', '{"metrics": {"mse": "n"}}']
)
def test_a_broken_evaluation_is_none(run, broken):
    (run / "eval.json").write_text(broken)
    page = page_of(run)
    assert "Not evaluated yet." in page.words
    assert ("Eval.json is not valid JSON" in page.words) == (broken == "{")


def test_the_reports_of_agents_are_another_page(tmp_path):
    (tmp_path / "config.yaml").write_text("env: {name: meta_cartpole}\ncore: {name: gru}\n")
    words = page_of(tmp_path).words
    assert "video-" not in words
    assert "resetta evaluate" in words


def lines_of(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_a_curve_has_gaps_where_nothing_is_defined():
    figure = horizon_curve(POSITION, "position_error")
    axes, lines = figure.axes[0], lines_of(figure)
    assert axes.get_ylabel() == "position error (pixels)"
    assert axes.get_xscale() == "linear"
    assert [*lines] == ["the model", "the last frame again", "the context's mean", "always the centre"]
    assert len({line.get_color() for line in lines.values()}) == 4
    x, y = lines["the model"].get_data()
    np.testing.assert_array_equal(x, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(y, [0.5, 1.25, np.nan, 9, 12.34])
    assert len(axes.collections) == 4  # bands
    heights = np.concatenate([path.vertices[:, 1] for path in axes.collections[0].get_paths()])
    assert (heights.min(), heights.max()) == (-0.5, 13.34)


def test_a_value_between_two_gaps_is_a_point():
    curve = entry(model=[1.0, None, 3.0, 4.0, None, 6.0], copy_last=[None] * 6)
    marked = {name: line.get_markevery() for name, line in lines_of(horizon_curve(curve, "identity")).items()}
    assert marked == {"the model": [0, 5], "the last frame again": []}
    assert lines_of(horizon_curve(entry(model=[1.0]), "identity"))["the model"].get_markevery() == [0]
    drawn = horizon_curve(entry(model=[None, 1.0, None]), "mse")
    assert to_svg(drawn).count("<use") > to_svg(horizon_curve(entry(model=[None] * 3), "mse")).count("<use")


def test_long_horizons_are_logarithmic_and_no_interval_is_no_band():
    curve = {"model": [1.0] * 100, "model_low": None, "model_high": None}
    axes = horizon_curve(curve, "mine").axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel() == "mine"
    assert len(axes.collections) == 0


def test_the_loss():
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"loss": 1.0}, {"step": 3, "loss": 0.5}]
    axes = loss_curve(rows).axes[0]
    (line,) = axes.get_lines()
    np.testing.assert_array_equal(line.get_xydata(), [[1, 2], [3, 0.5]])
    assert axes.get_yscale() == "log"
    assert loss_curve([*rows, {"step": 4, "loss": 0.0}]).axes[0].get_yscale() == "linear"
    assert loss_curve([{"step": 4, "loss": None}]).axes[0].get_lines()[0].get_xydata().shape == (0, 2)
