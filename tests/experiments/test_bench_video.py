"""The video benchmark: what it counts, that each part runs, and that its tables can be made again."""

import json

import jax
import jax.numpy as jnp
import pytest

from resetta.experiments.bench.flops import count_flops
from resetta.experiments.bench.turns import in_turns, within_memory
from resetta.experiments.bench.video import run
from resetta.experiments.compose import compose
from resetta.experiments.errors import InputError


def test_products_and_convolutions_are_counted_by_hand():
    a, b = jnp.zeros((3, 4)), jnp.zeros((4, 5))
    assert count_flops(lambda a, b: jnp.tanh(a @ b) + 1, a, b) == 2 * 3 * 4 * 5
    # forward, and one product for each of the two gradients
    assert count_flops(jax.grad(lambda a, b: (a @ b).sum() ** 2, (0, 1)), a, b) == 3 * 2 * 3 * 4 * 5

    def ten_times(a):
        return jax.lax.scan(lambda c, _: (c @ jnp.ones((4, 4)), None), a, length=10)[0]

    assert count_flops(jax.jit(ten_times), a) == 10 * 2 * 3 * 4 * 4
    x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 6))

    def conv(x, kernel, stride=1):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=numbers)

    forward = 2 * (2 * 8 * 8 * 6) * (3 * 3 * 3)
    assert count_flops(conv, x, kernel) == forward
    assert count_flops(jax.grad(lambda x, k: conv(x, k).sum(), (0, 1)), x, kernel) == 3 * forward
    assert count_flops(lambda a: jax.lax.cond(True, lambda: a @ a.T, lambda: a[:, :3]), a) == 2 * 3 * 3 * 4
    with pytest.raises(ValueError, match="how often it runs isn't known"):
        count_flops(lambda a: jax.lax.while_loop(lambda c: c.sum() > 0, lambda c: c @ jnp.ones((4, 4)), a), a)


def test_turns_alternate_and_the_first_is_not_counted():
    said = []
    cases = {name: (lambda name=name: said.append(name)) for name in "ab"}
    taken = in_turns(cases, 3)
    assert "".join(said) == "ab" + "ababab"
    assert [len(taken[name]["wall"]) for name in "ab"] == [3, 3]
    assert len(in_turns(cases, 5, seconds=0.0)["a"]["wall"]) == 2  # the time is over, but two there are


def test_what_the_memory_does_not_hold_is_left_out(capsys):
    def raises(message):
        raise jax.errors.JaxRuntimeError(message)

    cases = {"big": lambda: raises("RESOURCE_EXHAUSTED: Out of memory"), "small": lambda: None}
    assert list(in_turns(cases, 1)) == ["small"]
    assert "big is out of memory" in capsys.readouterr().err
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), within_memory("x"):
        raises("INTERNAL: another reason")


def _config(tmp_path, *overrides):
    config = compose("bench/video", [f"out={tmp_path}", "blocks=2", *overrides], None)
    return config | {"command": "resetta bench video", "label": "", "variant": ""}


def test_training_and_sampling(tmp_path, capsys):
    small = ["training.frames=4", "training.grid=4", "training.features=8", "training.layers=2"]
    small += ["training.batches=[1]", "sampling.near=12", "sampling.far=16", "sampling.frames=2"]
    small += ["sampling.scale=tiny", "sampling.models=[conv_s5,transformer,recompute]"]
    run([_config(tmp_path, "parts=[training,sampling]", "seconds=1e-9", *small)])
    unfinished = json.loads((tmp_path / "video_sampling.json").read_text())
    assert unfinished["left"] == ["transformer", "recompute"]
    assert "not measured yet: transformer, recompute" in capsys.readouterr().err
    run([_config(tmp_path, "parts=[training,sampling]", *small)])
    training = json.loads((tmp_path / "video_training.json").read_text())
    assert [(r["label"], r["precision"]) for r in training["rows"]] == [
        (label, precision)
        for precision in ("float32", "bfloat16")
        for label in ("conv_s5", "conv_lstm, width 8")  # the same one twice
    ]
    assert all(row["flops"] > 0 and row["seconds"]["median"] > 0 for row in training["rows"])
    sampling = json.loads((tmp_path / "video_sampling.json").read_text())
    assert sampling["left"] == []
    assert sampling["rows"][0] == unfinished["rows"][0]  # what was measured already isn't measured again
    by_name = {row["label"]: row for row in sampling["rows"]}
    assert by_name["recompute"]["memory_bytes"] is None
    # 4 layers of 32 pairs of conjugate channels in 8 x 8 places, and the newest frame
    assert by_name["conv_s5"]["memory_bytes"] == 4 * 32 * 64 * 2 * 4 + 64 * 64 * 4
    assert "late / early" in capsys.readouterr().out
    from resetta.experiments.bench import tables

    (tmp_path / "video_sampling.md").unlink()
    tables.run([{"out": str(tmp_path)}])
    assert "A predicted frame" in (tmp_path / "video_sampling.md").read_text()


def test_reading(tmp_path):
    small = ["loader.sizes=[16]", "loader.frames=20", "loader.files=2", "loader.opens=20"]
    run([_config(tmp_path, "parts=[loader]", *small)])
    rows = json.loads((tmp_path / "video_loader.json").read_text())["rows"]
    assert {"pyav", "memmap"} <= {row.get("reader") for row in rows}
    assert rows[-1]["opens"] == 20
    assert rows[-1]["late_bytes"] > 0


def test_memory_over_a_stream_is_constant(tmp_path):
    small = ["streaming.models=[conv_s5]", "streaming.frames=60", "streaming.chunk=3", "streaming.length=25"]
    run([_config(tmp_path, "parts=[streaming]", *small)])
    rows = json.loads((tmp_path / "video_streaming.json").read_text())["rows"]
    assert [row["what"] for row in rows] == ["training", "sampling"]
    for row in rows:
        assert [look["frames"] for look in row["looks"]] == list(range(6, 61, 6))
        assert {look["programs"] for look in row["looks"]} == {1}
        assert len({look["array_bytes"] for look in row["looks"][1:]}) == 1
        assert row["memory_bytes"] > 0
    assert (tmp_path / "video_streaming.png").exists()


def test_mistakes_are_sentences(tmp_path):
    with pytest.raises(InputError, match="parts='trainin' must be one of training, sampling, loader"):
        run([_config(tmp_path, "parts=[trainin]")])
    for options, sentence in (
        (["models=[far]", "options.features=36"], "streaming.models has far, which carries no memory"),
        (["frames=50"], "streaming.frames=50 must be 10 chunks or more"),
    ):
        with pytest.raises(InputError, match=sentence):
            run([_config(tmp_path, "parts=[streaming]", *(f"streaming.{option}" for option in options))])
    with pytest.raises(InputError, match="unknown model 'gpt'; choose from conv_s5"):
        run([_config(tmp_path, "parts=[sampling]", "sampling.models=[gpt]")])
