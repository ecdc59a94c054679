"""Whole runs, small: train, kill, resume, evaluate, render, and every way to be told no."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.experiments.build import build_agent
from resetta.experiments.cli import main
from resetta.experiments.compose import compose
from resetta.experiments.config import train_config
from resetta.experiments.errors import TrainingFailed
from resetta.experiments.evaluate import summary_text
from resetta.experiments.given_agents import load_initial
from resetta.experiments.restore import restore_run

SMALL = [
    "core.features=8",
    "network.head_features=8",
    "num_envs=8",
    "num_steps=16",
    "trials=2",
    "lr_final=null",
    "eval_tasks=4",
    "checkpoint_every=2",
    "tensorboard=false",
]
UPDATE = 8 * 16
COMMAND = [sys.executable, "-m", "resetta.experiments.cli"]


def rows(directory):
    """metrics.jsonl without what may vary from run to run."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if not k.startswith(("wall_", "perf_"))} for x in lines]


def final_state(directory):
    *_, state = restore_run({"run_dir": str(directory)})
    leaves = jax.tree.leaves(state)
    return [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of 8 updates that nothing stopped."""
    directory = tmp_path_factory.mktemp("runs") / "straight"
    assert main(["train", *SMALL, f"total_steps={8 * UPDATE}", f"run_dir={directory}"]) == 0
    return directory


def test_a_run_holds_what_was_promised(straight):
    got = rows(straight)
    assert [row["update"] for row in got] == list(range(1, 9))
    assert [row["env_steps"] for row in got] == [UPDATE * n for n in range(1, 9)]
    assert all(len(row["episode_return"]) == 1 for row in got)
    assert "NaN" not in (straight / "metrics.jsonl").read_text()
    assert max(row["first_ratio_error"][0] for row in got) <= 1e-5
    summary = json.loads((straight / "eval.json").read_text())
    assert summary["trained_trials"] == 2
    assert summary["train_seconds"] > 0
    assert summary["trained_on"] == [summary["device"]]
    with np.load(straight / "eval.npz", allow_pickle=False) as arrays:
        for split in ("train", "held_out"):
            assert arrays[f"{split}_returns"].shape == (1, 4, 4), (
                "[seed, task, trial], twice the trained trials"
            )
            assert arrays[f"{split}_normalized"].shape == (1, 4, 4)
            assert arrays[f"{split}_task_ids"].shape == (4,)
            np.testing.assert_allclose(
                summary["splits"][split]["mean"], arrays[f"{split}_returns"].mean((0, 1)), rtol=1e-5
            )
        assert not set(arrays["train_task_ids"]) & set(arrays["held_out_task_ids"])
    assert (straight / "report.html").stat().st_size > 10_000
    assert {p.suffix for p in (straight / "media").iterdir()} >= {".mp4", ".gif", ".png"}


def test_the_same_seed_twice_and_a_resumed_run_are_bit_identical(straight, tmp_path):
    """Half the run, and then the rest in another go: the same lines, the same bits."""
    halved = tmp_path / "halved"
    common = ["train", *SMALL, f"run_dir={halved}"]
    assert main([*common, f"total_steps={4 * UPDATE}", "eval_tasks=0"]) == 0
    assert rows(halved) == rows(straight)[:4]
    with (halved / "metrics.jsonl").open("a") as file:
        file.write('{"update": 5, "env_ste')  # torn by a kill
    assert main([*common, f"total_steps={8 * UPDATE}", "eval_tasks=0"]) == 0
    assert rows(halved) == rows(straight)
    for a, b in zip(final_state(halved), final_state(straight), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_finished_run_appends_nothing(straight, capsys):
    before = {p: p.read_bytes() for p in straight.rglob("*") if p.is_file() and p.name != ".lock"}
    assert main(["train", f"run_dir={straight}"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (straight / "metrics.jsonl").read_bytes() == before[straight / "metrics.jsonl"]
    assert (straight / "eval.npz").read_bytes() == before[straight / "eval.npz"]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_writes_a_checkpoint_and_resuming_ends_as_if_nothing_had_happened(
    straight, tmp_path, signum, status
):
    stopped = tmp_path / "stopped"
    # an endless run, stopped wherever the signal finds it
    command = [*COMMAND, "train", *SMALL, "checkpoint_every=1000000", f"run_dir={stopped}", "eval_tasks=0"]
    process = subprocess.Popen(
        [*command, "total_steps=1000000000"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    metrics = stopped / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and len(metrics.read_bytes().splitlines()) >= 3):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    assert "go on with: resetta train" in errors
    assert "Traceback" not in errors
    done = len(rows(stopped))
    got = rows(stopped)
    assert got[: min(done, 8)] == rows(straight)[: min(done, 8)]
    more = (done + 3) * UPDATE
    reference = tmp_path / "reference"
    assert main(["train", *SMALL, "eval_tasks=0", f"total_steps={more}", f"run_dir={reference}"]) == 0
    # the endless run's length is lowered by hand: extending is allowed, shortening is another run
    config = (stopped / "config.yaml").read_text()
    (stopped / "config.yaml").write_text(config.replace("total_steps: 1000000000", f"total_steps: {more}"))
    assert main(["train", f"run_dir={stopped}"]) == 0
    assert rows(stopped) == rows(reference)
    for a, b in zip(final_state(stopped), final_state(reference), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_without_environments_goes_on_with_the_learner_in_new_ones(tmp_path, capsys):
    from resetta.experiments.build import begin_again_seeds, seed_keys
    from resetta.experiments.restore import restore_run

    run = tmp_path / "run"
    options = ["checkpoint_environments=false", "seeds=2", "stagger=true", "num_steps=8", "eval_tasks=0"]
    command = ["train", *SMALL, *options, f"run_dir={run}"]
    assert main([*command, f"total_steps={UPDATE}"]) == 0
    _, config, agent, held = restore_run({"run_dir": str(run)})
    again = begin_again_seeds(agent, held)
    for name in ("params", "opt_state", "update", "observations", "returns", "bad_updates"):
        jax.tree.map(np.testing.assert_array_equal, getattr(held, name), getattr(again, name))
    assert again.update.tolist() == [2, 2]
    fresh = jax.eval_shape(jax.vmap(agent.init), seed_keys(config))
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, fresh)
    for name in ("env_state", "inputs", "carry", "discounted"):
        assert getattr(held, name) is None, "nothing of it is in the checkpoint"
    assert again.inputs.reset.all()
    assert again.env_state[0].base.time.tolist() == [[0, 8, 16, 0, 8, 16, 0, 8]] * 2, "a trial is 25 steps"
    keys = jax.random.key_data(jnp.concatenate([held.key, again.key])).tolist()
    assert len({tuple(key) for key in keys}) == 4, "nor do the new ones repeat what the old ones met"

    assert main([*command, f"total_steps={2 * UPDATE}"]) == 0
    assert [row["update"] for row in rows(run)] == [1, 2, 3, 4]
    *_, state = restore_run({"run_dir": str(run)})
    steps = 4 * config.epochs * config.minibatches
    counts = [x for x in jax.tree.leaves(state.opt_state) if x.dtype == jnp.int32]
    assert counts, "the schedule of the learning rate counts them"
    assert all(count.tolist() == [steps, steps] for count in counts)
    said = refused(capsys, [*command, f"total_steps={2 * UPDATE}", "checkpoint_environments=true"])
    assert "checkpoint_environments is False there and True here" in said


def test_seeds_are_separate_in_every_file(tmp_path):
    run = tmp_path / "seeds"
    assert (
        main(["train", *SMALL, "seeds=3", f"total_steps={2 * UPDATE}", f"run_dir={run}", "render=false"]) == 0
    )
    assert all(len(row["episode_return"]) == 3 and len(set(row["loss"])) == 3 for row in rows(run))
    with np.load(run / "eval.npz", allow_pickle=False) as arrays:
        assert arrays["held_out_returns"].shape == (3, 4, 4)


def test_evaluate_and_render_again(straight, tmp_path, capsys):
    out = tmp_path / "elsewhere"
    out.mkdir()
    arguments = ["trials=6", "tasks=3", "splits=[held_out]", "greedy=true", f"out={out}"]
    assert main(["evaluate", f"run_dir={straight}", *arguments, f"baselines={{again: {straight}}}"]) == 0
    assert "held-out" in capsys.readouterr().out
    with np.load(out / "eval.npz", allow_pickle=False) as arrays:
        assert arrays["held_out_returns"].shape == (1, 3, 6)
    summary = json.loads((out / "eval.json").read_text())
    assert summary["baselines"]["again"]["held_out"]["mean"]
    assert summary["greedy"] is True
    film = straight / "media" / "all_train.gif"
    assert main(["render", f"run_dir={straight}", "show=all", "split=train", "tasks=1", "size=64"]) == 0
    assert film.stat().st_size > 1000


def test_evaluation_repeats_itself(straight, tmp_path):
    """The same checkpoint and evaluation seed give the same returns as training's own evaluation."""
    out = tmp_path / "again"
    out.mkdir()
    assert main(["evaluate", f"run_dir={straight}", f"out={out}"]) == 0
    with np.load(out / "eval.npz") as again, np.load(straight / "eval.npz") as first:
        assert set(again) == set(first)
        for name in first:
            np.testing.assert_array_equal(again[name], first[name])


def test_an_exported_agent_plays_as_its_run_does(straight, tmp_path, capsys):
    assert main(["export", f"run_dir={straight}", "name=kept", f"out={tmp_path}"]) == 0
    kept = tmp_path / "kept"
    assert sorted(path.name for path in kept.iterdir()) == ["agent.npz", "card.json", "config.yaml"]
    card = json.loads((kept / "card.json").read_text())
    command = (
        "resetta train env=meta_cartpole_catch core=gru total_steps=1024 num_envs=8 num_steps=16 trials=2"
    )
    assert set(command.split()) < set(card["command"].split())
    assert "core.features=8" in card["command"]
    assert (card["bytes"], card["update"]) == ((kept / "agent.npz").stat().st_size, 8)
    assert main(["evaluate", f"run_dir={kept}"]) == 0
    with np.load(kept / "eval.npz") as again, np.load(straight / "eval.npz") as first:
        for name in first:
            np.testing.assert_array_equal(again[name], first[name])
    assert "not empty" in refused(capsys, ["export", f"run_dir={straight}", "name=kept", f"out={tmp_path}"])
    assert "without a path" in refused(capsys, ["export", f"run_dir={straight}", "name=../kept"])
    assert "is of update 8, not 6" in refused(capsys, ["export", f"run_dir={straight}", "name=old", "step=6"])


def test_levels_of_continuous_actions_are_evaluated_filmed_looked_into_and_kept(tmp_path):
    run, level = tmp_path / "run", "network.action_levels=3"
    env = ["env=point_mass", "env.projection=orthogonal", "env.action_width=3", "trials=1"]
    assert main(["train", *SMALL, *env, level, f"total_steps={UPDATE}", f"run_dir={run}"]) == 0
    assert any(path.suffix == ".mp4" for path in (run / "media").iterdir())
    assert main(["bench", "recall", f"run_dir={run}", "tasks=16", "decisions=4", "device=cpu"]) == 0
    assert main(["export", f"run_dir={run}", "name=kept", f"out={tmp_path}"]) == 0
    card = json.loads((tmp_path / "kept" / "card.json").read_text())
    assert level in card["command"].split()
    assert main(["evaluate", f"run_dir={tmp_path / 'kept'}", "device=cpu"]) == 0
    with np.load(tmp_path / "kept" / "eval.npz") as again, np.load(run / "eval.npz") as first:
        np.testing.assert_array_equal(again["held_out_returns"], first["held_out_returns"])


def test_a_nan_is_caught_counted_and_ends_with_the_last_good_checkpoint(tmp_path, monkeypatch, capsys):
    (tmp_path / "bad_envs.py").write_text(
        "import jax.numpy as jnp\n"
        "from gymnax.environments.classic_control.cartpole import CartPole\n"
        "class Poison(CartPole):\n"
        "    '''From the 40th step of a trial on, rewards are not numbers.'''\n"
        "    def is_terminated(self, state, params):\n"
        "        return jnp.zeros((), bool)\n"
        "    def step_env(self, key, state, action, params):\n"
        "        obs, state, reward, terminated, info = super().step_env(key, state, action, params)\n"
        "        return obs, state, jnp.where(state.time > 40, jnp.nan, reward), terminated, info\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    small = [x for x in SMALL if not x.startswith(("trials", "checkpoint_every"))]
    command = [
        "train",
        *small,
        "env=bad_envs:Poison",
        "total_steps=100000",
        "max_bad_updates=3",
        "checkpoint_every=1",
    ]
    assert main([*command, f"run_dir={run}"]) == 1
    message = capsys.readouterr().err
    assert "not finite in 3 updates in a row" in message
    assert "Traceback" not in message
    assert "last good checkpoint is update 2" in message
    got = rows(run)
    assert [row["bad_in_a_row"][0] for row in got] == [0, 0, 1, 2, 3], (
        "steps 33 to 48 hold the first bad reward"
    )
    assert all(np.isfinite(x).all() for x in final_state(run)), "the checkpoint is a healthy one"


def refused(capsys, arguments):
    capsys.readouterr()
    status = main(arguments)
    captured = capsys.readouterr()
    assert status == 2, captured.err
    lines = [line for line in captured.err.splitlines() if line.startswith("resetta: ")]
    assert len(lines) == 1
    assert "Traceback" not in captured.err
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["core=grue"], "did you mean 'gru'"),
        (["env=cartpool"], "cartpole"),
        (["core.featres=3"], "core.features"),
        (["core=attention", "core.features=30"], "features=30"),
        (["num_envs=100", "minibatches=8"], "use 96 or 104"),
        (["total_stepss=3"], "total_steps"),
        (["lr=fast"], "lr='fast' must be a number"),
        (["lr=-1"], "lr=-1"),
        (["network.action_levels=3"], "use network.action_levels=null"),
        (["core=conv_s5"], "spatial and needs pixels"),
        (["env=minatar_breakout", "env.projection=orthogonal"], "pixels"),
        (["env.lanes.cartpole_catch.gravitee=3"], "gravity"),
        (["core=nowhere:Core"], "nowhere"),
        (["env=nowhere:Env"], "nowhere"),
        (["device=tpu"], "device=tpu"),
        (["trials=0"], "trials=0"),
        (["mesh.data=0"], "mesh.data=0 must be at least 1"),
        (["mesh.data=6"], "minibatches of 16, which mesh.data=6 does not divide; use mesh.data=4 or 8"),
        (["mesh.sequence=3"], "num_steps is 256, which mesh.sequence=3 does not divide"),
        (["mesh.data=16"], "needs 16 devices and there are 1"),
        (["distributed=true"], "set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID"),
    ],
    ids=lambda x: x[-1] if isinstance(x, list) else "",
)
def test_mistakes_get_one_sentence_and_write_nothing(tmp_path, capsys, monkeypatch, arguments, says):
    run = tmp_path / "run"
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    assert says in refused(capsys, ["train", *arguments, f"run_dir={run}"])
    assert not run.exists()


