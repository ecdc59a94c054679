"""Evaluation of a model whose every prediction is known beforehand, on clips of one grey level a frame."""

import contextlib
import dataclasses
import json
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.experiments import video_choose, video_evaluate
from resetta.experiments.checkpoint import Checkpoints
from resetta.experiments.errors import InputError
from resetta.experiments.run_dir import RunDir
from resetta.experiments.video_evaluate import (
    clip_ids,
    evaluate_model,
    predictions,
    protocol_of,
    summary_text,
    write_evaluation,
)
from resetta.video.clip import ActionSpace, Clip, to_float
from resetta.video.data import ENDLESS, make_data
from resetta.video.protocol import Protocol, comparable
from resetta.video.stream import read_windows

LENGTHS = (9, 5, 9, 9, 7)
DISCRETE = ActionSpace("discrete", 9)


@dataclasses.dataclass(frozen=True)
class Greys:
    """Clip i begins at level 20 + 10 i; every frame is an action, i + 1 or alternately 1 and 2, lighter."""

    size: int = 12
    lengths_: tuple[int, ...] | None = LENGTHS
    alternate: bool = False
    facts: bool = False
    channels: int = 1
    actions: ActionSpace = DISCRETE

    def count(self, split):
        return None if self.lengths_ is None else len(self.lengths_)

    def lengths(self, split, ids):
        return np.full(len(ids), ENDLESS) if self.lengths_ is None else np.array(self.lengths_)[ids]

    def levels(self, ids, frames):
        steps = np.stack([ids + 1] * frames)
        if self.alternate:
            steps = 1 + np.broadcast_to(np.arange(frames)[:, None] % 2, steps.shape)
        before = np.cumsum(steps, axis=0) - steps
        return 20 + 10 * ids + before, steps

    def read(self, split, ids, starts, frames):
        assert (starts == 0).all()
        assert (self.lengths(split, ids) >= frames).all()
        levels, steps = self.levels(ids, frames)
        shape = (*levels.shape, self.size, self.size, 1)
        pixels = np.broadcast_to(levels[..., None, None, None], shape).astype(np.uint8)
        return Clip(pixels, steps.astype(np.int32), np.zeros(levels.shape, bool))

    def truth(self, split, ids, starts, frames):
        return {"level": self.levels(ids, frames)[0], "clip": np.stack([ids] * frames)} if self.facts else {}

    def measures(self, predicted, truth, context=None):
        off = np.abs(predicted[..., 0, 0, 0].astype(float) - truth["level"])
        assert (context["level"][-1] < truth["level"][0]).all()  # the truth of the frames before these
        hidden = np.arange(len(off))[:, None] + 0 * off == 1  # nobody is seen in the second predicted frame
        alone = (np.arange(len(off))[:, None] == 2) & (truth["clip"] > 0)  # and one clip in the third
        return {"position_error": off, "identity": np.where(hidden | alone, np.nan, off == 0)}


@dataclasses.dataclass(frozen=True)
class Lighter:
    """Predicts the last frame, `lighter` levels lighter; or, given actions, by as much as the action says."""

    lighter: float = 0.0
    obey: bool = False
    noise: int = 0
    size: int = 12
    channels: int = 1
    actions: ActionSpace = DISCRETE
    streams: bool = False

    def init(self, key):
        return self.variables["params"]

    def initial_memory(self, batch):
        return jnp.zeros((batch, self.size, self.size, 1))

    def condition(self, variables, clip):
        return to_float(clip.frames[-1])

    def step(self, variables, memory, action, key):
        change = action[:, None, None, None] if self.obey else variables["params"]["lighter"]
        if self.noise:
            change = change + jax.random.randint(key, (memory.shape[0], 1, 1, 1), 0, self.noise)
        frame = memory + change / 127.5
        return frame, frame

    @property
    def variables(self) -> Any:
        return {"params": {"lighter": jnp.asarray(self.lighter), "unused": jnp.zeros((2, 3))}, "frozen": ()}


def quietly(text):
    return contextlib.nullcontext(lambda done, total: None)


def evaluated(model, data, protocol, batch=2, metrics=None):
    return evaluate_model(model, data, model.variables, protocol, batch, quietly, metrics)


