import sys
from pathlib import Path

import pytest

from resetta.experiments.compose import compose, compose_each, explicit_keys, multirun
from resetta.experiments.config import train_config
from resetta.experiments.errors import InputError
from resetta.experiments.listing import choices

TRAIN = """
defaults:
  - _self_
  - core: small
  - env: easy

lr: 5.0e-4       # rate
steps: 10        # how long
physics: {}      # open
network:
  encoder: dense # dense or not
  width: 3       # width
needed: 1
run_dir: null
"""
FILES = {
    "train.yaml": TRAIN,
    "evaluate.yaml": "run_dir: ???  # the run to look at\nsplits: [a, b]\n",
    "core/small.yaml": "# Small.\nname: small\nfeatures: 4\n",
    "core/big.yaml": "# Big.\nname: big\nfeatures: 512\nwindow: 9\n",
    "core/custom.yaml": "name: ${.target}\ntarget: ???\nfeatures: 64\n",
    "env/plain.yaml": "# @package _global_\nenv:\n  name: ???\n  lanes: ???\n  scale: 1.0\n",
    "env/easy.yaml": "# @package _global_\ndefaults: [plain]\nenv: {name: easy, lanes: {x: {}}}\nlr: 0.1\n",
    "experiment/both.yaml": (
        "# @package _global_\ndefaults:\n  - override /core: big\n  - override /env: cartpole\nsteps: 77\n"
    ),
}


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "configs"


def test_groups_and_values(configs):
    config = compose("train", ["core=big", "core.features=8", "lr=1e-3", "network.encoder=mlp"], configs)
    assert config["core"] == {"name": "big", "features": 8, "window": 9}
    assert config["lr"] == 1e-3  # the command line wins over the environment, which wins over train.yaml
    assert config["network"] == {"encoder": "mlp", "width": 3}
    assert config["env"]["name"] == "easy"
    assert compose("train", [], configs)["lr"] == 0.1
    assert "hydra" not in config


def test_users_parts_and_registered_environments_need_no_file(configs):
    config = compose("train", ["core=my.code:Core", "core.hidden=3", "env=my.envs:Maze"], configs)
    assert config["core"] == {"name": "my.code:Core", "target": "my.code:Core", "features": 64, "hidden": 3}
    assert config["env"]["lanes"] == {"my.envs:Maze": {}}
    config = compose("train", ["env=cartpole", "env.lanes.cartpole.gravity=12"], configs)
    assert config["env"] == {"name": "cartpole", "lanes": {"cartpole": {"gravity": 12}}, "scale": 1.0}


@pytest.mark.parametrize("prefix", ["", "+"])
def test_an_experiment_chooses_and_sets(configs, prefix):
    config = compose("train", [f"{prefix}experiment=both", "core.features=1"], configs)
    assert (config["core"]["name"], config["env"]["name"], config["steps"]) == ("big", "cartpole", 77)
    assert config["core"]["features"] == 1


def test_open_mappings_take_new_keys(configs):
    for override in ("physics.gravity=[5,15]", "physics={gravity: [5,15]}", "+physics.gravity=[5,15]"):
        assert compose("train", [override], configs)["physics"] == {"gravity": [5, 15]}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["core=bigg"], "unknown core 'bigg' (did you mean 'big'?); choose from big, small"),
        (["core=3"], "core=3 must name one core"),
        (["env=cartpoel"], "did you mean 'cartpole'"),
        (["experiment=bth"], "did you mean 'both'"),
        (["+experiment=bth"], "did you mean 'both'"),
        (["lrr=1"], "unknown key 'lrr' (did you mean 'lr'"),
        (["features=1"], "did you mean 'core.features'"),
        (["core.feature=1"], "did you mean 'core.features'"),
        (["core.window=3"], "unknown key 'core.window'"),  # big's, not small's
        (["network=3"], "network.encoder"),
        (["env.lanes={y: {}}"], "env.lanes has no 'y', it has x"),
        (["steps"], "write steps=value"),
        (["--steps=3"], "written steps=value"),
        (["lr=[1"], "cannot be read"),
        (["lr=${nope}"], "nope"),
        (["lr=1,2"], "add --multirun"),
        (["lr=range(1,3)"], "add --multirun"),
        (["core=custom"], "core.target is missing"),
        (["hydra/launcher=nope"], "unknown hydra/launcher 'nope'"),
    ],
)
def test_mistakes_are_one_sentence(configs, overrides, expected):
    with pytest.raises(InputError) as caught:
        compose("train", overrides, configs)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_says_what_it_is_for(configs):
    with pytest.raises(InputError, match=r"run_dir is missing; give run_dir=\.\.\. \(the run to look at\)"):
        compose("evaluate", [], configs)


def test_comma_lists_expand(configs):
    each = compose_each("train", ["core=small,big", "steps=1,2", "lr=3"], configs)
    assert [(c["core"]["name"], c["steps"], c["lr"]) for c in each] == [
        ("small", 1, 3),
        ("small", 2, 3),
        ("big", 1, 3),
        ("big", 2, 3),
    ]


def test_explicit_keys():
    assert explicit_keys(["core=gru", "core.features=3", "++env.lanes.x={}", "hydra.verbose=true"]) == {
        "core",
        "core.features",
        "env.lanes.x",
        "hydra.verbose",
    }
    assert explicit_keys(["experiment=x"]) is None


