"""Whole video runs, small: train, resume, stream, evaluate, sample, and every way to be told no."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from resetta.experiments.cli import main

SMALL = [
    "data.size=16",
    "data.digits=1",
    "data.digit_size=8",
    "model.features=8",
    "model.num_layers=1",
    "model.widths=[8]",
    "frames=8",
    "context=3",
    "batch=2",
    "lr_final=null",
    "eval_clips=3",
    "checkpoint_every=4",
    "log_every=1",
    "tensorboard=false",
]
COMMAND = [sys.executable, "-m", "resetta.experiments.cli"]


def rows(directory):
    """metrics.jsonl without what may vary from run to run."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if not k.startswith(("wall_", "perf_"))} for x in lines]


def variables(directory):
    from resetta.experiments.video_restore import restore_video_run

    raw = {"run_dir": str(directory), "data": {}, "model": {}, "device": "cpu"}
    return jax.tree.leaves(restore_video_run(raw)[-1])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of 8 steps that nothing stopped."""
    directory = tmp_path_factory.mktemp("runs") / "straight"
    assert main(["video-train", *SMALL, "total_steps=8", f"run_dir={directory}"]) == 0
    return directory


def test_a_run_holds_what_was_promised(straight):
    assert [row["step"] for row in rows(straight)] == list(range(1, 9))
    assert all({"step", "loss"} <= row.keys() for row in rows(straight))
    summary = json.loads((straight / "eval.json").read_text())
    assert summary["protocol"]["context"] == 3
    assert summary["protocol"]["clips"] == 3
    for name in ("mse", "psnr", "ssim", "position_error"):
        for who in ("model", "copy_last", "mean_frame"):
            for ending in ("", "_low", "_high"):
                values = summary["metrics"][name][who + ending]
                assert len(values) == 5
                assert np.isfinite(values).all()
    assert summary["metrics"]["lpips"] == summary["metrics"]["fvd"] == "unavailable"
    with np.load(straight / "eval.npz", allow_pickle=False) as arrays:
        clips = arrays["psnr_model"]
        assert clips.shape == (5, 3)
        np.testing.assert_allclose(summary["metrics"]["psnr"]["model"], clips.mean(1), rtol=1e-5)
    assert {p.suffix for p in (straight / "media").iterdir()} >= {".mp4", ".gif", ".png"}
    assert "<svg" in (straight / "report.html").read_text()


def test_a_resumed_stream_is_bit_identical(tmp_path):
    """Half the run, and then the rest in another go: the same lines, the same bits, cursor and memory too."""
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    common = ["video-train", *SMALL, "chunk=3", "eval_clips=0"]
    assert main([*common, "total_steps=8", f"run_dir={whole}"]) == 0
    assert main([*common, "total_steps=4", f"run_dir={halved}"]) == 0
    with (halved / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # torn by a kill
    assert main([*common, "total_steps=8", f"run_dir={halved}"]) == 0
    assert rows(halved) == rows(whole)
    for a, b in zip(variables(halved), variables(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_rows_that_sum_up_several_steps_survive_a_resume(tmp_path):
    """A checkpoint between two lines of metrics.jsonl: the line after it still speaks of all its steps."""
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    common = ["video-train", *SMALL, "eval_clips=0", "log_every=3"]
    assert main([*common, "total_steps=6", f"run_dir={whole}"]) == 0
    process = subprocess.Popen(
        [*COMMAND, *common, "total_steps=6", "checkpoint_every=1", f"run_dir={halved}"],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not (halved / "checkpoints" / "1").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=300)[1]
    assert process.returncode in (0, 143), said
    if process.returncode == 143:
        assert "go on with: resetta video-train run_dir=" in said
    assert main(["video-train", "resume=auto", f"run_dir={halved}"]) == 0
    assert rows(halved) == rows(whole)


def test_two_devices_share_the_clips_of_a_step(straight, tmp_path):
    shared = tmp_path / "shared"
    words = [*SMALL, "eval_clips=0", "total_steps=4", "mesh.data=2", f"run_dir={shared}"]
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {os.environ.get('XLA_FLAGS', '')}"}
    done = subprocess.run([*COMMAND, "video-train", *words], env=os.environ | flags, capture_output=True)
    assert done.returncode == 0, done.stderr
    for got, wanted in zip(rows(shared), rows(straight)[:4], strict=True):
        assert got == pytest.approx(wanted, rel=1e-4)
    assert all(np.isfinite(leaf).all() for leaf in variables(shared)), "one device reads what two wrote"


def test_running_a_finished_run_again_changes_nothing(straight, capsys):
    before = (straight / "metrics.jsonl").read_bytes()
    assert main(["video-train", f"run_dir={straight}"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (straight / "metrics.jsonl").read_bytes() == before


def test_evaluate_by_another_protocol(straight, tmp_path):
    words = ["context=2", "frames=6", "clips=2", f"out={tmp_path / 'other'}"]
    assert main(["video-evaluate", f"run_dir={straight}", *words]) == 0
    summary = json.loads((tmp_path / "other" / "eval.json").read_text())
    assert len(summary["metrics"]["psnr"]["model"]) == 4
    assert summary["protocol"]["clips"] == 2


def test_sampling_goes_far_beyond_the_clips(straight, tmp_path):
    words = ["frames=50", "clips=1", "arrays=true", f"out={tmp_path / 'film'}"]
    assert main(["video-sample", f"run_dir={straight}", *words]) == 0
    with np.load(tmp_path / "film.npz", allow_pickle=False) as arrays:
        assert arrays["frames_0"].shape == (50, 1, 16, 16, 1)
    assert (tmp_path / "film.mp4").stat().st_size > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["context=8"], "context=8 leaves nothing to predict in frames=8; use frames=9 or more"),
        (["model=conv_s6"], "unknown model 'conv_s6' (did you mean 'conv_s5'"),
        (["data=moving_digit"], "unknown data 'moving_digit' (did you mean 'moving_digits'"),
        (["data.size=15"], "data.size=15 is too small for digits; use 16 or more"),
        (["data.size=18"], "size=18 is not divisible by"),
        (["batch=3", "accumulate=2"], "batch=3 is not divisible by accumulate=2; use 2 or 4"),
        (
            ["batch=4", "mesh.data=3"],
            "makes parts of 4, which mesh.data=3 does not divide; use mesh.data=2 or 4",
        ),
        (["precision=float16"], "precision='float16' must be one of float32, bfloat16"),
        (["data=folder", "data.path=/nowhere/at/all"], "/nowhere/at/all"),
        (["data=folder"], "data.path is missing"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing_behind(words, sentence, tmp_path, capsys):
    small = [word for word in SMALL if not any(word.split("=")[0] == given.split("=")[0] for given in words)]
    if "data=folder" in words:
        small = [word for word in small if not word.startswith("data.")]
    status = main(["video-train", *small, "total_steps=1", f"run_dir={tmp_path / 'run'}", *words])
    said = capsys.readouterr().err.strip().splitlines()
    assert status == 2, said
    assert sentence in said[-1]
    assert not (tmp_path / "run").exists()


def test_commands_for_the_other_kind_of_run_say_so(straight, capsys):
    assert main(["evaluate", f"run_dir={straight}"]) == 2
    assert "is a run of videos" in capsys.readouterr().err


def test_report_without_an_evaluation(straight, tmp_path):
    run = tmp_path / "run"
    os.system(f"cp -r {straight} {run}")
    (run / "eval.json").unlink()
    assert main(["report", f"run_dir={run}"]) == 0
    assert "resetta video-evaluate" in (run / "report.html").read_text()