PROTOCOL = Protocol(context=3, frames=7, clips=2, split="test")


@pytest.fixture(scope="module")
def result():
    """Clips 0 and 1 of levels 20, 21, 22 | 23, … and 30, 32, 34 | 36, …; the model goes on by 1 a frame."""
    return evaluated(Lighter(1.0), Greys(lengths_=(7, 7)), PROTOCOL)


def test_errors_are_what_one_computes_by_hand(result):
    # off by levels, of clips 0 and 1, at the four frames: the model 0 and k, the last frame k and 2 k,
    # the mean of the context (21 and 32) one and two levels more than that
    levels = {
        "model": [(0, 1), (0, 2), (0, 3), (0, 4)],
        "copy_last": [(1, 2), (2, 4), (3, 6), (4, 8)],
        "mean_frame": [(2, 4), (3, 6), (4, 8), (5, 10)],
    }
    for who, pairs in levels.items():
        squares = np.array(pairs, float) ** 2 / 255**2
        decibels = -10 * np.log10(np.maximum(squares, 1e-10))
        for name, expected in (("mse", squares), ("psnr", decibels)):
            np.testing.assert_allclose(result.arrays[f"{name}_{who}"], expected, rtol=2e-5)
            entry = result.summary["metrics"][name]
            np.testing.assert_allclose(entry[who], expected.mean(1), rtol=2e-5)
            # of two clips a quarter of all resamples are the one twice, and a quarter the other
            np.testing.assert_allclose(entry[f"{who}_low"], expected.min(1), rtol=2e-5)
            np.testing.assert_allclose(entry[f"{who}_high"], expected.max(1), rtol=2e-5)
    np.testing.assert_allclose(
        result.summary["metrics"]["psnr"]["model"][0], (100 + 20 * math.log10(255)) / 2, rtol=1e-6
    )
    assert result.summary["metrics"]["mse"]["copy_last"][3] == pytest.approx((16 + 64) / 2 / 65025)


def test_ssim_of_flat_frames(result):
    # no variance: what is left is the luminance (2 a b + c) / (a² + b² + c), c = .01²
    truth, last = 23 / 255, 22 / 255
    expected = (2 * truth * last + 1e-4) / (truth**2 + last**2 + 1e-4)
    assert result.arrays["ssim_copy_last"][0, 0] == pytest.approx(expected, abs=1e-4)
    assert result.arrays["ssim_model"][0, 0] == pytest.approx(1, abs=1e-6)


def test_what_stands_beside_the_measures(result):
    summary = result.summary
    assert summary["metrics"]["lpips"] == summary["metrics"]["fvd"] == "unavailable"
    assert "metrics.lpips=module:Name" in summary["missing"]["lpips"]
    assert summary["rfvd"] == "unavailable"
    assert summary["model"] == "Lighter"
    assert summary["parameters"] == 1 + 6
    assert summary["memory_bytes"] == 12 * 12 * 4
    assert "diversity" not in summary["metrics"]
    assert "position_error" not in summary["metrics"]
    json.dumps(summary, allow_nan=False)


def test_the_protocol_is_frozen_with_the_clips_that_there_were():
    data = Greys()
    few = evaluated(Lighter(1.0), data, dataclasses.replace(PROTOCOL, clips=64, data={"name": "greys"}))
    frozen = Protocol.from_dict(json.loads(json.dumps(few.summary["protocol"])))
    assert frozen.clips == 4  # clip 1 has 5 frames of the 7 that are needed
    assert frozen == dataclasses.replace(PROTOCOL, clips=4, data={"name": "greys"})
    assert few.arrays["clip_ids"].tolist() == [0, 2, 3, 4]
    assert {values.shape for key, values in few.arrays.items() if key != "clip_ids"} == {(4, 4)}
    assert comparable(frozen, dataclasses.replace(frozen, seed=3)) == []
    assert "clips differs" in comparable(frozen, PROTOCOL)[0]