def test_a_directory_of_another_run_is_left_alone(straight, capsys):
    before = (straight / "config.yaml").read_bytes()
    assert "gamma" in refused(capsys, ["train", f"run_dir={straight}", "gamma=0.5"])
    assert "already holds a run" in refused(capsys, ["train", f"run_dir={straight}", "resume=never"])
    assert (straight / "config.yaml").read_bytes() == before


def copy_of(straight, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(straight, copy)
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace(str(straight), str(copy)))
    return copy


def test_a_truncated_checkpoint(straight, tmp_path, capsys):
    copy = copy_of(straight, tmp_path)
    newest = max((copy / "checkpoints").iterdir(), key=lambda p: int(p.name) if p.name.isdigit() else -1)
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    metrics = (copy / "metrics.jsonl").read_bytes()
    for command in ("train", "evaluate"):
        message = refused(capsys, [command, f"run_dir={copy}"])
        assert "is damaged, or of another agent or version" in message
    assert (copy / "metrics.jsonl").read_bytes() == metrics


def test_a_foreign_checkpoint(straight, tmp_path, capsys):
    copy = copy_of(straight, tmp_path)
    config = (copy / "config.yaml").read_text()
    assert "features: 8" in config
    (copy / "config.yaml").write_text(config.replace("  features: 8", "  features: 12"))
    assert "another agent" in refused(capsys, ["evaluate", f"run_dir={copy}"])


