import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from resetta.cores import core_names
from resetta.experiments import cli
from resetta.experiments.config import train_config
from resetta.experiments.errors import (
    InputError,
    Interrupted,
    TrainingFailed,
    catch_signals,
    input_errors,
)
from resetta.experiments.listing import (
    CLASSES,
    choices,
    command_help,
    core_classes,
    entries,
    groups,
    heading,
    list_text,
    read_config,
)

COMMANDS = [name for name in ("train", "evaluate", "render", "report", "bench") if read_config(name)]


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = cli.main(argv)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def one_sentence(err: str) -> str:
    assert err.startswith("resetta: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_help_shows_the_commands_that_are_here(capsys):
    status, out, err = run(capsys, "--help")
    assert status == 0
    assert err == ""
    for name in COMMANDS:
        assert f"\n  {name} " in out
    assert "\n  bench " in out
    for name in ("video-train",):
        assert (f"\n  {name} " in out) == (read_config(name) is not None)


def test_nothing_to_do_is_a_mistake_that_shows_the_help(capsys):
    status, out, err = run(capsys)
    assert status == 2
    assert out == ""
    assert "usage: resetta" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_a_command_is_explained_in_one_line(command, capsys):
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    lines = out.splitlines()
    text = read_config(command) or ""
    keys = [entry.key for entry in entries(text)] + [*groups(text)]
    assert keys
    for key in keys:
        matching = [line for line in lines if line.strip().startswith(f"{key}=")]
        assert len(matching) == 1, f"{command} --help does not show {key} once"
        assert len(matching[0].split(None, 1)) == 2, f"configs/{command}.yaml does not explain {key}"


def test_every_core_says_how_it_remembers_and_no_class_is_empty():
    classes = {name: core_classes(name) for name in core_names()}
    assert {name for name, of in classes.items() if not of} == set()
    assert {each for of in classes.values() for each in of} == set(CLASSES)
    assert "  gru              gated, recurrent  " in list_text("cores")


def test_every_file_of_a_group_is_explained():
    for group in ("core", "env"):
        for name in choices(group):
            text = read_config(f"{group}/{name}")
            if text is None:
                continue  # an environment without a file of its own
            assert heading(text), f"configs/{group}/{name}.yaml opens with no comment"
            if group == "core":
                for entry in entries(text):
                    assert entry.help or entry.key == "name", f"{entry.key} of {name} is not explained"


def test_help_shows_the_chosen_core_and_the_environments_own_defaults(tmp_path):
    write(tmp_path)
    text = command_help("train", {"core": "big"}, tmp_path)
    assert "core.features=512" in text
    assert "width of it all" in text
    assert "lr=0.5" in text  # easy's own, not train.yaml's
    assert "seed=0" in text


def test_help_comes_from_the_line_or_the_lines_above():
    text = '# heading\n\na: 1  # after\n# above\n# it\nb: "x # y"\nc:\n  d: null\n\ne: [1]\n'
    assert entries(text) == [
        ("a", "1", "after"),
        ("b", '"x # y"', "above it"),
        ("c.d", "null", ""),
        ("e", "[1]", ""),
    ]


def test_list(capsys):
    status, out, _ = run(capsys, "list", "cores")
    assert status == 0
    names = [line.split()[0] for line in out.splitlines()]
    assert "gru" in names
    assert "custom" not in names
    _, out, _ = run(capsys, "list", "envs")
    names = [line.split()[0] for line in out.splitlines()]
    assert {"meta_cartpole_catch", "cartpole", "brax_ant"} <= set(names)
    assert not {"plain", "custom"} & set(names)
    _, out, _ = run(capsys, "list")
    assert "cores:" in out
    assert "envs:" in out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["trian"], "did you mean 'train'"),
        (["list", "cors"], "did you mean 'cores'"),
        (["list", "cores", "envs"], "takes one name"),
        (["train", "core=grru"], "did you mean 'gru'"),
        (["train", "env=cart_pole"], "did you mean 'cartpole'"),
        (["train", "num_env=4"], "did you mean 'num_envs'"),
        (["train", "--seeds=3"], "written seeds=value"),
        (["train", "num_envs=30", "minibatches=4"], "use 28 or 32"),
        (["train", "lr=fast"], "lr='fast' must be a number"),
        (["train", "core=gru,lstm"], "--multirun"),
        (["evaluate"], "run_dir is missing"),
        (["evaluate", "run_dir=/nowhere/at/all"], "does not exist"),
        (["render", f"run_dir={Path(__file__).parent}"], "holds no run"),
        (["report", f"run_dir={__file__}"], "is a file"),
        (["train", f"run_dir={Path(__file__).parent}"], "is not empty and holds no run"),
        (["train", f"run_dir={__file__}/deeper"], "which is a file"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(argv, expected, capsys):
    status, out, err = run(capsys, *argv)
    assert status == 2
    assert out == ""
    assert expected in one_sentence(err)


def test_the_composed_configuration_can_be_shown(capsys):
    status, out, _ = run(capsys, "train", "--cfg", "seeds=3")
    assert status == 0
    assert "\nseeds: 3\n" in out


def test_of_a_benchmark_each_case_is_shown(capsys):
    status, out, _ = run(
        capsys, "bench", "adaptation", "--cfg", "+experiment=meta_cartpole_gru", "lr=1e-3,1e-4"
    )
    assert status == 0
    one, other = (yaml.safe_load(part) for part in out.split("---\n"))
    assert one["env"]["name"] == other["env"]["name"] == "meta_stateless_cartpole"
    assert (one["lr"], other["lr"]) == (1e-3, 1e-4)
    argv = "bench", "comparison", "--cfg", "+experiment=meta_cartpole_gru", "cores=[s5,none]"
    _, out, _ = run(capsys, *argv)
    shown = [yaml.safe_load(part) for part in out.split("---\n")]
    assert [each["core"]["name"] for each in shown] == ["s5", "none"], "not the experiment's own"
    assert {each["num_steps"] for each in shown} == {256}


@pytest.fixture
def worker(monkeypatch):
    """Stands for `resetta.experiments.train`; raises what it is told to."""
    module = types.ModuleType("resetta.experiments.train")
    module.configs = []  # pyright: ignore[reportAttributeAccessIssue]
    module.error = None  # pyright: ignore[reportAttributeAccessIssue]

    def work(config):
        module.configs.append(config)
        if module.error is not None:
            raise module.error

    module.run = work  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "resetta.experiments.train", module)
    return module


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (InputError("x=1 is wrong;\n use 2"), 2, "resetta: x=1 is wrong; use 2\n"),
        (Interrupted(signal.SIGINT, "runs/a"), 130, "train run_dir=runs/a"),
        (Interrupted(signal.SIGTERM, "runs/a"), 143, "train run_dir=runs/a"),
        (KeyboardInterrupt(), 130, "interrupted; a run goes on from its last checkpoint"),
        (TrainingFailed("the loss is not finite"), 1, "resetta: the loss is not finite\n"),
    ],
)
def test_exit_status(error, status, said, worker, capsys, tmp_path):
    worker.error = error
    got, _, err = run(capsys, "train", f"run_dir={tmp_path / 'new'}", "seeds=2")
    assert got == status
    assert said in err
    assert "Traceback" not in err
    assert worker.configs[0]["seeds"] == 2


