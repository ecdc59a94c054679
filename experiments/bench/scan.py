"""resetta bench scan: the engines of the resettable scan, against each other and against a copy."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ...cores import scan
from ..build import settings
from ..config import DEVICES, check_choice
from ..logs import phase
from ..run_dir import write_json
from .cases import read_one
from .ceilings import measure_ceilings
from .figures import bars
from .results import Table, describe, save, short, spread, spread_text
from .timing import prepare
from .turns import in_turns

if TYPE_CHECKING:
    from ..plots import Figure

_LARGE = ((1024, 512, 128), (1024, 64, 128), (128, 2048, 128), (16384, 4, 128))
_SMALL = ((256, 16, 64), (1024, 4, 64))
# Real products and sums of one complex state: g·h + u forward, and as many for the gradients of each factor.
_FLOPS = {"forward": 8, "both": 24}
# Complex numbers read or written at a step: u and h forward, then the cotangent, h and the gradient of u.
_MOVED = {"forward": 2, "both": 5}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """configs/bench/scan.yaml says what each key means."""

    shapes: list[Any] | None
    engines: list[str] | None
    precisions: list[str]
    out: str
    device: str
    seed: int
    blocks: int
    calls: int
    reset_rate: float
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)
        for engine in self.engines or ():
            check_choice("engines", engine, scan.ENGINES)
        for precision in self.precisions:
            check_choice("precisions", precision, ("float32", "bfloat16"))
        for shape in self.shapes or ():
            if not (isinstance(shape, list) and len(shape) == 3 and all(_whole(n) for n in shape)):
                raise ValueError(
                    f"shapes={shape!r} must be a list of [T, B, P], whole numbers, T of 2 or more"
                )
            if shape[0] < 2:
                raise ValueError(f"shapes: {shape} has one step, which is no scan; use T of 2 or more")
        for name in ("blocks", "calls"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.reset_rate <= 1:
            raise ValueError(f"reset_rate={self.reset_rate} must be between 0 and 1")


def _whole(n: Any) -> bool:
    return isinstance(n, int) and n > 0


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Measure every engine at every shape and write `<out>/scan.json`."""
    own = read_one(configs, ScanSettings)
    with settings(own):
        prepare()
        on_cpu = jax.default_backend() == "cpu"
        ceiling = None  # on a CPU the caches hold the arrays, and CPU-seconds know no bandwidth
        if not on_cpu:
            with phase("measuring what the machine can do"):
                ceiling = measure_ceilings().bytes_per_second
        rows: list[dict[str, Any]] = []
        result: dict[str, Any] = {}
        for shape in own.shapes or (_SMALL if on_cpu else _LARGE):
            for precision in own.precisions:
                rows += _measure(own, tuple(shape), precision, ceiling)
                result = describe(
                    "scan",
                    dataclasses.asdict(own),
                    command=configs[0]["command"],
                    seeds=[own.seed],
                    configs={row["label"]: {"engine": row["label"]} for row in rows},
                    rows=rows,
                )
                result |= {"copy_bytes_per_second": ceiling, "clock": "wall" if ceiling else "cpu"}
                write_json(Path(own.out) / "scan.json", result)  # what is measured stays measured
    save(result, Path(own.out), table(result), figure(result))


def _engines(own: ScanSettings, lanes: int, precision: str) -> list[str]:
    """Those asked for; by default the one that cores use here, in float32 with two to compare it with."""
    fastest = scan.resolve_engine(None, lanes)
    yardsticks = ["associative", "paper"] if precision == "float32" else []
    return own.engines or list(dict.fromkeys([fastest, *yardsticks]))


def _measure(
    own: ScanSettings, shape: tuple[int, ...], precision: str, ceiling: float | None
) -> list[dict[str, Any]]:
    """A row per engine at one shape and precision, their calls in turns."""
    steps, facts = {}, {}
    where = f"T={shape[0]} B={shape[1]} P={shape[2]} {precision}"
    arguments = _problem(own, shape, jnp.dtype(precision))
    for engine in _engines(own, shape[2], precision):
        for part, function in {"forward": _forward, "both": _both}.items():
            with phase(f"compiling {engine}, {part}, {where}"):
                start = time.perf_counter()
                program = jax.jit(functools.partial(function, engine)).lower(*arguments).compile()
                facts[engine, part] = time.perf_counter() - start
            steps[f"{engine} {part}"] = _queued(program, arguments, own.calls)
    taken = in_turns(steps, own.blocks, f"{where}: ")
    states = shape[0] * shape[1] * shape[2]
    rows = []
    for engine in dict.fromkeys(engine for engine, _ in facts):
        row: dict[str, Any] = {"label": engine, "shape": list(shape), "precision": precision}
        for part in ("forward", "both"):
            moved = states * _MOVED[part] * 2 * jnp.dtype(precision).itemsize
            row |= {
                f"{part}_compile_seconds": facts[engine, part],
                f"{part}_bytes": moved,
                f"{part}_flops": states * _FLOPS[part],
                f"{part}_floor_seconds": moved / ceiling if ceiling else None,
            }
            if f"{engine} {part}" in taken:
                seconds = taken[f"{engine} {part}"]["wall" if ceiling else "cpu"]
                row[f"{part}_seconds"] = spread([each / own.calls for each in seconds])
        rows.append(row)
    return rows