def test_a_missing_step(straight, capsys):
    assert "it holds 6, 8" in refused(capsys, ["evaluate", f"run_dir={straight}", "step=5"])


def test_not_a_run(tmp_path, capsys):
    for command in ("evaluate", "render", "report"):
        assert "does not exist" in refused(capsys, [command, f"run_dir={tmp_path / 'nothing'}"])
        assert "holds no run" in refused(capsys, [command, f"run_dir={tmp_path}"])


def test_training_failed_is_not_a_mistake_in_the_input():
    assert not issubclass(TrainingFailed, ValueError)


def test_columns_stand_apart_however_wide_their_numbers():
    part = {
        "mean": [-1234.5],
        "mean_low": [-1300.25],
        "mean_high": [-1200.125],
        "random": [3],
        "totals": [],
    }
    summary = {
        "tasks": 4,
        "seeds": 1,
        "trained_trials": 1,
        "trials": 1,
        "splits": {"train": part, "held_out": part},
    }
    _, names, numbers = summary_text(summary).splitlines()[:3]
    assert names.split() == ["trial", "train", "held-out", "random"]
    assert numbers.split() == ["1", *["-1234.500", "[-1300.250,", "-1200.125]"] * 2, "3.000"]
    assert numbers.index("-1234") == names.index("train"), "a column's name stands over its numbers"


