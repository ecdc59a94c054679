"""ConvS5 learns how a digit moves: better than showing the last frame again, and than the context's mean."""

import json

import numpy as np
import pytest

from resetta.experiments.cli import main


@pytest.mark.slow
def test_one_digit_is_followed_for_eight_frames(tmp_path):
    words = [
        *("data.size=32", "data.digits=1", "frames=14", "context=6", "batch=8", "total_steps=200"),
        *("model.features=32", "model.num_layers=2", "model.core_options={state_size: 32}"),
        *("model.widths=[32]", "model.patch=4", "eval_clips=32"),
        *("render=false", "tensorboard=false", "checkpoint_every=200", f"run_dir={tmp_path}"),
    ]
    assert main(["video-train", *words]) == 0
    metrics = json.loads((tmp_path / "eval.json").read_text())["metrics"]
    for name, sign in (("psnr", 1), ("position_error", -1)):
        model = np.array(metrics[name]["model"])
        assert len(model) == 8
        for who in ("copy_last", "mean_frame"):
            better = sign * (model - np.array(metrics[name][who]))
            assert (better > 0).all(), f"{name} against {who}: {better}"