def test_a_preset_keeps_its_name():
    preset = protocol_of(fake_config(), Greys(), "digits_100_500_tiny", {"clips": 3, "seed": None})
    got = evaluated(Lighter(), Greys(lengths_=None), preset, batch=3).summary["protocol"]
    assert (got["name"], got["context"], got["frames"], got["clips"]) == ("digits_100_500_tiny", 10, 50, 3)


def test_the_last_batch_is_not_counted_twice():
    whole = evaluated(Lighter(1.0), Greys(), dataclasses.replace(PROTOCOL, clips=4), batch=64)
    for batch in (1, 3):
        parts = evaluated(Lighter(1.0), Greys(), dataclasses.replace(PROTOCOL, clips=4), batch=batch)
        for (
            name,
            values,
        ) in whole.arrays.items():  # SSIM's variances cancel: batches differ by some 2e-5 on some CPUs
            np.testing.assert_allclose(parts.arrays[name], values, rtol=1e-4, err_msg=name)
        assert parts.summary["metrics"]["mse"]["model_low"] == pytest.approx(
            whole.summary["metrics"]["mse"]["model_low"]
        )


def test_one_clip_has_no_interval():
    entry = evaluated(Lighter(1.0), Greys(), dataclasses.replace(PROTOCOL, clips=1)).summary["metrics"]["mse"]
    assert len(entry["model"]) == 4
    assert entry["model_low"] is entry["model_high"] is entry["copy_last_low"] is None


def test_small_frames_have_no_ssim():
    result = evaluated(Lighter(1.0, size=8), Greys(size=8), PROTOCOL)
    assert result.summary["metrics"]["ssim"] == "unavailable"
    assert "11 pixels" in result.summary["missing"]["ssim"]
    assert "ssim_model" not in result.arrays


