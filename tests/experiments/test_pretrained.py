"""The trained agents that come along: complete, playable in one command, and nothing else is played."""

import importlib.util
import json
import shutil

import numpy as np
import pytest

from resetta.experiments.cli import main
from resetta.experiments.pretrained_agents import SHIPPED, pretrained_names

NAMES = pretrained_names()


def refused(capsys, *argv):
    assert main([*argv]) == 2
    return capsys.readouterr().err


def test_there_are_some_and_they_are_small():
    assert {"meta_cartpole_catch_gru", "meta_cartpole_catch_s5"} <= {*NAMES}
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 12_000_000


def test_they_are_listed_with_their_scores(capsys):
    assert main(["list", "pretrained"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all("held-out return" in line for line in lines)
    plain = next(line for line in lines if line.split()[0] == "dm_control_plain")
    assert "held-out return 673.751; " in plain  # the return of its one trial, said once
    longer = next(line for line in lines if line.split()[0] == "dm_control_gru")
    assert "1,300,070,400 steps after those of runs/meta_dm_control_taught; " in longer


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """One of them, evaluated on a few tasks."""
    run_dir = tmp_path_factory.mktemp("pretrained") / "agent"
    words = [
        "pretrained=meta_cartpole_catch_gru",
        f"run_dir={run_dir}",
        "tasks=64",
        "trials=8",
        "splits=[held_out]",
    ]
    assert main(["evaluate", *words]) == 0
    return run_dir


def test_one_adapts_as_its_card_says(unpacked):
    played = json.loads((unpacked / "card.json").read_text())["evaluation"]["splits"]["held_out"]["mean"]
    with np.load(unpacked / "eval.npz") as arrays:
        returns = arrays["held_out_returns"][0]
    error = returns.std(0, ddof=1) / np.sqrt(len(returns))
    assert (np.abs(returns.mean(0) - played[:8]) < 4 * error + 0.01).all()
    assert (unpacked / "report.html").exists()


@pytest.mark.parametrize("name", NAMES)
def test_each_is_the_one_of_its_card(name, tmp_path, capsys):
    """Read whole by its configuration: parameters, shapes, digest; and nothing to play them for."""
    if name.startswith("dm_control") and importlib.util.find_spec("mujoco_playground") is None:
        pytest.skip("needs the extra")
    words = [f"pretrained={name}", f"run_dir={tmp_path / 'agent'}", "tasks=0"]
    assert "tasks=0" in refused(capsys, "evaluate", *words)
    card = json.loads((tmp_path / "agent" / "card.json").read_text())
    assert card["command"].startswith("resetta train env=")
    assert card["device"]
    assert card["trained_on"]
    assert card["train_seconds"] > 0


def test_only_what_is_there_is_found(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'meta_cartpole_catch_gru'" in refused(
        capsys, "evaluate", "pretrained=meta_cartpole_catch_gr"
    )
    for path in ("../pretrained/meta_cartpole_catch_gru", "/etc", ".", "..", "''"):
        assert "unknown pretrained" in refused(capsys, "render", f"pretrained={path}")
    assert "pretrained=..." in refused(capsys, "render")
    assert not [*tmp_path.iterdir()]


def test_a_directory_of_something_else_is_left_alone(capsys, unpacked, tmp_path):
    other = "meta_cartpole_catch_s5"
    assert "holds something else" in refused(capsys, "evaluate", f"pretrained={other}", f"run_dir={unpacked}")
    assert "leave step out" in refused(capsys, "evaluate", f"run_dir={unpacked}", "step=1")
    changed = tmp_path / "changed"
    shutil.copytree(unpacked, changed)
    text = (changed / "agent.npz").read_bytes()
    (changed / "agent.npz").write_bytes(text[:-1] + bytes([text[-1] ^ 1]))
    assert "is not what its card.json says" in refused(capsys, "evaluate", f"run_dir={changed}")
    shutil.copy(unpacked / "agent.npz", changed)
    config = (changed / "config.yaml").read_text()
    assert "features: 64" in config
    (changed / "config.yaml").write_text(config.replace("  features: 64", "  features: 32"))
    assert "belongs to another agent" in refused(capsys, "evaluate", f"run_dir={changed}")