def test_multirun_runs_every_combination_in_its_own_directory(configs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, done = list(sys.argv), []
    multirun(
        "train", ["core=big,my.code:Core", "physics.g=1,2"], lambda name, c: done.append((name, c)), configs
    )
    assert [(c["core"]["name"], c["physics"]["g"]) for _, c in done] == [
        ("big", 1),
        ("big", 2),
        ("my.code:Core", 1),
        ("my.code:Core", 2),
    ]
    directories = [Path(c["run_dir"]) for _, c in done]
    assert [d.name for d in directories] == ["0", "1", "2", "3"]
    assert {d.parent for d in directories} == {directories[0].parent}
    assert (tmp_path / "multirun") in directories[0].parents
    assert sys.argv == before


def test_multirun_keeps_a_run_dir_that_is_given(configs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = []
    multirun(
        "train",
        ["core=big,small", "run_dir=out/${core.name}"],
        lambda _, c: done.append(c["run_dir"]),
        configs,
    )
    assert done == ["out/big", "out/small"]


def test_multirun_finds_the_last_mistake_before_the_first_job(configs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = []
    with pytest.raises(InputError, match="bigg"):
        multirun("train", ["core=big,bigg"], lambda *job: done.append(job), configs)
    assert done == []
    assert not (tmp_path / "multirun").exists()


def test_a_failing_job_fails_the_multirun(configs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def work(_, config):
        raise InputError(f"steps={config['steps']} will not do")

    with pytest.raises(InputError, match="steps=1 will not do"):
        multirun("train", ["steps=1,2"], work, configs)


@pytest.mark.parametrize("core", choices("core"))
def test_our_own_cores_compose(core):
    assert train_config(compose("train", [f"core={core}"])).core["name"] == core


@pytest.mark.parametrize(
    "env", [*list(choices("env"))[::7], "meta_cartpole_catch", "meta_dm_control", "my.module:Env"]
)
def test_our_own_environments_compose(env):
    config = train_config(compose("train", [f"env={env}"]))
    assert config.env.lanes
    assert config.env.name == env.rpartition(":")[2]


def test_any_lanes_can_be_held_out():
    def env(*overrides):
        return train_config(compose("train", ["env=meta_brax", *overrides])).env

    by_default = env()
    assert (len(by_default.met), list(by_default.unmet)) == (6, ["brax_hopper"])
    assert list(env("env.hold_out=brax_ant").unmet) == ["brax_ant"]
    two = env("env.hold_out=[brax_ant,brax_reacher]", "num_envs=40", "minibatches=4")
    assert (len(two.met), list(two.unmet)) == (5, ["brax_ant", "brax_reacher"])
    assert (len(env("env.hold_out=[]", "num_envs=56").met), env("env.hold_out=[]", "num_envs=56").unmet) == (
        7,
        {},
    )
    for override, message in {
        "env.hold_out=brax_humanoid": "names 'brax_humanoid', which is none of env.lanes; it has brax_",
        "env.hold_out=3": "env.hold_out=3 must be a word or a list",
        "num_envs=700": "not divisible by the 6 base environments of meta_brax; use",
    }.items():
        with pytest.raises(ValueError, match=message):
            env(override, "minibatches=1")


@pytest.mark.parametrize("core", ["s5", "gru"])
def test_one_body_is_held_out_by_one_option_and_another_left_out_with_its_scale(core):
    def env(*overrides):
        return train_config(compose("train", [f"+experiment=meta_brax_{core}", *overrides])).env

    assert (len(env().met), list(env().unmet)) == (6, ["brax_hopper"])
    held = env("env.hold_out=brax_reacher")
    assert list(held.unmet) == ["brax_reacher"]
    assert held.scales["brax_reacher"] == 0.3, "one that is held out is scaled as ever"
    out = env("env.leave_out=brax_reacher", "num_envs=9000")
    assert "brax_reacher" not in {**out.met, **out.unmet, **out.scales}
    assert (len(out.met), list(out.unmet)) == (5, ["brax_hopper"])
    both = env("env.leave_out=[brax_hopper,brax_ant]", "num_envs=9000")
    assert (len(both.met), both.unmet) == (5, {}), "held out, but left out of that too"
    with pytest.raises(
        ValueError, match="leave_out names 'brax_humanoid', which is no lane; it may name brax_"
    ):
        env("env.leave_out=brax_humanoid")
    every = ",".join(env().met)
    with pytest.raises(ValueError, match=r"env.leave_out=\[.*\] leaves nothing to train on"):
        env(f"env.leave_out=[{every}]")


def test_a_lane_that_is_left_out_takes_its_scale_with_it():
    from resetta.experiments.build import build_env

    words = ["env=meta_control", "env.reward_scales={acrobot: 0.5, cartpole: 0.25}", "num_envs=12"]
    config = train_config(compose("train", [*words, "minibatches=1", "env.leave_out=acrobot"]))
    lanes = build_env(config.env, 12, 1, "train").lanes
    scales = {lane.family.base.name: lane.reward_scale for lane in lanes}
    assert scales == {
        name: 0.25 if name == "cartpole" else config.env.reward_scale for name in config.env.met
    }


@pytest.mark.parametrize("core", ["s5", "gru"])
def test_the_published_split_of_continuous_control(core):
    config = train_config(compose("train", [f"+experiment=meta_dm_control_{core}"]))
    met, unmet = config.env.met, config.env.unmet
    assert (config.core["name"], config.trials, len(met), len(unmet)) == (core, 1, 6, 4)
    assert not met.keys() & unmet.keys()
    assert (met | unmet).keys() <= set(choices("env"))
    assert config.total_steps == 2_000_000_000