def test_measures_by_truth_with_gaps_and_a_constant():
    data = Greys(lengths_=(7, 7), facts=True)
    metrics = evaluated(Lighter(1.0), data, PROTOCOL).summary["metrics"]
    error, identity = metrics["position_error"], metrics["identity"]
    np.testing.assert_allclose(error["model"], [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(error["copy_last"], [1.5, 3.0, 4.5, 6.0])
    np.testing.assert_allclose(error["constant"], [(23 + 36) / 2, 31.0, 32.5, 34.0])  # an empty frame
    assert "constant" not in identity
    assert identity["model"] == [0.5, None, 1.0, 0.5]
    assert identity["model_defined"] == [2, 0, 1, 2]
    assert identity["model_low"] == [0.0, None, None, 0.0]
    assert identity["copy_last"] == [0.0, None, 0.0, 0.0]


def test_measures_by_what_is_true_of_clips():
    @dataclasses.dataclass(frozen=True)
    class Grouped(Greys):
        groups: ClassVar[dict[str, str]] = {"identity": "clip", "position_error": "clip"}

    data = Grouped(lengths_=(7, 7, 7), facts=True)
    result = evaluated(Lighter(1.0), data, Protocol(context=3, frames=7, clips=3)).summary
    identity, error = result["by"]["identity"], result["by"]["position_error"]
    assert (identity["fact"], identity["values"], identity["clips"]) == ("clip", [0, 1, 2], [1, 1, 1])
    assert identity["model"] == [1.0, 0.0, 0.0]  # of the frames at which it is defined
    assert identity["copy_last"] == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(error["model"], [0.0, 2.5, 5.0])  # clip k is k levels a frame off
    assert error["model_defined"] == [1, 1, 1]
    assert error["model_low"] == [None] * 3  # nobody knows the spread of one clip
    assert "identity by clip" in summary_text(result)
    # without any truth there is nothing to sum up
    assert evaluated(Lighter(1.0), Grouped(lengths_=(7, 7)), PROTOCOL).summary["by"] == {}


def test_each_prediction_is_given_the_action_that_leads_to_it():
    data = Greys(alternate=True)
    ids = np.array([0, 2])
    clip = read_windows(data, "test", ids, 0 * ids, 7)
    model = Lighter(obey=True)
    drawn = predictions(model, model.variables, clip, PROTOCOL, jax.random.key(0))
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, clip.frames[3:])
    blind = dataclasses.replace(PROTOCOL, actions="none")
    drawn = predictions(model, model.variables, clip, blind, jax.random.key(0))
    expected = clip.frames[2].astype(int) - np.arange(1, 5).reshape(4, 1, 1, 1, 1)  # NO_ACTION is −1
    np.testing.assert_array_equal(drawn, expected)


def test_several_futures():
    protocol = dataclasses.replace(PROTOCOL, samples=3)
    same = evaluated(Lighter(1.0), Greys(), protocol)
    assert same.summary["metrics"]["diversity"]["model"] == [0.0] * 4
    text = summary_text(same.summary)
    assert "3 futures of each clip" in text
    assert "psnr_best" in text
    assert "diversity" in text
    np.testing.assert_array_equal(same.arrays["psnr_best_model"], same.arrays["psnr_model"])
    noisy = evaluated(Lighter(1.0, noise=9), Greys(), protocol)
    assert min(noisy.summary["metrics"]["diversity"]["model"]) > 0
    assert (noisy.arrays["psnr_best_model"].mean(0) >= noisy.arrays["psnr_model"].mean(0)).all()
    assert (noisy.arrays["mse_best_model"].mean(0) <= noisy.arrays["mse_model"].mean(0)).all()
    assert (noisy.arrays["mse_best_model"] != noisy.arrays["mse_model"]).any()
    again = evaluated(Lighter(1.0, noise=9), Greys(), protocol)
    np.testing.assert_array_equal(again.arrays["mse_model"], noisy.arrays["mse_model"])
    other = evaluated(Lighter(1.0, noise=9), Greys(lengths_=(7, 7)), dataclasses.replace(protocol, seed=1))
    first = evaluated(Lighter(1.0, noise=9), Greys(lengths_=(7, 7)), protocol)
    assert (other.arrays["mse_model"] != first.arrays["mse_model"]).any()


def off(predicted, truth):
    return np.abs(predicted.astype(float) - truth).mean((2, 3, 4))


def test_a_measure_of_ones_own():
    def directed(predicted, truth):
        return off(predicted, truth)

    directed.higher_is_better = False
    metrics = {"lpips": off, "mine": off, "directed": directed}
    protocol = dataclasses.replace(PROTOCOL, samples=3)
    got = evaluated(Lighter(1.0, noise=9), Greys(lengths_=(7, 7)), protocol, metrics=metrics)
    assert "lpips" not in got.summary["missing"]
    np.testing.assert_allclose(got.arrays["lpips_copy_last"], np.outer([1, 2, 3, 4], [1, 2]))
    assert "mine_best" not in got.summary["metrics"]  # nobody said which way is better
    assert (got.arrays["directed_best_model"].mean(0) < got.arrays["directed_model"].mean(0)).all()


@pytest.mark.parametrize("name", ["psnr", "ssim", "diversity", "position_error"])
def test_a_measure_of_ones_own_may_not_take_a_name_that_is_taken(name):
    with pytest.raises(InputError, match=f"metrics.{name} has the name of a measure that exists"):
        evaluated(Lighter(), Greys(facts=True), PROTOCOL, metrics={name: off})


def test_a_batch_of_nothing():
    with pytest.raises(InputError, match="batch=0 must be at least 1"):
        evaluated(Lighter(), Greys(), PROTOCOL, batch=0)


def test_which_clips():
    data = Greys(lengths_=(9,) * 30 + (2,) * 30)
    protocol = Protocol(context=2, frames=6, clips=10)
    ids = clip_ids(data, protocol)
    assert len(ids) == len(set(ids)) == 10
    assert (np.diff(ids) > 0).all()
    assert ids.max() < 30
    np.testing.assert_array_equal(clip_ids(data, protocol), ids)
    assert clip_ids(data, dataclasses.replace(protocol, seed=1)).tolist() != ids.tolist()
    endless = Greys(lengths_=None)
    assert clip_ids(endless, protocol).tolist() == [*range(10)]
    assert clip_ids(endless, dataclasses.replace(protocol, seed=2)).tolist() == [*range(20, 30)]
    with pytest.raises(InputError, match=r"no test clip has the 10 frames .* \(the longest has 9\); use fra"):
        evaluated(Lighter(), data, dataclasses.replace(protocol, frames=10))


@dataclasses.dataclass(frozen=True)
class Config:
    data: dict
    context: int = 3
    frames: int = 7
    eval_clips: int = 5
    samples: int | None = 2
    batch: int = 2
    device: str = "auto"
    precision: str = "float32"


def fake_config(**changes):
    return dataclasses.replace(Config({"name": "greys", "size": 12}), **changes)


def test_the_protocol_of_a_run():
    own = protocol_of(fake_config(), Greys(), None, {"clips": None})
    assert own == Protocol(context=3, frames=7, clips=5, samples=2, data={"name": "greys", "size": 12})
    assert protocol_of(fake_config(eval_clips=0), Greys(), None, {}).clips == 64
    given = protocol_of(
        fake_config(), Greys(), None, {"context": 2, "seed": 4, "split": "train", "samples": None}
    )
    assert (given.context, given.frames, given.seed, given.split, given.samples) == (2, 7, 4, "train", 2)
    preset = protocol_of(fake_config(), Greys(), "teco_36_300", {"clips": 7})
    assert (preset.name, preset.context, preset.frames, preset.clips) == ("teco_36_300", 36, 300, 7)
    assert preset.samples == 2
    assert preset.actions == "none"
    assert preset.data == {"name": "greys", "size": 12}
    with pytest.raises(InputError, match="unknown protocol 'teco_36'; choose from digits_100_500"):
        protocol_of(fake_config(), Greys(), "teco_36", {})
    with pytest.raises(ValueError, match="context=3 contradicts protocol=teco_36_300, which has 36"):
        protocol_of(fake_config(), Greys(), "teco_36_300", {"context": 3})


def test_an_open_future_is_judged_over_several_unless_the_run_says_otherwise():
    opened = fake_config(samples=None)
    for name, given, samples in [
        ("stochastic_digits", {}, 8),
        ("stochastic_digits", {"samples": 3}, 3),
        ("moving_digits", {}, 1),
    ]:
        for preset in (None, "digits_100_500_tiny"):
            assert protocol_of(opened, make_data(name), preset, given).samples == samples
    assert protocol_of(fake_config(), make_data("stochastic_digits"), None, {}).samples == 2
    assert protocol_of(opened, Greys(), None, {}).samples == 1


def test_what_is_written(result, tmp_path):
    run = RunDir(tmp_path, {"data": {}}, resumed=True)
    rows = [{"step": k, "wall_time": k / 2, "loss": 1.0} for k in (10, 20, 30)]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config: Any = fake_config()
    for target, step, told in ((None, None, (30, 15.0)), (tmp_path / "a" / "b", 24, (24, 10.0))):
        write_evaluation(run, config, result, target, step)
        written = json.loads(((target or tmp_path) / "eval.json").read_text())
        assert (written["step"], written["train_seconds"]) == told
        assert written["metrics"]["psnr"]["model"] == pytest.approx(
            result.summary["metrics"]["psnr"]["model"], rel=1e-5
        )
        assert written["protocol"] == result.summary["protocol"]
        with np.load((target or tmp_path) / "eval.npz", allow_pickle=False) as stored:
            assert stored.keys() == result.arrays.keys()
            np.testing.assert_allclose(stored["mse_model"], result.arrays["mse_model"], rtol=1e-6)


@pytest.mark.parametrize(("chosen", "told"), [(None, (20, 10.0)), (10, (10, 5.0))])
def test_the_result_is_of_the_checkpoint_that_was_restored(chosen, told, tmp_path, monkeypatch, capsys):
    """Metrics may go on beyond the newest checkpoint, and an older one can be asked for."""
    run = RunDir(tmp_path, {"data": {}}, resumed=True)
    (tmp_path / "config.yaml").write_text("data: {name: greys}\nmodel: {name: lighter, lighter: 0}\n")
    rows = [{"step": k, "wall_time": k / 2, "loss": 1.0} for k in (10, 20, 30)]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with contextlib.closing(Checkpoints(run.checkpoints)) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, {"x": np.zeros(1)})
    model = Lighter(1.0)
    restored = (run, fake_config(eval_clips=2), model, Greys(lengths_=(7, 7)), model.variables)
    monkeypatch.setattr(video_evaluate, "restore_video_run", lambda raw: restored)
    raw = dict.fromkeys(
        ("protocol", "context", "frames", "clips", "samples", "seed", "split", "batch", "out")
    )
    video_evaluate.run(
        raw | {"metrics": {}, "model": {"lighter": 1}, "choose": {}, "step": chosen, "samples": 1}
    )
    written = json.loads(run.eval_json.read_text())
    assert (written["step"], written["train_seconds"]) == told
    assert written["model_options"] == {"lighter": 1}
    assert written["protocol"]["clips"] == 2
    said = capsys.readouterr().out
    assert "2 test clips, 3 frames of context" in said
    assert str(run.eval_json) in said
    page = run.report.read_text()
    assert "evaluated at step" in page
    assert "lighter 1" in page


