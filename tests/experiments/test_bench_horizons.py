"""The benchmark of far horizons on a tiny model: what it asks again, what it says, and its arithmetic."""

import json

import pytest

from resetta.experiments.bench.horizons import falls_to
from resetta.experiments.cli import main
from resetta.experiments.listing import choices

TINY = [
    "data.size=16",
    "data.digits=1",
    "model.widths=[4,4]",
    "model.features=4",
    "model.num_layers=1",
    "model.core_options={state_size: 4}",
    "total_steps=2",
    "frames=4",
    "context=2",
    "batch=1",
    "warmup=0",
    "eval_clips=0",
    "render=false",
    "tensorboard=false",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["video-train", *TINY, f"run_dir={path}"]) == 0
    return path


def test_runs_are_evaluated_once_at_the_horizons_asked_for(trained, tmp_path, capsys):
    asked = [f"runs=[{trained}]", "protocol=null", "context=2", "frames=6", "clips=2", "batch=2"]
    command = ["bench", "horizons", *asked, "horizons=[1,3,9]", f"out={tmp_path}"]
    assert main(command) == 0
    assert "predicting" in capsys.readouterr().err
    result = json.loads((tmp_path / "horizons.json").read_text())
    (row,) = result["rows"]
    assert (row["label"], row["step"], row["trained_frames"], row["clips"]) == ("tiny", 2, 4, 2)
    assert len(row["metrics"]["position_error"]["model"]) == 4
    text = (tmp_path / "horizons.md").read_text()
    assert "| tiny | 3 |" in text
    assert "| tiny | 9 |" not in text  # only 4 frames are predicted
    assert "constant" in text
    assert (tmp_path / "horizons.png").stat().st_size > 1000

    assert main(command) == 0
    assert "predicting" not in capsys.readouterr().err  # known already
    assert main([*command, "clips=3"]) == 0
    assert "predicting" in capsys.readouterr().err
    assert json.loads((tmp_path / "horizons.json").read_text())["rows"][0]["clips"] == 3


def test_mistakes_are_sentences(trained, tmp_path, capsys):
    for wrong, said in {
        f"runs=[{tmp_path}]": "holds no run",
        "runs=[]": "runs=[] is empty",
        f"runs=[{trained},{trained}]": "each needs a name of its own",
        f"runs=[{trained}] horizons=[0]": "horizons",
    }.items():
        assert main(["bench", "horizons", *wrong.split(" "), f"out={tmp_path}"]) == 2
        err = capsys.readouterr().err
        assert said in err, err


def test_where_a_model_is_no_better_than_the_mean_frame():
    assert falls_to([30.0, 20.0, 10.0], [15.0, 15.0, 15.0]) == 3
    assert falls_to([30.0, None, 15.0], [15.0, 15.0, 15.0]) == 3
    assert falls_to([30.0, 20.0], [15.0, 15.0]) is None


def test_the_experiments_compose(capsys):
    names = [name for name in choices("experiment") if name.startswith("digits_")]
    assert {"digits_conv_s5", "digits_far"} <= set(names)
    for name in names:
        assert main(["video-train", f"+experiment={name}", "--cfg"]) == 0
        assert "total_steps: 20000" in capsys.readouterr().out
