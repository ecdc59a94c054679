"""A video run killed without mercy in each of its stages ends bit for bit as the one that nothing stopped."""

import json
import os
import subprocess
import sys
import time

import jax
import numpy as np

from resetta.experiments.cli import main
from resetta.experiments.video_restore import restore_video_run

FAR = [
    *("video-train", "model=far", "data.size=16", "data.digits=1", "data.digit_size=8"),
    *("model.features=12", "model.num_layers=1", "model.core_options={num_heads: 2}", "model.window=3"),
    *("model.widths=[4]", "model.latent_channels=2", "frames=6", "context=3", "batch=2", "accumulate=1"),
    *("total_steps=5", "autoencoder.steps=5", "eval_clips=0", "log_every=2", "tensorboard=false"),
]
COMMAND = [sys.executable, "-m", "resetta.experiments.cli"]


def rows(directory):
    """metrics.jsonl without what may vary from run to run."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if not k.startswith(("wall_", "perf_"))} for x in lines]


def kill_at(directory, checkpoint):
    """Starts the run or goes on with it, until it has written the checkpoint."""
    words = [*COMMAND, *FAR, "checkpoint_every=1", f"run_dir={directory}"]
    kept = {"RESETTA_COMPILATION_CACHE": str(directory.parent / "compiled")}  # for the next start
    process = subprocess.Popen(words, env=os.environ | kept, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    try:
        while not checkpoint.exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()


def test_both_stages_of_far_survive_a_kill(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([*FAR, f"run_dir={whole}"]) == 0
    kill_at(killed, killed / "autoencoder" / "checkpoints" / "2")
    kill_at(killed, killed / "checkpoints" / "2")
    assert main(["video-train", f"run_dir={killed}"]) == 0
    assert rows(killed / "autoencoder") == rows(whole / "autoencoder")
    assert rows(killed) == rows(whole)
    read = {"data": {}, "model": {}, "device": "cpu"}
    ends = [restore_video_run({"run_dir": str(run), **read})[-1] for run in (killed, whole)]
    assert jax.tree.leaves(ends[0])
    jax.tree.map(np.testing.assert_array_equal, *ends)