@pytest.mark.parametrize("by", ["psnr", "position_error"])
def test_options_are_chosen_on_other_clips(by, monkeypatch):
    """Of two models the one is right that obeys: where more is better and where less is."""
    model, looked_at = Lighter(5.0), []

    @dataclasses.dataclass(frozen=True)
    class Watched(Greys):
        def read(self, split, ids, starts, frames):
            looked_at.append((split, len(ids)))
            return super().read(split, ids, starts, frames)

    def build(config, data, **options):
        return dataclasses.replace(model, **options)

    monkeypatch.setattr(video_choose, "build_model", build)
    raw = {"model": {"noise": 0}, "choose_by": by, "choose_clips": 2}
    given: Any = (fake_config(), model, Watched(facts=True), model.variables, PROTOCOL)
    choose = {"obey": [False, True], "size": [12]}
    chosen = video_choose.choose(*given, {**raw, "choose": choose})
    assert chosen.options == {"obey": True, "size": 12}
    assert chosen.model == Lighter(5.0, obey=True)
    record = chosen.record
    assert looked_at == [("train", 2)]
    assert (record["by"], record["clips"], record["split"]) == (by, 2, "train")
    first, second = (row[by] for row in record["candidates"])
    assert second == pytest.approx(100.0 if by == "psnr" else 0.0)
    assert (first < second) == (by == "psnr")
    for wrong, sentence in (
        ({"choose": {"obey": 0.1}}, r"choose.obey=0.1 must be a list of candidates, as in \[0,0.03,0.1\]"),
        (
            {"choose": {}, "choose_by": "fvd"},
            "choose_by='fvd' must be one of psnr, ssim, mse, position_error",
        ),
        ({"choose": {}, "choose_clips": 0}, "clips=0 must be a whole number"),
    ):
        with pytest.raises(InputError, match=sentence):
            video_choose.choose(*given, {**raw, **wrong})


