"""The benchmarks at tiny sizes: what they write and print, that stopped grids go on, and their arithmetic."""

import csv
import json
import math
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from resetta.cores import make_core
from resetta.experiments.bench.comparison_curves import learning_points, read_csv, write_csv
from resetta.experiments.bench.expand import expand
from resetta.experiments.bench.learning import first_reached, lowest_after, reached_text, smoothed
from resetta.experiments.bench.results import short, spread, spread_text
from resetta.experiments.cli import main
from resetta.experiments.errors import InputError, TrainingFailed
from resetta.experiments.listing import choices, entries, read_config

SMALL = ["core.features=8", "network.head_features=8", "num_envs=4", "num_steps=8", "minibatches=2"]
SCHEMA = {
    "benchmark": str,
    "command": str,
    "date": str,
    "device": str,
    "versions": dict,
    "seeds": list,
    "settings": dict,
    "configs": dict,
    "rows": list,
}


@pytest.fixture(autouse=True, scope="module")
def quick_compiler():
    """Half the compile time; nothing here is about speed or exact numbers."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.config.update("jax_enable_compilation_cache", True)  # which a benchmark turns off
    compilation_cache.reset_cache()


def bench(out, name, *overrides):
    """Run a benchmark and give what it wrote, checked for completeness."""
    assert main(["bench", name, *overrides, f"out={out}"]) == 0
    result = json.loads((out / f"{name}.json").read_text())
    for key, kind in SCHEMA.items():
        assert isinstance(result[key], kind), key
        assert result[key], key
    assert result["benchmark"] == name
    assert result["command"].startswith(f"resetta bench {name} ")
    assert {"resetta", "python", "jax", "jaxlib", "flax", "gymnax"} <= result["versions"].keys()
    assert {row["label"] for row in result["rows"]} == result["configs"].keys()
    text = (out / f"{name}.md").read_text()
    assert text.startswith("# ")
    assert result["command"] in text
    for row in result["rows"]:
        assert f"| {row['label']} |" in text
    if (out / f"{name}.png").exists():
        assert f"({name}.png)" in text
    return result


def test_every_benchmark_is_listed_and_explained(capsys):
    assert main(["bench", "--help"]) == 0
    out = capsys.readouterr().out
    names = [*choices("bench")]
    assert {"ppo", "learning", "adaptation", "comparison", "compile", "memory", "sharding", "tables"} <= set(
        names
    )
    for name in names:
        assert f"\n  {name} " in out
        text = read_config(f"bench/{name}") or ""
        for entry in entries(text):
            assert entry.help or entry.key.startswith(("core", "network")), (
                f"{name}: {entry.key} is unexplained"
            )
    assert main(["bench"]) == 2
    capsys.readouterr()
    assert main(["bench", "ppo", "--help"]) == 0
    out = capsys.readouterr().out
    assert "usage: resetta bench ppo" in out
    for key in ("blocks", "block_updates", "num_envs", "out", "env"):
        assert f" {key}=" in out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["pppo"], "did you mean 'ppo'"),
        (["ppo", "core=grru"], "did you mean 'gru'"),
        (["ppo", "+experiment=repeat_previous_s6"], "did you mean 'repeat_previous_s5'"),
        (["ppo", "core=s5,s5"], "'s5' is asked for twice"),
        (["ppo", "block=3"], "did you mean 'blocks'"),
        (["ppo", "blocks=0"], "blocks=0 must be at least 1"),
        (["ppo", "blocks=2,3"], "takes one value"),
        (["ppo", "run_dir=x"], "use out="),
        (["ppo", "num_envs=6"], "use 4 or 8"),
        (["cores", "tokens=100"], "tokens=100 is not a multiple of length 128"),
        (["cores", "core.num_layers=2"], "layers=4 overrules core.num_layers; add layers=null"),
        (["acting", "lanes=[0]"], "ascending whole numbers"),
        (["acting", "core=conv_s5"], "resetta bench video"),
        (["compile", "depths=4"], "must be a list"),
        (["memory", "lengths=[4,2]"], "ascending whole numbers"),
        (["learning", "thresholds=[0.9,0.5]"], "ascending numbers"),
        (["adaptation", "split=test"], "choose from train, validation, held_out"),
        (["adaptation", "eval_tasks=0"], "leaves nothing to measure"),
        (["comparison", "rates=[1,1]"], "names one twice"),
        (["ablation", "only=[mamba_steps]"], "is none of the changes (did you mean 'mamba_step'"),
        (["ablation", "only=[s5]", "base=s6"], "base=s6 is none of the changes; choose from gru, "),
        (["tables", "out=/nowhere/at/all"], "holds no result"),
        (["sharding", "length=100"], "length=100 is not divisible by devices=8; use 96 or 104"),
        (["ppo", "precision=default,highest"], "device and precision=highest must be the same"),
        (["ppo", "mesh.data=64", "num_envs=256"], "needs 64 devices and there are"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(argv, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert expected in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err
    assert not [*tmp_path.iterdir()]


def test_comma_lists_become_labelled_cases():
    cases = expand("bench/ppo", ["core=s5,gru", "num_envs=8,16", "lr=0.1"])
    assert [case["label"] for case in cases] == [
        "s5 num_envs=8",
        "s5 num_envs=16",
        "gru num_envs=8",
        "gru num_envs=16",
    ]
    assert [case["num_envs"] for case in cases] == [8, 16, 8, 16]
    assert {case["variant"] for case in cases} == {"num_envs=8", "num_envs=16"}
    assert {case["command"] for case in cases} == {"resetta bench ppo core=s5,gru num_envs=8,16 lr=0.1"}
    assert {case["env"]["name"] for case in cases} == {"repeat_previous_easy"}


def test_experiments_are_cases_and_the_command_line_wins_over_them():
    names = "repeat_previous_s5,repeat_previous_gru"
    cases = expand("bench/ppo", [f"+experiment={names}", "num_envs=64,512", "epochs=3"])
    assert [case["label"] for case in cases] == [
        "s5 num_envs=64",
        "s5 num_envs=512",
        "gru num_envs=64",
        "gru num_envs=512",
    ]
    assert {case["env"]["name"] for case in cases} == {"repeat_previous_hard"}
    assert [case["core"]["num_layers"] for case in cases] == [4, 4, 1, 1]
    assert {case["epochs"] for case in cases} == {3}
    (case,) = expand("bench/ppo", ["experiment=repeat_previous_s5", "core=none"])
    assert (case["label"], case["num_steps"]) == ("none", 1024)


def test_without_a_core_the_benchmarks_own_are_compared():
    assert [case["label"] for case in expand("bench/ppo", [])] == ["s5", "gru"]
    assert [case["label"] for case in expand("bench/ppo", ["cores=[none,lstm]"])] == ["none", "lstm"]


def test_a_parameter_count_is_near_the_published_one():
    from resetta.experiments.bench.cases import read_cases
    from resetta.experiments.bench.ppo import PPOSettings
    from resetta.experiments.bench.timing import count_parameters
    from resetta.experiments.build import build_agent

    _, cases = read_cases(expand("bench/ppo", []), PPOSettings)
    counts = {case.core: count_parameters(build_agent(case.train)) for case in cases}
    assert counts["s5"] == pytest.approx(93_000, rel=0.03)
    assert counts["gru"] == pytest.approx(counts["s5"], rel=0.03)


def test_ppo(tmp_path, capsys):
    compared = ["core=none", "precision=default,bfloat16"]
    result = bench(tmp_path, "ppo", *compared, *SMALL, "blocks=2", "block_updates=1")
    assert [row["label"] for row in result["rows"]] == ["none precision=default", "none precision=bfloat16"]
    assert result["ceilings"]["bfloat16_flops_per_second"] > 0
    for row in result["rows"]:
        assert row["steps_per_update"] == 4 * 8
        fraction = row["floor_seconds"] / row["seconds_per_update"]["median"]
        assert 0 < row["floor_fraction"] == pytest.approx(fraction)
        assert row["bytes_per_update"] > 4 * row["parameters"]
        for name in ("steps_per_cpu_second", "steps_per_second", "seconds_per_update"):
            measured = row[name]
            assert len(measured["values"]) == 2
            assert 0 < measured["low"] <= measured["median"] <= measured["high"]
        assert row["compile_seconds"] == pytest.approx(row["trace_seconds"] + row["xla_seconds"], rel=1e-3)
        assert row["parameters"] > 0
    assert "steps per CPU-second" in capsys.readouterr().out
    (tmp_path / "ppo.md").unlink()
    assert main(["bench", "tables", f"out={tmp_path}"]) == 0
    assert "| none precision=bfloat16 |" in (tmp_path / "ppo.md").read_text()
    assert "![" in (tmp_path / "ppo.md").read_text()


def test_acting_is_compared_with_moving_parameters_and_states(tmp_path):
    small = ["core.features=8", "core.num_layers=1", "lanes=[3]", "steps=2", "blocks=2"]
    result = bench(tmp_path, "acting", "core=gru", *small)
    (row,) = result["rows"]
    assert row["state_bytes"] == 3 * 8 * 4
    assert row["moved_bytes"] == row["parameter_bytes"] + (2 + 2) * 3 * 8 * 4
    floor = row["moved_bytes"] / result["ceilings"]["bytes_per_second"]
    assert row["floor_seconds"] == pytest.approx(floor, rel=1e-3)
    assert row["over_floor"] == pytest.approx(row["seconds"]["median"] / floor, rel=1e-3)


def test_cores_go_on_from_the_rows_that_are_kept(tmp_path, monkeypatch, capsys):
    from resetta.experiments.bench import cores
    from resetta.experiments.bench.ceilings import Ceilings

    monkeypatch.setattr(cores, "measure_ceilings", lambda _: Ceilings(1e12, 1e12))
    small = ["cores=[gru]", "layers=1", "parameters=6000", "tokens=16", "lanes=2", "steps=2"]
    first = bench(tmp_path, "cores", *small, "lengths=[4,8]", "turns=2")
    assert [(row["length"], row["batch"]) for row in first["rows"]] == [(4, 4), (8, 2)]
    for row in first["rows"]:
        assert (row["features"], row["parameters"]) == (32, 3 * 32 * (32 + 32 + 1) + 32)
        assert row["state_bytes"] == 32 * 4
        assert row["training"]["tokens_per_second"]["median"] > 0
        assert row["training"]["peak_bytes"] > 0
        assert 0 < row["training"]["floor_seconds"] < row["training"]["seconds"][0]
        assert row["training"]["moved_bytes"] > row["parameters"] * 4
        assert row["training"]["flops"] >= 3 * 2 * 16 * 6 * 32 * 32
    assert first["rows"][0]["acting"] == first["rows"][1]["acting"], "measured once, as T is nothing to it"
    measured = []

    def counted(question, own, acted, ceilings):
        measured.append(question.length)
        return {**first["rows"][0], "length": question.length}

    monkeypatch.setattr(cores, "_row", counted)
    assert bench(tmp_path, "cores", *small, "lengths=[4,8,16]", "turns=2")["rows"][:2] == first["rows"]
    assert measured == [16]
    assert bench(tmp_path, "cores", *small, "lengths=[4]", "turns=3")["rows"]
    assert measured == [16, 4], "another question is not answered by what was kept"
    late = bench(tmp_path, "cores", *small, "lengths=[2,4]", "turns=3", "seconds=0")
    assert (measured, late["left"]) == ([16, 4, 2], []), "what is kept is not left out"
    late = bench(tmp_path, "cores", *small, "lengths=[4,8]", "turns=3", "seconds=0")
    assert (measured, late["left"]) == ([16, 4, 2], ["gru T=8"])
    assert "out of memory" not in capsys.readouterr().out


def test_a_core_that_the_memory_does_not_hold_is_a_row_that_says_so():
    import jax.errors

    from resetta.experiments.bench import cores, timing

    def too_large():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    found, _ = cores._compiled(SimpleNamespace(lower=too_large), timing.now())
    assert found == {"out_of_memory": True}
    assert cores._timed(too_large, 2) is None
    row = {"label": "full", "length": 8, "batch": 1, "features": 32, "parameters": 9, "state_bytes": 4}
    result = {"rows": [row | {"training": found, "acting": found}]}
    result["settings"] = {"tokens": 8, "turns": 1, "lanes": 1, "steps": 1}
    assert cores.table(result).rows[0][5::4][:2] == ["out of memory", "out of memory"]


def test_attention_is_also_measured_over_the_whole_sequence():
    from resetta.experiments.bench.core_cases import read_core_cases
    from resetta.experiments.bench.cores import CoresSettings, _questions

    small = ["cores=[attention,none]", "parameters=20000", "tokens=64", "lengths=[8,16]"]
    questions = _questions(*read_core_cases(expand("bench/cores", small), CoresSettings))
    assert [(q.label, q.length, q.options.get("window")) for q in questions] == [
        ("attention", 8, 128),
        ("attention, full", 8, 8),
        ("none", 8, None),
        ("attention", 16, 128),
        ("attention, full", 16, 16),
        ("none", 16, None),
    ]


def test_a_core_without_a_number_of_layers_is_measured_beside_those_that_have_one():
    from resetta.experiments.bench.core_cases import read_core_cases
    from resetta.experiments.bench.cores import CoresSettings, _questions

    small = ["core=mamba,stack", "parameters=20000", "tokens=64", "lengths=[8]", "layers=3"]
    questions = _questions(*read_core_cases(expand("bench/cores", small), CoresSettings))
    assert [(q.label, q.options.get("num_layers")) for q in questions] == [("mamba", 3), ("stack", None)]


def test_sharding_makes_the_devices_it_needs_and_they_agree(tmp_path):
    small = ["parts=[scan]", "devices=4", "length=256", "features=2", "repeats=1"]
    (row,) = bench(tmp_path, "sharding", *small)["rows"]
    assert max(row["value_error"], row["gradient_error"]) < 1e-4
    assert row["shared_bytes"] < row["alone_bytes"] / 2


def test_compile(tmp_path):
    small = [*SMALL, "epochs=1", "minibatches=1", "repeats=1"]
    result = bench(tmp_path, "compile", "core=gru", "depths=[1,2]", *small)
    assert [(row["label"], row["depth"]) for row in result["rows"]] == [("gru", 1), ("gru", 2)]
    assert result["rows"][0]["parameters"] < result["rows"][1]["parameters"]
    first, second = (row["xla_seconds"]["median"] for row in result["rows"])
    assert result["growth"]["gru"]["xla_seconds"] == pytest.approx(second / first, rel=1e-3)
    assert result["growth"]["gru"]["depths"] == [1, 2]
    assert (tmp_path / "compile.png").stat().st_size > 1000


def test_memory_grows_with_the_rollout(tmp_path):
    small = [*SMALL, "epochs=1", "minibatches=1"]
    result = bench(tmp_path, "memory", "core=gru", "lengths=[8,64]", *small)
    short_one, long_one = result["rows"]
    assert (short_one["num_steps"], long_one["num_steps"]) == (8, 64)
    assert short_one["parameters"] == long_one["parameters"]
    assert long_one["temporary_bytes"] > 2 * short_one["temporary_bytes"]
    for row in result["rows"]:
        parts = row["temporary_bytes"] + row["argument_bytes"] + row["output_bytes"] - row["donated_bytes"]
        assert row["peak_bytes"] == parts
        assert row["argument_bytes"] > 3 * 4 * row["parameters"]  # parameters and Adam's two moments
    assert (tmp_path / "memory.png").stat().st_size > 1000


def test_learning_counts_steps_and_is_kept(tmp_path, no_training, monkeypatch, capsys):
    small = [*SMALL, "core.num_layers=1", "seeds=2", "total_steps=960", "thresholds=[-9,9]", "num_steps=60"]
    result = bench(tmp_path, "learning", "core=gru", *small)
    (row,) = result["rows"]
    assert row["env_steps"] == 960
    assert row["reached"]["9"] == [None, None]
    assert all(steps in (720, 960) for steps in row["reached"]["-9"])
    assert row["lowest_after"] == [None, None]
    assert len(row["final"]) == 2
    assert len(result["curves"]["gru"]["env_steps"]) == 4
    assert (tmp_path / "learning.png").stat().st_size > 1000
    assert "never" in (tmp_path / "learning.md").read_text()
    no_training()
    again = bench(tmp_path, "learning", "core=gru", *small)
    assert again["rows"] == result["rows"]

    def diverge(raw):
        assert raw["core"]["name"] == "lstm"  # the other one is there already
        raise TrainingFailed("the loss is not finite")

    monkeypatch.setattr("resetta.experiments.train.run", diverge)
    assert main(["bench", "learning", "core=lstm,gru", *small, f"out={tmp_path}"]) == 1
    assert "lstm could not be trained" in capsys.readouterr().err
    result = json.loads((tmp_path / "learning.json").read_text())
    assert [row["label"] for row in result["rows"]] == ["gru"]  # measured all the same
    assert result["failures"] == {"lstm": "the loss is not finite"}


@pytest.fixture
def no_training(monkeypatch):
    """From its call on, nothing may be trained or evaluated."""

    def forbid():
        def fail(*_, **__):
            raise AssertionError("what was there already was done again")

        monkeypatch.setattr("resetta.experiments.train.run", fail)
        monkeypatch.setattr("resetta.experiments.bench.adaptation.evaluate_agent", fail)

    return forbid


def test_adaptation_compares_cores_and_is_kept(tmp_path, capsys, no_training):
    small = [*SMALL, "seeds=1", "trials=2", "eval_tasks=5", "num_steps=30"]
    result = bench(tmp_path, "adaptation", "core=gru,none", *small, "total_steps=120")
    assert result["settings"]["split"] == "validation"
    gru, none = result["rows"]
    assert (gru["label"], none["label"]) == ("gru", "none")
    for row in result["rows"]:
        assert (row["trained_trials"], row["trials"], row["tasks"]) == (2, 4, 5)
        for name in ("iqm", "low", "high", "mean", "mean_low", "mean_high"):
            assert len(row["curve"][name]) == 4
        assert np.all(np.array(row["curve"]["low"]) <= row["curve"]["high"])
        trained, beyond = row["totals"]
        assert (trained["first"], trained["last"], beyond["first"], beyond["last"]) == (1, 2, 3, 4)
        assert trained["value"] == pytest.approx(sum(row["curve"]["mean"][:2]), abs=1e-4)
        gain = row["last_minus_first"]
        assert gain["value"] == pytest.approx(row["curve"]["mean"][1] - row["curve"]["mean"][0], abs=1e-4)
        assert gain["low"] <= gain["value"] <= gain["high"]
    assert gru["random"] == none["random"]
    assert len(gru["random"]) == 4
    assert 0 <= gru["over_none"]["low"] <= gru["over_none"]["value"] <= gru["over_none"]["high"] <= 1
    assert none["over_none"] is None
    assert (tmp_path / "adaptation.png").stat().st_size > 1000
    assert (tmp_path / "adaptation" / "gru" / "bench_validation" / "eval.json").exists()
    assert not (tmp_path / "adaptation" / "gru" / "eval.json").exists()
    assert "beats none" in capsys.readouterr().out
    before = (tmp_path / "adaptation" / "gru" / "metrics.jsonl").read_bytes()
    no_training()
    again = bench(tmp_path, "adaptation", "core=gru,none", *small, "total_steps=120")
    assert again["rows"] == result["rows"]
    assert (tmp_path / "adaptation" / "gru" / "metrics.jsonl").read_bytes() == before
    kept = tmp_path / "adaptation" / "gru" / "bench_validation" / "eval.npz"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:100])  # damaged, it is played again
    with pytest.raises(AssertionError, match="done again"):
        bench(tmp_path, "adaptation", "core=gru,none", *small, "total_steps=120")
    kept.write_bytes(whole)
    # An ablation finds what other processes have trained, each its part, and draws it up.
    for core in ("gru", "none"):
        shutil.copytree(tmp_path / "adaptation" / core, tmp_path / "ablation" / core)
    changes = ["+changes.none='core=none gamma=0.9'", "only=[gru,none]", "base=gru", "total_steps=120"]
    base, row = bench(tmp_path, "ablation", *small, *changes)["rows"]
    assert (base["curve"], base["over_base"]) == (gru["curve"], {})
    assert {*row["over_base"]} == {"1", "2", "4"}  # what the base was trained on, and twice that
    for trial, found in row["over_base"].items():
        k = int(trial) - 1
        gap = none["curve"]["mean"][k] - gru["curve"]["mean"][k]
        assert found["value"] == pytest.approx(gap, abs=1e-5)
        assert found["low"] <= found["value"] <= found["high"]
    assert "core=none gamma=0.9" in (tmp_path / "ablation.md").read_text()
    compare_cores(tmp_path, [*small, "total_steps=120"], gru, none)
    argv = ["bench", "adaptation", "core=gru,none", *small, "total_steps=120", f"out={tmp_path}"]
    assert main([*argv, "gamma=0.5"]) == 2  # another configuration does not take over the directory
    assert "choose another out" in capsys.readouterr().err


def compare_cores(out, small, gru, none):
    """The same agents at equal parameters; one of them also as it might have come out at half the rate."""
    for core in ("gru", "none"):
        for rate in ("1", "0.5"):
            shutil.copytree(out / "adaptation" / core, out / "comparison" / f"{core}_rate={rate}")
            config = out / "comparison" / f"{core}_rate={rate}" / "config.yaml"
            if rate == "0.5":
                text = config.read_text().replace("lr: 0.006", "lr: 0.003")
                config.write_text(text.replace("lr_final: 0.0006", "lr_final: 0.0003"))
    better = out / "comparison" / "none_rate=0.5" / "bench_validation" / "eval.npz"
    with np.load(better) as stored:
        arrays = dict(stored)
    np.savez(better, **arrays | {"validation_returns": arrays["validation_returns"] + 100})
    asked = [*small, "cores=[gru,none]", "rates=[1,0.5]", f"parameters={gru['parameters']}", "points=3"]
    first, second = bench(out, "comparison", *asked)["rows"]
    assert (first["label"], second["label"]) == ("gru rate=1", "none rate=0.5")
    assert (first["width"], second["width"]) == (8, 8)
    assert second["tuning"]["0.5"] == pytest.approx(second["tuning"]["1"] + 100)
    assert (first["over_first"], second["over_first"]["value"]) == (None, 1.0)
    with (out / "comparison_learning.csv").open() as file:
        points = list(csv.DictReader(file))
    rows = [json.loads(x) for x in (out / "adaptation/gru/metrics.jsonl").read_text().splitlines()]
    mine = [point for point in points if point["core"] == "gru"]
    assert int(mine[-1]["step"]) == rows[-1]["env_steps"]
    assert {*mine[0]} == {"core", "seed", "step", "seconds", "return"}
    # Whose agents are gone needs none of them: all that is asked of them was evaluated.
    for run in (out / "comparison").iterdir():
        shutil.rmtree(run / "checkpoints")
    again = bench(out, "comparison", *asked)
    assert again["rows"] == [first, second]
    assert not list((out / "comparison").glob("*/checkpoints"))
    curve = out / "comparison_adaptation.csv"
    table, value = out / "comparison.md", f"{none['curve']['iqm'][3] + 100:.3f}"
    assert value in table.read_text()
    # Tables are drawn again from the CSV, and say so where it is missing.
    curve.write_text(curve.read_text().replace(f"none,4,{float(value):.6g}", "none,4,7.125"))
    assert main(["bench", "tables", f"out={out}"]) == 0
    assert "7.125" in table.read_text()
    curve.unlink()
    assert main(["bench", "tables", f"out={out}"]) == 2


def test_learning_points_leave_out_what_is_not_known():
    returns = [[1.0, None], [3.0, None], [None, None], [5.0, 2.0]]
    rows = [
        {"env_steps": 10 * k, "wall_time": 1.0 * k, "episode_return": r} for k, r in enumerate(returns, 1)
    ]
    points = learning_points("gru", rows, 7, 2)
    assert [(p["seed"], p["step"], p["seconds"], p["return"]) for p in points] == [
        (7, 20, 2.0, 2.0),
        (7, 40, 4.0, 5.0),
        (8, 40, 4.0, 2.0),
    ]


def test_every_change_of_the_ablation_can_be_made():
    cases = expand("bench/ablation", [])
    assert [case["label"] for case in cases] == [*cases[0]["changes"]]
    for case in cases:
        case["core"].pop("target", None)
        make_core(**case["core"])
    configs = [{k: v for k, v in c.items() if k not in ("label", "variant", "only")} for c in cases]
    assert all(a != b for k, a in enumerate(configs) for b in configs[:k])


def metrics(*returns):
    return [{"env_steps": 100 * (k + 1), "episode_return": list(each)} for k, each in enumerate(returns)]


def test_a_mean_needs_its_window_and_skips_updates_without_a_trial():
    steps, means = smoothed(metrics([0.0], [0.3], [None], [0.6], [0.9]), 3)
    np.testing.assert_array_equal(steps, [100, 200, 300, 400, 500])
    np.testing.assert_allclose(means[:, 0], [math.nan, math.nan, math.nan, 0.3, 0.6])
    _, one = smoothed(metrics([0.1], [None], [0.5]), 1)
    np.testing.assert_allclose(one[:, 0], [0.1, 0.1, 0.5])
    _, two = smoothed(metrics([0.0, 1.0], [0.2, None], [0.4, 0.0]), 2)
    np.testing.assert_allclose(two, [[math.nan, math.nan], [0.1, math.nan], [0.3, 0.5]])


def test_a_threshold_is_crossed_once_never_or_lost_again():
    rising = np.array([math.nan, 0.2, 0.5, 0.97, 0.99, 1.0])
    assert [first_reached(rising, t) for t in (0.2, 0.5, 0.6, 0.98)] == [1, 2, 3, 4]
    assert lowest_after(rising, 0.98) == 1.0
    assert lowest_after(rising, 1.0) is None  # reached at the very end
    never = np.array([math.nan, 0.2, 0.5])
    assert first_reached(never, 0.98) is None
    assert lowest_after(never, 0.98) is None
    collapse = np.array([0.1, 0.99, 0.7, 0.4, 0.98, 0.95])
    assert first_reached(collapse, 0.98) == 1
    assert lowest_after(collapse, 0.98) == 0.4
    assert first_reached(np.full(3, math.nan), 0.0) is None


def test_steps_of_several_seeds_as_text():
    assert reached_text([200_000, 220_000, 203_000]) == "203 k (200 k–220 k)"
    assert reached_text([200_000]) == "200 k"
    assert reached_text([None, 200_000, 220_000]) == "220 k (200 k–never), 2 of 3"
    assert reached_text([None, None, 200_000]) == "never (200 k–never), 1 of 3"
    assert reached_text([None, None]) == "never"


def test_spreads_and_numbers_as_text():
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0, "values": [3.0, 1.0, 2.0]}
    assert spread_text(spread([22_000, 23_400, 21_000])) == "22 k (21 k–23.4 k)"
    assert spread_text(spread([5.0])) == "5"
    assert [short(x) for x in (0.01234, 999, 1234, 2.5e6)] == ["0.0123", "999", "1.23 k", "2.5 M"]


def test_expand_raises_for_what_hydra_does_not_accept():
    with pytest.raises(InputError, match="unknown key"):
        expand("bench/ppo", ["blok=1"])


def test_the_scan_is_measured_by_engine_and_its_bytes_are_counted(tmp_path, capsys):
    sizes = ["shapes=[[4,3,16],[2,1,2]]", "engines=[sequential,paper]", "blocks=2", "calls=2"]
    result = bench(tmp_path, "scan", *sizes)
    assert len(result["rows"]) == 2 * 2 * 2  # shapes, precisions, engines
    row, rounded = (r for r in result["rows"] if r["label"] == "sequential" and r["shape"] == [4, 3, 16])
    # u and h forward; u, h, the cotangent, h again and the gradient of u: complex numbers of 8 bytes each
    assert (row["forward_bytes"], row["both_bytes"]) == (2 * 4 * 3 * 16 * 8, 5 * 4 * 3 * 16 * 8)
    assert rounded["both_bytes"] == row["both_bytes"] / 2
    assert len(row["both_seconds"]["values"]) == 2
    (papers,) = {r["label"] for r in result["rows"]} - {"sequential"}
    assert papers == "paper"
    assert (tmp_path / "scan.png").stat().st_size > 1000
    for wrong, said in {
        "shapes=[[1,2,3]]": "[1, 2, 3] has one step",
        "shapes=[[8,2]]": "must be a list of [T, B, P]",
        "engines=[fast]": "engines=",
        "calls=0": "calls=0",
    }.items():
        capsys.readouterr()
        assert main(["bench", "scan", wrong, f"out={tmp_path}"]) == 2
        assert said in capsys.readouterr().err


def test_comparison_without_a_finished_trial_writes_empty_curves(tmp_path):
    """A run may be too short for any trial to end: its learning curve has no points."""
    write_csv(tmp_path / "none.csv", [])
    assert read_csv(tmp_path / "none.csv") == []
