import io
import sys
import types

import pytest
from rich.console import Console

from resetta.experiments import logs as logs_module
from resetta.experiments.errors import InputError
from resetta.experiments.logs import Logs, check_loggers, phase
from resetta.experiments.run_dir import RunDir


@pytest.fixture
def run(tmp_path):
    with RunDir.open({"run_dir": str(tmp_path / "run"), "resume": "auto"}) as run:
        yield run


def screen(terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=120), text


def row(steps: int, *returns):
    return {
        "update": steps // 10,
        "env_steps": steps,
        "episode_return": list(returns),
        "loss": [0.5] * len(returns),
    }


def test_without_a_terminal_there_are_plain_lines(run):
    console, text = screen(terminal=False)
    with Logs(run, total_steps=100, seeds=2, tensorboard=False, console=console) as logs:
        with logs.phase("compiling"):
            pass
        for steps in range(10, 101, 10):
            logs.log(row(steps, 1.0, 3.0))
    lines = text.getvalue().splitlines()
    assert lines[0] == f"run directory: {run.path}"
    assert lines[1] == "compiling ..."
    assert lines[2].startswith("10/100 steps")  # the first is never silent
    assert lines[-1].startswith("100/100 steps")  # nor the last
    assert len(lines) == 4  # and those between are not worth a line each
    assert "return 2 (mean of 2 seeds)" in lines[-1]
    assert "\x1b" not in text.getvalue()


def test_lines_come_again_after_a_while(run, monkeypatch):
    monkeypatch.setattr(logs_module, "_QUIET", 0.0)
    console, text = screen(terminal=False)
    with Logs(run, total_steps=100, tensorboard=False, console=console) as logs:
        for steps in (10, 20, 30):
            logs.log(row(steps, float("nan")))
    lines = text.getvalue().splitlines()
    assert [line.split("/")[0] for line in lines[1:]] == ["10", "20", "30"]
    assert "return" not in lines[1]  # no trial has finished yet


def test_speed_counts_every_seed_and_no_pause(run, monkeypatch):
    clock = iter([0.0, 0.0, 1000.0, 1000.0, 1002.0, 1002.0] + [1002.0] * 9)
    monkeypatch.setattr(logs_module.time, "monotonic", lambda: next(clock))
    console, _ = screen(terminal=True)
    logs = Logs(run, total_steps=100, seeds=3, tensorboard=False, console=console)
    logs._seen.clear()
    logs._seen.append((1000.0, 0))
    logs._seen.append((1002.0, 50))
    text = logs._text(row(50, 1.0))
    assert text.startswith("50/100 steps | 75 steps/s | 0:02 left")
    assert logs._text(row(50, 1.0) | {"perf_queue_fill": 0.5}).endswith("| data queue 50% full")


def test_on_a_terminal_there_is_a_bar(run):
    console, text = screen(terminal=True)
    with Logs(run, total_steps=100, tensorboard=False, console=console) as logs:
        logs.log(row(50, 1.25))
        with logs.phase("evaluating"):
            pass
        logs.log(row(100, 1.5))
    shown = text.getvalue()
    assert "50/100 steps" in shown
    assert "return 1.25" in shown
    assert "evaluating" in shown
    assert "100/100 steps" in shown


def test_a_phase_says_how_long_it_takes(monkeypatch):
    monkeypatch.setattr(logs_module, "_QUIET", 0.01)
    console, text = screen(terminal=False)
    with phase("loading", console):
        while text.getvalue().count("\n") < 3:
            pass
    assert text.getvalue().splitlines()[:2] == ["loading ...", "loading ... 0 s"]


def test_a_phase_lets_errors_through():
    console, _ = screen(terminal=False)
    with pytest.raises(RuntimeError, match="broken"), phase("loading", console):
        raise RuntimeError("broken")


def events(run: RunDir) -> list[tuple[str, int, float]]:
    """Read the event files without TensorBoard: records of (length, crc, data, crc)."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(run.tensorboard.iterdir()):
        data = file.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            data = data[12 + length + 4 :]
    return found


def test_tensorboard_keeps_seeds_apart_and_resumes(run):
    console, _ = screen(terminal=False)
    with Logs(run, total_steps=100, seeds=2, console=console) as logs:
        logs.log({**row(10, 1.0, float("nan")), "single": [2.0], "wall_time": 3.0})
    assert set(events(run)) == {
        ("episode_return/0", 10, 1.0),
        ("loss/0", 10, 0.5),
        ("loss/1", 10, 0.5),
        ("single", 10, 2.0),
        ("wall_time", 10, 3.0),
    }
    run.resumed = True
    with Logs(run, total_steps=100, start_step=10, console=console) as logs:
        logs.log(row(20, 5.0))
    assert {("episode_return/0", 10, 1.0), ("episode_return", 20, 5.0)} <= set(events(run))
    with Logs(run, total_steps=100, start_step=100, console=console):
        pass  # a finished run begins no file
    assert len(list(run.tensorboard.iterdir())) == 2


def test_wandb_is_asked_for_only_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(logs_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"resetta\[wandb\]"):
        check_loggers({"wandb": True})
    check_loggers({"wandb": False})


def test_wandb_resumes_the_same_run(run, monkeypatch):
    calls = []

    class Run:
        def log(self, scalars, step):
            calls.append((scalars, step))

        def finish(self):
            calls.append("finish")

    fake = types.ModuleType("wandb")
    fake.init = lambda **options: calls.append(options) or Run()  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(logs_module.importlib.util, "find_spec", lambda name: object())
    console, _ = screen(terminal=False)
    for _ in range(2):
        with Logs(run, total_steps=100, tensorboard=False, wandb=True, console=console) as logs:
            logs.log(row(10, 1.0))
    first, logged, finished, second = calls[:4]
    assert first["id"] == second["id"]
    assert first["resume"] == "allow"
    assert logged == ({"episode_return": 1.0, "loss": 0.5}, 10)
    assert finished == "finish"