def test_a_look_at_a_run_that_is_interrupted_promises_no_checkpoint(capsys, monkeypatch):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_main", interrupted)
    status, _, err = run(capsys, "evaluate", "run_dir=runs/a")
    assert (status, err) == (130, "resetta: interrupted; what was kept by now is not done again\n")


def test_the_unexpected_keeps_its_traceback(worker, tmp_path):
    worker.error = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["train", f"run_dir={tmp_path / 'new'}"])


def test_sigterm_outside_the_training_loop_unwinds(worker, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    worker.run = lambda config: os.kill(os.getpid(), signal.SIGTERM)
    assert cli.main(["train", f"run_dir={tmp_path / 'new'}"]) == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_train_goes_on_with_the_run_in_its_directory(worker, capsys, tmp_path):
    from resetta.experiments.compose import compose
    from resetta.experiments.run_dir import RunDir

    path = tmp_path / "run"
    RunDir.open(compose("train", ["core=lstm", "core.features=8", "lr=0.25", f"run_dir={path}"])).close()
    assert run(capsys, "train", f"run_dir={path}")[0] == 0
    config = worker.configs[-1]
    assert (config["core"]["name"], config["core"]["features"], config["lr"]) == ("lstm", 8, 0.25)
    status, _, err = run(capsys, "train", f"run_dir={path}", "core=gru")
    assert status == 2
    assert "core.name is lstm there and gru here" in one_sentence(err)
    assert len(worker.configs) == 1


def test_input_errors_leaves_the_bugs_of_others_alone():
    with pytest.raises(InputError, match="is missing"), input_errors():
        train_config({})
    with pytest.raises(ValueError, match="invalid literal") as caught, input_errors():
        int("x")
    assert not isinstance(caught.value, InputError)


def test_signals_are_held_until_the_loop_looks(capsys):
    with catch_signals() as received:
        assert received() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert received() == signal.SIGTERM
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
    assert "writing a checkpoint" in capsys.readouterr().err
    with catch_signals() as received:
        os.kill(os.getpid(), signal.SIGINT)
        assert received() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m resetta.experiments.cli list envs | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def write(folder: Path) -> None:
    (folder / "core").mkdir()
    (folder / "env").mkdir()
    (folder / "train.yaml").write_text(
        "defaults:\n  - core: big\n  - env: easy\n\nseed: 0  # seed\nlr: 1  # rate\n"
    )
    (folder / "core" / "big.yaml").write_text("# Big.\nname: big\nfeatures: 512  # width of it all\n")
    (folder / "env" / "easy.yaml").write_text("# @package _global_\n# Easy.\nenv:\n  name: easy\nlr: 0.5\n")
