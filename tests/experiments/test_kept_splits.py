"""An evaluation that is killed goes on with the splits that are missing, and takes no other's result."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from resetta.experiments import evaluate
from resetta.experiments.cli import main
from resetta.experiments.evaluate import evaluate_agent
from resetta.experiments.kept_splits import KeptSplits, digest
from resetta.experiments.restore import restore_run

SMALL = [
    "core.features=8",
    "network.head_features=8",
    "num_envs=8",
    "num_steps=16",
    "trials=2",
    "eval_tasks=4",
]
SMALL += ["tensorboard=false", "render=false", "checkpoint_every=1", "total_steps=256", "lr_final=null"]


class Killed(BaseException):
    """What no code survives."""


@pytest.fixture(autouse=True, scope="module")
def quick_compiler():
    """Half the compile time; what is compared was compiled alike."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two updates, evaluated without a stop, and its evaluation."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    assert main(["train", *SMALL, f"run_dir={run}"]) == 0
    return run


@pytest.fixture
def played(monkeypatch):
    """The first task id of every split that is played; whoever plays the `played.deadly`-th is killed."""

    class Played(list):
        deadly = 99

    calls, play = Played(), evaluate._play

    def counted(env, player, state, ids):
        if len(calls) + 1 >= calls.deadly:
            raise Killed
        calls.append(int(ids[0]))
        return play(env, player, state, ids)

    monkeypatch.setattr(evaluate, "_play", counted)
    return calls


def killed(played, argv):
    played.clear()
    played.deadly = 2
    with pytest.raises(Killed):
        main(argv)
    played.clear()
    played.deadly = 99


def same_arrays(one, other):
    with np.load(one / "eval.npz", allow_pickle=False) as a, np.load(other / "eval.npz") as b:
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_killed_evaluation_goes_on_and_ends_as_if_nothing_had_happened(trained, tmp_path, played, capsys):
    argv = ["evaluate", f"run_dir={trained}", f"out={tmp_path}"]
    killed(played, argv)
    assert [path.name for path in tmp_path.iterdir()] == ["eval.train.npz"]
    assert main(argv) == 0
    said = capsys.readouterr().err
    assert "train: evaluated already" in said
    assert "held-out: evaluated already" not in said
    with np.load(tmp_path / "eval.npz", allow_pickle=False) as arrays:
        assert played == [arrays["held_out_task_ids"][0]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eval.json", "eval.npz"]
    same_arrays(tmp_path, trained)
    here, there = (json.loads((folder / "eval.json").read_text()) for folder in (tmp_path, trained))
    here.pop("baselines")
    assert here == there | {"date": here["date"]}


def test_a_training_killed_in_its_evaluation_goes_on_there(trained, tmp_path, played, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for file in run.glob("eval.*"):
        file.unlink()
    argv = ["train", f"run_dir={run}"]
    killed(played, argv)
    assert [path.name for path in run.glob("eval.*")] == ["eval.train.npz"]
    assert main(argv) == 0
    assert "train: evaluated already" in capsys.readouterr().err
    assert len(played) == 1
    assert sorted(path.name for path in run.glob("eval.*")) == ["eval.json", "eval.npz"]
    same_arrays(run, trained)


@pytest.fixture
def asks(trained, tmp_path, monkeypatch):
    """A function that evaluates, with changes of what is asked, and gives the splits that it had to play."""
    _, config, agent, state = restore_run({"run_dir": str(trained)})
    calls = []

    def play(env, player, state, ids):
        calls.append(ids)
        shape = len(ids), env.trials
        return {
            "returns": np.zeros((1, *shape)),
            "normalized": np.zeros((1, *shape)),
            "task_ids": ids,
            "envs": np.repeat("some", len(ids)),
            "random": np.zeros(shape),
        }

    monkeypatch.setattr(evaluate, "_player", lambda *_: None)
    monkeypatch.setattr(evaluate, "_play", play)

    def ask(state=state, config=config, splits=("train",), **changes):
        calls.clear()
        evaluate_agent(agent, config, state, splits=splits, folder=tmp_path, **changes)
        return len(calls)

    ask.state, ask.config = state, config
    return ask


@pytest.mark.parametrize("changes", [{"tasks": 3}, {"trials": 3}, {"seed": 1}, {"greedy": True}])
def test_another_question_is_played(asks, changes):
    assert asks() == 1
    assert asks(**changes) == 1
    assert asks(**changes) == 0
    assert asks() == 1


def test_another_agent_or_configuration_is_played(asks, monkeypatch):
    assert (asks(), asks()) == (1, 0)
    params = jax.tree.map(lambda leaf: leaf.at[0].add(1e-6), asks.state.params)
    assert asks(asks.state.replace(params=params)) == 1
    assert asks(asks.state.replace(update=asks.state.update + 1)) == 1
    seen = jax.tree.map(lambda leaf: leaf + 1, asks.state.observations)
    assert asks(asks.state.replace(observations=seen)) == 1
    env = dataclasses.replace(asks.config.env, permute_actions=not asks.config.env.permute_actions)
    permuted = dataclasses.replace(asks.config, env=env)
    assert asks(config=permuted) == 1
    assert asks(config=dataclasses.replace(permuted, device="cpu", tensorboard=True)) == 0, "says nothing"
    monkeypatch.setattr(evaluate, "device_name", lambda: "another machine")
    assert asks(config=permuted) == 1, "its name would stand over what was measured elsewhere"
    assert asks(config=permuted, splits=["validation", "train"]) == 1, "each split is kept by itself"


def test_a_damaged_file_counts_for_nothing(tmp_path):
    kept = KeptSplits(tmp_path, {"tasks": 3, "rate": 0.1 + 0.2})
    assert kept.get("train") is None
    arrays = {"returns": np.array([0.1, np.nan], np.float32), "envs": np.array(["a", "bc"])}
    kept.keep("train", arrays)
    found = kept.get("train")
    assert found is not None
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert KeptSplits(tmp_path, {"tasks": 3, "rate": 0.3}).get("train") is None
    file = tmp_path / "eval.train.npz"
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole.replace(b"asked", b"other")):
        file.write_bytes(damaged)
        assert kept.get("train") is None


def test_a_digest_knows_names_shapes_kinds_and_bits():
    ones = np.ones(4, np.float32)
    trees = [{"a": ones}, {"b": ones}, {"a": ones.reshape(2, 2)}, {"a": ones.view(np.int32)}]
    trees += [{"a": np.nextafter(ones, 2)}, {"a": ones, "b": ones}]
    assert len({digest(tree) for tree in trees}) == len(trees)
    assert digest({"a": ones}) == digest({"a": jax.numpy.ones(4)})