def test_the_table_on_the_screen():
    metrics = {
        "psnr": {
            "model": [20.0, None, 18.25],
            "model_low": [19.0, None, 17.0],
            "model_high": [21.5, None, 19.0],
            "copy_last": [10.0, 9.0, 8.0],
            "copy_last_low": None,
            "copy_last_high": None,
        },
        "ssim": "unavailable",
    }
    summary = {
        "protocol": {"clips": 6, "split": "train", "context": 4, "frames": 7},
        "metrics": metrics,
    }
    lines = summary_text(summary).splitlines()
    assert lines[0].startswith("6 train clips, 4 frames of context")
    assert lines[1].split() == ["psnr", "model", "copy_last"]
    assert [line.split() for line in lines[2:]] == [
        ["frame", "+1", "20.000", "[19.000,", "21.500]", "10.000"],
        ["frame", "+2", "–", "9.000"],
        ["frame", "+3", "18.250", "[17.000,", "19.000]", "8.000"],
    ]
    by = {"fact": "delay", "values": [2, 16], "clips": [3, 3], **metrics["psnr"]}
    assert [line.split() for line in summary_text(summary | {"by": {"recall": by}}).splitlines()[5:]] == [
        ["recall", "by", "delay", "model", "copy_last"],
        ["delay", "2", "20.000", "[19.000,", "21.500]", "10.000"],
        ["delay", "16", "–", "9.000"],
    ]
    assert lines[1].index("copy_last") == lines[2].index("10.000") == lines[3].index("9.000")
