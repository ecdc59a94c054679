"""ConvS5 against ConvLSTM: the time of a training step on long clips, and the arithmetic rate behind it."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ...cores import make_core
from ...cores.ssm import one_of
from ..logs import phase
from .flops import count_flops
from .results import Table, short, spread, spread_text
from .timing import now
from .turns import in_turns, within_memory

if TYPE_CHECKING:
    from .video import VideoSettings

_MADE = {"temporary_bytes": 1e9, "compile_seconds": 1.0}
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def units(own: "VideoSettings") -> dict[str, Callable[[], list[dict[str, Any]]]]:
    """Batches and precisions, each to be measured alone: a row per core, in turns."""
    for precision in own.training["precisions"]:
        one_of("training.precisions", precision, tuple(_DTYPES))
    return {
        f"batch {batch}, {precision}": functools.partial(_measure, own, batch, precision)
        for batch in own.training["batches"]
        for precision in own.training["precisions"]
    }


def _measure(own: "VideoSettings", batch: int, precision: str) -> list[dict[str, Any]]:
    """A row per core: loss and gradients of parameters and inputs."""
    o, what = own.training, f"batch {batch}, {precision}"
    steps, rows = {}, []
    for label, core in _cores(o).items():
        facts: dict[str, Any] = {"label": label, "batch": batch, "precision": precision}
        rows.append(facts)
        with phase(f"{label}, {what}"), within_memory(f"{what}: {label}"):
            steps[label] = _step(core, o, batch, _DTYPES[precision], own.seed, facts)
    taken = in_turns(steps, own.blocks, f"{what}: ", own.turn_seconds)
    for row in rows:
        if row["label"] in taken:
            seconds = taken[row["label"]]["wall"]
            row["seconds"] = spread(seconds)
            row["tflops"] = spread([row["flops"] / s / 1e12 for s in seconds])
    return rows


def _cores(o: Mapping[str, Any]) -> dict[str, Any]:
    """ConvS5, and ConvLSTM of the same width and of about as many parameters."""
    shared = {"num_layers": o["layers"], "remat": o["remat"]}
    conv_s5 = make_core("conv_s5", features=o["features"], state_size=o["features"], **shared)
    wanted = _parameters(conv_s5, o["features"])
    lstm = functools.partial(make_core, "conv_lstm", **shared)
    widths = range(8, 2 * o["features"] + 1, 8)
    width = min(widths, key=lambda d: abs(_parameters(lstm(features=d), d) - wanted))
    return {
        "conv_s5": conv_s5,
        f"conv_lstm, width {width}": lstm(features=width),
        f"conv_lstm, width {o['features']}": lstm(features=o["features"]),
    }


def _inputs(core: Any, o: Mapping[str, Any], batch: int, dtype: Any) -> tuple[Any, Any, Any]:
    grid = (o["grid"], o["grid"])
    x = jax.ShapeDtypeStruct((o["frames"], batch, *grid, core.features), dtype)
    return core.initial_carry(batch, grid), x, jax.ShapeDtypeStruct((o["frames"], batch), jnp.bool_)


def _parameters(core: Any, features: int) -> int:
    tiny = {"frames": 1, "grid": 4}
    shapes = jax.eval_shape(core.init, jax.random.key(0), *_inputs(core, tiny, 1, jnp.float32))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _step(
    core: Any, o: Mapping[str, Any], batch: int, dtype: Any, seed: int, facts: dict[str, Any]
) -> Callable[[], Any]:
    """The compiled step; its parameters, operations, planned memory and compile time become `facts`."""
    carry, x, _ = _inputs(core, o, batch, dtype)
    key = jax.random.key(seed)
    one = jnp.zeros((1, batch, *x.shape[2:]), dtype)
    params = jax.jit(core.init)(key, carry, one, jnp.zeros((1, batch), bool))
    frames = jax.random.normal(key, x.shape, dtype)
    reset = jnp.zeros(x.shape[:2], bool).at[0].set(True)

    def loss(params: Any, frames: Any) -> Any:
        y = core.apply(params, carry, frames, reset)[1]
        return jnp.mean(jnp.square(y.astype(jnp.float32)))

    gradients = jax.value_and_grad(loss, argnums=(0, 1))
    facts["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(params))
    facts["flops"] = count_flops(gradients, params, frames)
    start = now()
    compiled = jax.jit(gradients).lower(params, frames).compile()
    facts["compile_seconds"] = (now() - start).wall
    facts["temporary_bytes"] = int(getattr(compiled.memory_analysis(), "temp_size_in_bytes", 0))
    return lambda: compiled(params, frames)


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    o = result["settings"]["training"]
    header = [
        "core",
        "batch",
        "precision",
        "parameters",
        "ms per step",
        "against conv_s5",
        "TFLOP/s",
        "memory, GB",
        "compile, s",
    ]
    rows = []
    for row in result["rows"]:
        (base,) = (
            r
            for r in result["rows"]
            if (r["label"], r["batch"], r["precision"]) == ("conv_s5", row["batch"], row["precision"])
        )
        measured = ["out of memory", "", ""]
        if "seconds" in row:
            times = {k: row["seconds"][k] * 1e3 for k in ("median", "low", "high")}
            ratio = ""
            if "seconds" in base:
                ratio = f"{row['seconds']['median'] / base['seconds']['median']:.2f}x"
            measured = [spread_text(times), ratio, short(row["tflops"]["median"])]
        facts = [str(row["batch"]), row["precision"], short(row["parameters"])]
        made = [f"{row[name] / unit:.1f}" for name, unit in _MADE.items() if name in row]
        rows.append([row["label"], *facts, *measured, *(made or ["", ""])])
    remat = ", layers recomputed in the backward pass" if o["remat"] else ""
    notes = [
        f"loss and all gradients over {o['frames']} frames of {o['grid']} x {o['grid']} features, "
        f"{o['layers']} layers{remat}; compilation not counted",
        "ConvLSTM's input convolution is applied to all frames at once, outside its scan",
        "TFLOP/s count products and convolutions, the recomputed ones too; memory: XLA's plan of temporaries",
        "float32 products are as exact as XLA's default for the device: TF32 on recent NVIDIA cards",
        f"median (lowest–highest) of at most {result['settings']['blocks']} turns, in turns with one another",
    ]
    return Table("Training on long clips: ConvS5 against ConvLSTM", header, rows, notes)