def _problem(own: ScanSettings, shape: tuple[int, ...], dtype: Any) -> tuple[Any, ...]:
    """Gain, inputs, resets and carry; in float32 as parts, else packed as a core's products make them."""
    keys = jax.random.split(jax.random.key(own.seed), 4)
    length, batch, lanes = shape
    angle = jax.random.uniform(keys[0], (lanes,), maxval=6.28)
    gain = 0.99 * jnp.cos(angle), 0.99 * jnp.sin(angle)
    packed = jax.random.normal(keys[1], (length, batch, 2 * lanes), dtype)
    inputs = tuple(jnp.split(packed, 2, axis=-1)) if dtype == jnp.float32 else packed
    reset = jax.random.bernoulli(keys[2], own.reset_rate, (length, batch))
    carry = tuple(jax.random.normal(key, (batch, lanes)) for key in jax.random.split(keys[3]))
    return gain, inputs, reset, carry


def _forward(engine: str, gain: Any, inputs: Any, reset: Any, carry: Any) -> Any:
    if isinstance(inputs, tuple):
        return scan.linear_scan(gain, inputs, reset, carry, engine)
    return scan.packed_scan(gain, inputs, reset, carry, engine)


def _both(engine: str, gain: Any, inputs: Any, reset: Any, carry: Any) -> Any:
    """The states, and the gradients of gain, inputs and carry for a cotangent of every state."""
    states, back = jax.vjp(lambda g, u, c: _forward(engine, g, u, reset, c)[1], gain, inputs, carry)
    return states, back(inputs)


def _queued(program: Callable[..., Any], arguments: tuple[Any, ...], calls: int) -> Callable[[], Any]:
    def turn() -> Any:
        for _ in range(calls):
            out = program(*arguments)
        return out

    return turn


def _ratio(row: Mapping[str, Any], base: Mapping[str, Any], part: str) -> float:
    """How many times faster than `base`: the median over blocks, which were measured side by side."""
    pairs = zip(base[f"{part}_seconds"]["values"], row[f"{part}_seconds"]["values"], strict=True)
    return float(spread([slow / fast for slow, fast in pairs])["median"])


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    rows = []
    for row in result["rows"]:
        mine = (row["shape"], row["precision"])
        papers = [r for r in result["rows"] if (r["shape"], r["precision"]) == mine and r["label"] == "paper"]
        cells = [row["label"], ", ".join(map(str, row["shape"])), row["precision"]]
        for part in ("forward", "both"):
            measured = row.get(f"{part}_seconds")
            if measured is None:
                cells += ["out of memory", "", ""]
                continue
            floor = row[f"{part}_floor_seconds"]
            multiple = f"{measured['median'] / floor:.2f}x" if floor else ""
            ms = {k: measured[k] * 1e3 for k in ("median", "low", "high")}
            known = papers and f"{part}_seconds" in papers[0]
            ratio = f"{_ratio(row, papers[0], part):.1f}x" if known else ""
            cells += [spread_text(ms), multiple, ratio]
        compiled = f"{row['forward_compile_seconds']:.1f} / {row['both_compile_seconds']:.1f}"
        rows.append([*cells, short(row["both_bytes"] / 1e6), short(row["both_flops"] / 1e9), compiled])
    header = [
        "engine",
        "T, B, P",
        "precision",
        "forward, ms",
        "of the floor",
        "faster than paper",
        "forward + backward, ms",
        "of the floor",
        "faster than paper",
        "MB moved",
        "GFLOP",
        "compile, s",
    ]
    seconds = "seconds" if result["clock"] == "wall" else "CPU-seconds"
    speed = result["copy_bytes_per_second"]
    notes = [
        f"complex h = g·h + u over P lanes, the same gain at every step; {seconds}, "
        f"median (lowest–highest) of {result['settings']['blocks']} turns of {result['settings']['calls']} "
        "calls, the engines in turns",
        "MB moved, GFLOP: of forward + backward; inputs read and outputs written once, "
        "2 arrays of states forward and 5 with the gradients"
        + (
            f"; floor: these bytes at {speed / 1e9:.0f} GB/s, a copy's speed in the same run" if speed else ""
        ),
        "bfloat16: inputs and states lie packed in memory as a core's matrix products make and take them, "
        "the recurrence runs in float32; float32: real and imaginary parts are arrays of their own",
        "paper: the three-element operator of arXiv 2303.03982 on complex64, differentiated by JAX",
        "compile: forward / forward + backward, from nothing",
    ]
    return Table("The resettable scan by engine", header, rows, notes)


def figure(result: Mapping[str, Any]) -> "Figure":
    """Forward + backward of every engine in the first precision, against the floor where there is one."""
    groups: dict[str, dict[str, float]] = {}
    floor = result["copy_bytes_per_second"]
    for row in result["rows"]:
        if row["precision"] == result["rows"][0]["precision"] and "both_seconds" in row:
            unit = row["both_floor_seconds"] if floor else 1e-3
            shape = ", ".join(map(str, row["shape"]))
            groups.setdefault(row["label"], {})[shape] = row["both_seconds"]["median"] / unit
    title, xlabel = "The resettable scan, forward + backward", "T, B, P"
    if not floor:
        return bars(groups, title, xlabel, "CPU-milliseconds")
    ylabel = "time, in multiples of the bandwidth floor"
    return bars(groups, title, xlabel, ylabel, line=("floor", 1.0))
