import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from resetta.experiments.atomic import atomic
from resetta.experiments.errors import InputError
from resetta.experiments.run_dir import (
    RunDir,
    check_run_dir,
    inherit,
    plain,
    write_json,
    write_npz,
)


def config(path: Path | None, **changes):
    base = {
        "env": {"name": "cartpole", "lanes": {"cartpole": {}}},
        "core": {"name": "gru", "features": 64},
        "lr": 5e-4,
        "lr_final": None,
        "total_steps": 1000,
        "device": "auto",
        "run_dir": None if path is None else str(path),
        "resume": "auto",
    }
    return {**base, **changes}


def row(update: int, **more):
    return {"update": update, "env_steps": update * 10, **more}


@pytest.fixture
def run(tmp_path):
    with RunDir.open(config(tmp_path / "run")) as run:
        yield run


def test_a_new_run(tmp_path):
    path = tmp_path / "deep" / "run"
    with RunDir.open(config(path)) as run:
        assert not run.resumed
        assert run.path == path
    again = RunDir.read(path)
    assert again.config == config(path)
    assert (again.checkpoints.name, again.media.name, again.report.name) == (
        "checkpoints",
        "media",
        "report.html",
    )
    assert (again.eval_json.name, again.eval_npz.name) == ("eval.json", "eval.npz")


def test_the_default_path_names_environment_core_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = []
    for _ in range(3):  # within one second, too
        with RunDir.open(config(None, core={"name": "my.code:Core"})) as run:
            paths.append(run.path)
            assert run.config["run_dir"] == str(run.path)
    assert len(set(paths)) == 3
    assert re.fullmatch(r"cartpole-my\.code_Core-\d{8}-\d{6}(-\d+)?", paths[0].name)
    assert paths[0].parent == Path("runs")


def test_going_on_with_a_run(tmp_path):
    path = tmp_path / "run"
    RunDir.open(config(path)).close()
    with RunDir.open(config(path, device="gpu", log_every=7)) as run:  # free to change
        assert run.resumed
    assert RunDir.read(path).config["device"] == "gpu"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lr": 1e-3}, "lr is 0.0005 there and 0.001 here"),
        ({"core": {"name": "gru", "features": 32}}, "core.features is 64 there and 32 here"),
        ({"core": {"name": "gru"}}, "core.features is 64 there and absent here"),
        ({"lr_final": 0.0}, "lr_final is null there and 0.0 here"),
        ({"total_steps": 999}, "total_steps=999 is less than the 1000"),
        ({"resume": "never"}, "already holds a run"),
    ],
)
def test_a_directory_belongs_to_its_configuration(tmp_path, changes, expected):
    path = tmp_path / "run"
    RunDir.open(config(path)).close()
    before = snapshot(path)
    with pytest.raises(InputError, match=re.escape(expected)):
        RunDir.open(config(path, **changes))
    assert snapshot(path) == before


def test_a_run_from_before_a_key_existed_goes_on_with_its_default(tmp_path):
    path = tmp_path / "run"
    RunDir.open(config(path)).close()
    assert "stagger" not in (path / "config.yaml").read_text()
    env = {"name": "cartpole", "lanes": {"cartpole": {}}, "same_start": False}
    new = {
        "stagger": False,
        "checkpoint_environments": True,
        "hold_noise": 1,
        "network": {"action_levels": None},
    }
    RunDir.open(config(path, env=env, **new)).close()
    with pytest.raises(InputError, match="stagger is False there and True here"):
        RunDir.open(config(path, stagger=True))
    RunDir.open(config(path)).close()  # nor need a version that does not know the key refuse it

    attention = tmp_path / "attention"
    RunDir.open(config(attention, core={"name": "attention", "window": 9})).close()
    RunDir.open(config(attention, core={"name": "attention", "window": 9, "attend": None})).close()
    with pytest.raises(InputError, match=r"core.attend is null there and plain here"):
        RunDir.open(config(attention, core={"name": "attention", "window": 9, "attend": "plain"}))

    video = tmp_path / "video"
    RunDir.open(config(video, data={"name": "balls"}, autoencoder={"path": None})).close()
    later = config(video, data={"name": "balls"}, autoencoder={"path": None, "steps": None, "lr": 2e-3})
    RunDir.open(later).close()
    later["autoencoder"]["lr"] = 1e-3
    with pytest.raises(InputError, match=r"autoencoder.lr is 0.002 there and 0.001 here"):
        RunDir.open(later)


def test_a_run_knows_what_it_was_trained_on(tmp_path):
    run = RunDir.open(config(tmp_path / "run"))
    assert run.trained_on() == []
    for name in ("2 x gpu (A)", "cpu (B)", "2 x gpu (A)"):
        run.note_device(name)
    run.close()
    read = RunDir.read(tmp_path / "run")
    assert read.trained_on() == ["2 x gpu (A)", "cpu (B)"]
    for broken in ("", "{", "3"):
        read.devices.write_text(broken)
        assert read.trained_on() == []


def test_only_a_constant_rate_can_be_extended(tmp_path):
    constant, scheduled = tmp_path / "constant", tmp_path / "scheduled"
    RunDir.open(config(constant)).close()
    RunDir.open(config(constant, total_steps=2000)).close()
    assert RunDir.read(constant).config["total_steps"] == 2000
    RunDir.open(config(scheduled, lr_final=0.0)).close()
    with pytest.raises(InputError, match=r"only a constant rate .* init.run=.*scheduled to start from"):
        RunDir.open(config(scheduled, lr_final=0.0, total_steps=2000))