TAUGHT = [*SMALL, "env.permute_actions=false", "render=false", f"total_steps={2 * UPDATE}"]

PLAIN = ["core=none", "core.features=8", "env.projection=none", "normalize_observations=true"]


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A run that can teach, evaluated."""
    run_dir = tmp_path_factory.mktemp("teacher") / "known"
    assert main(["train", *TAUGHT, *PLAIN, f"run_dir={run_dir}"]) == 0
    return run_dir


def test_a_run_with_a_teacher_and_without_it_once_it_is_trained(known, tmp_path, capsys):
    """The teacher is another run; who goes on needs it, who only looks does not."""
    teacher, learner = tmp_path / "teacher", tmp_path / "learner"
    shutil.copytree(known, teacher)
    taught = [*TAUGHT, f"run_dir={learner}", f"teacher.run={teacher}", f"teacher.steps={3 * UPDATE}"]
    assert main(["train", *taught]) == 0
    assert all(row["teacher_loss"][0] > 0 for row in rows(learner))
    teacher.rename(tmp_path / "gone")
    assert main(["evaluate", f"run_dir={learner}", "tasks=4"]) == 0
    capsys.readouterr()
    assert main(["train", f"run_dir={learner}", f"total_steps={3 * UPDATE}"]) == 2
    assert "teacher.run cannot be used" in capsys.readouterr().err
    assert main(["train", *TAUGHT, f"run_dir={tmp_path / 'other'}", f"teacher.run={learner}"]) == 2
    assert "a teacher has no memory; train it with core=none" in capsys.readouterr().err
    other = f"run_dir={tmp_path / 'other'}"
    assert main(["train", *TAUGHT, other, f"teacher.run={tmp_path / 'gone'}", "env.flicker=0.5"]) == 2
    assert "env.flicker=0.5 hides it; set it to 0" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_teacher_that_comes_along(known, tmp_path, monkeypatch, capsys):
    """What `export` wrote teaches as the run does that it was written from."""
    shelf = tmp_path / "shelf"
    assert main(["export", f"run_dir={known}", "name=known", f"out={shelf}"]) == 0
    monkeypatch.setattr("resetta.experiments.pretrained_agents.SHIPPED", shelf)
    told = {}
    for option in (f"teacher.run={known}", "teacher.pretrained=known"):
        learner = tmp_path / option.partition("=")[0]
        assert main(["train", *TAUGHT, f"run_dir={learner}", option]) == 0
        told[option] = [row["teacher_loss"] for row in rows(learner)]
    first, second = told.values()
    assert first == second
    capsys.readouterr()
    other = [*TAUGHT, f"run_dir={tmp_path / 'other'}"]
    assert main(["train", *other, "teacher.pretrained=knwon"]) == 2
    message = "teacher.pretrained cannot be used: unknown pretrained 'knwon' (did you mean 'known'?)"
    assert message in capsys.readouterr().err
    assert main(["train", *other, f"teacher.run={known}", "teacher.pretrained=known"]) == 2
    assert "are two agents; give one" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def learnt(run_dir):
    *_, state = restore_run({"run_dir": str(run_dir)})
    return jax.tree.map(np.asarray, (state.params, state.observations))


def test_a_run_that_starts_from_another_ones_agent(known, tmp_path, monkeypatch, capsys):
    """At a rate of nothing every seed ends with that agent's weights; to go on, it needs it no more."""
    source, run, shelf = tmp_path / "source", tmp_path / "run", tmp_path / "shelf"
    shutil.copytree(known, source)
    still = [*PLAIN, "lr=1e-30", "seeds=2"]
    assert main(["train", *TAUGHT, *still, f"run_dir={run}", f"init.run={source}"]) == 0
    (params, statistics), (theirs, first) = learnt(run), learnt(source)
    for here, there in zip(jax.tree.leaves(params), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(here, np.concatenate([there, there]))
    np.testing.assert_allclose(statistics.count, np.repeat(first.count, 2) + 2 * UPDATE)
    source.rename(tmp_path / "gone")
    assert main(["train", f"run_dir={run}", f"total_steps={3 * UPDATE}"]) == 0
    assert main(["export", f"run_dir={known}", "name=known", f"out={shelf}"]) == 0
    monkeypatch.setattr("resetta.experiments.pretrained_agents.SHIPPED", shelf)
    config = train_config(compose("train", [*TAUGHT, *still, "init.pretrained=known"]))
    given = load_initial(config, build_agent(config))
    assert given is not None
    for here, there in zip(jax.tree.leaves(given), jax.tree.leaves((first, theirs)), strict=True):
        np.testing.assert_array_equal(here, there)
    capsys.readouterr()
    other = ["train", *TAUGHT, f"run_dir={tmp_path / 'other'}"]
    assert main([*other, f"init.run={source}"]) == 2
    assert "init.run cannot be used" in capsys.readouterr().err
    assert main([*other, f"init.run={known}"]) == 2
    assert "holds another agent than this run's (['params']" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [("teacher.weight=-1", "teacher.weight=-1"), ("teacher.steps=0", "or null for always")],
)
def test_what_no_teacher_can_be_told(option, message, tmp_path, capsys):
    assert main(["train", *SMALL, f"run_dir={tmp_path / 'run'}", option]) == 2
    assert message in capsys.readouterr().err