def test_a_directory_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"holds no run \(it has thesis.tex\)"):
        RunDir.open(config(tmp_path))
    assert snapshot(tmp_path) == {"thesis.tex": b"x"}
    (tmp_path / "config.yaml").write_text("theme: dark\n")  # another program's
    with pytest.raises(InputError, match="holds no run"):
        RunDir.open(config(tmp_path))


def test_what_hydra_leaves_before_a_job_does_not_count(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("lr: 1\n")
    with RunDir.open(config(tmp_path)) as run:
        assert not run.resumed


def test_a_file_in_place_of_a_directory(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        RunDir.open(config(tmp_path / "file"))
    with pytest.raises(InputError, match=r"inside .*file, which is a file"):
        RunDir.open(config(tmp_path / "file" / "run"))


def test_an_unwritable_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(InputError, match="no permission"):
        check_run_dir(config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_one_writer_at_a_time(tmp_path, run):
    with pytest.raises(InputError, match=rf"in use by another process \(pid {os.getpid()}\)"):
        RunDir.open(config(run.path))
    run.close()
    RunDir.open(config(run.path)).close()


def test_a_killed_writer_leaves_no_lock(tmp_path):
    path = tmp_path / "run"
    code = (
        "import os, signal, json, sys\n"
        "from resetta.experiments.run_dir import RunDir\n"
        "run = RunDir.open(json.loads(sys.argv[1]))\n"
        "run.append({'update': 1, 'env_steps': 10})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(config(path))])
    assert done.returncode == -9
    with RunDir.open(config(path)) as run:
        assert run.resumed
        assert run.rows() == [row(1)]


def test_reading_a_run_that_is_not_there_names_those_that_are(tmp_path, run):
    with pytest.raises(InputError, match=r"does not exist; .* holds run"):
        RunDir.read(tmp_path / "rnu")
    with pytest.raises(InputError, match="holds no run"):
        RunDir.read(tmp_path)


def test_metrics_are_json_whatever_they_hold(run):
    values = {
        "episode_return": np.array([1.0, np.nan], np.float32),
        "loss": float("inf"),
        "third": np.float32(1) / 3,
        "count": np.int32(3),
        "flag": True,
        "none": None,
    }
    run.append(row(1, **values))
    text = run.metrics.read_text()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    parsed = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert list(parsed) == sorted(parsed)
    assert parsed["episode_return"] == [1.0, None]
    assert parsed["loss"] is None
    assert parsed["third"] == 0.3333333
    assert (parsed["count"], parsed["flag"], parsed["none"]) == (3, True, None)
    with pytest.raises(ValueError, match="update"):
        run.append({"loss": 1.0})


def test_metrics_are_cut_back_to_the_checkpoint(run):
    for update in range(1, 6):
        run.append(row(update))
    run.close()
    with run.metrics.open("a") as file:
        file.write('{"update": 6, "env_st')  # torn by a kill
    assert [r["update"] for r in run.rows()] == [1, 2, 3, 4, 5]
    run.truncate_metrics(3)
    assert run.metrics.read_text() == "".join(json.dumps(row(u), sort_keys=True) + "\n" for u in (1, 2, 3))
    run.append(row(4))
    assert [r["update"] for r in run.rows()] == [1, 2, 3, 4]
    run.truncate_metrics(0)
    assert run.metrics.read_text() == ""


def test_cutting_nothing_writes_nothing(run):
    run.truncate_metrics(3)
    assert not run.metrics.exists()
    run.append(row(1))
    stamp = run.metrics.stat().st_ino
    run.truncate_metrics(1)
    assert run.metrics.stat().st_ino == stamp


def test_a_torn_last_line_goes_even_where_it_parses(run):
    run.append(row(1))
    run.close()
    with run.metrics.open("a") as file:
        file.write(json.dumps(row(2)))  # without its newline: the next line would be glued to it
    run.truncate_metrics(9)
    assert [r["update"] for r in run.rows()] == [1]
    assert run.metrics.read_text().endswith("}\n")


def test_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "eval.json"
    write_json(path, {"x": [1.5, math.nan]})
    assert json.loads(path.read_text()) == {"x": [1.5, None]}
    with pytest.raises(ZeroDivisionError), atomic(path) as part:
        part.write_text("half" * (1 // len("")))
    assert json.loads(path.read_text()) == {"x": [1.5, None]}
    write_npz(tmp_path / "eval.npz", returns=np.ones((2, 3, 4)), names=np.array(["a", "b"]))
    with np.load(tmp_path / "eval.npz") as arrays:
        assert arrays["returns"].shape == (2, 3, 4)
        assert arrays["names"].tolist() == ["a", "b"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["eval.json", "eval.npz"]


def test_plain_refuses_what_it_would_spoil():
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        plain(object())


def test_what_is_not_asked_for_comes_from_the_run(tmp_path):
    path = tmp_path / "run"
    RunDir.open(config(path, lr=0.25, core={"name": "s5", "features": 8, "blocks": 2})).close()
    new = config(path)
    got = inherit(new, {"run_dir"})
    assert (got["lr"], got["core"]) == (0.25, {"name": "s5", "features": 8, "blocks": 2})
    check_run_dir(got)
    assert inherit(new, {"lr"})["lr"] == 5e-4
    assert inherit(new, {"core"})["core"] == {"name": "gru", "features": 64}
    assert inherit(new, {"core.features"})["core"] == {"name": "s5", "features": 64, "blocks": 2}
    assert inherit(new, None) == new
    assert inherit(config(tmp_path / "other"), set()) == config(tmp_path / "other")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
