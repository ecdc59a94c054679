"""resetta bench cores: every core at equal parameters, against the length of its context."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ..build import settings
from ..devices import device_name
from ..errors import InputError
from ..logs import phase
from .cases import check_counts
from .ceilings import Ceilings, measure_ceilings
from .core_cases import (
    CoreCase,
    CoreSettings,
    bytes_of,
    count_core,
    init_core,
    inputs,
    of_width,
    read_core_cases,
    stepping,
)
from .expand import given_keys
from .kept_rows import KeptRows
from .results import Table, describe, save, short, spread, spread_text
from .roofline import counted
from .timing import Clock, now, prepare
from .turns import in_turns, is_out_of_memory

if TYPE_CHECKING:
    from ..plots import Figure

# What others say of their own programs; nothing of it was measured here, or in the same way.
_CLAIMS = (
    "others' own figures, of whole training programs: popjaxrl on one H200, repeat_previous_hard, 64 "
    "environments x 1,024 steps, 30 epochs, 4 x 256: 0.647 s an update with S5, 11.56 s with its GRU; "
    "arXiv 2303.03982 on one A40, 15e6 steps of POPGym: 218 s with S5, 1,485 s with a GRU, 27 s with an MLP"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoresSettings(CoreSettings):
    """configs/bench/cores.yaml says what each key means."""

    layers: int | None
    parameters: int
    lengths: list[int]
    tokens: int
    full_attention: bool
    lanes: int
    steps: int
    turns: int
    seconds: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("lengths", self.lengths)
        for name in ("layers", "parameters", "lanes", "steps", "turns"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        for length in self.lengths:
            if self.tokens % length:
                raise ValueError(
                    f"tokens={self.tokens} is not a multiple of length {length}; give one that is"
                )


@dataclasses.dataclass(frozen=True)
class _Question:
    """One row: a core of a width, over sequences of a length."""

    label: str
    case: CoreCase
    length: int
    options: dict[str, Any]


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Measure every row that is not kept already and write `<out>/cores.json`."""
    own, cases = read_core_cases(configs, CoresSettings)
    if own.layers is not None and "core.num_layers" in given_keys(configs[0]["command"]):
        raise InputError(f"layers={own.layers} overrules core.num_layers; add layers=null, or leave one out")
    with settings(own):
        with phase("sizing the cores"):
            questions = _questions(own, cases)
        prepare()
        with phase("measuring what the machine can do"):
            ceilings = measure_ceilings(own.precision == "bfloat16")
        shared = {"device": device_name(), "jax": jax.__version__, "precision": own.precision}
        asked = {name: getattr(own, name) for name in ("tokens", "lanes", "steps", "turns", "seed")}
        kept = KeptRows(own.folder / "cores_rows", shared | asked)
        rows, acted, left = [], {}, []
        began = now()
        for number, question in enumerate(questions, 1):
            name = f"{question.label} T={question.length}"
            about = {"core": question.case.name, "options": question.options, "length": question.length}
            row = kept.get(name, about)
            if row is None:
                if own.seconds is not None and number > 1 and (now() - began).wall > own.seconds:
                    left.append(name)
                    continue
                with phase(f"[{number}/{len(questions)}] {name}"):
                    row = _row(question, own, acted, ceilings)
                kept.keep(name, about, row)
            else:
                print(f"[{number}/{len(questions)}] {name}: measured already", file=sys.stderr, flush=True)
            acted[_memory_key(question)] = row["acting"]
            rows.append(row)
        result = describe(
            "cores",
            dataclasses.asdict(own),
            command=configs[0]["command"],
            seeds=[own.seed],
            configs={question.label: question.options for question in questions},
            rows=rows,
        )
        result |= {"left": left, "ceilings": dataclasses.asdict(ceilings)}
    save(result, own.folder, table(result), figure(result))
    if left:
        print(f"not measured yet: {', '.join(left)}; the same command goes on with them", file=sys.stderr)


def _questions(own: CoresSettings, cases: Sequence[CoreCase]) -> list[_Question]:
    """Short sequences of all cores first, so that what is stopped early still compares them."""
    found = []
    for case in cases:
        deep = {"num_layers": own.layers} if own.layers and "num_layers" in case.options else {}
        case = dataclasses.replace(case, options={**case.options, **deep})
        sized = {**case.options, "features": of_width(case, own.parameters)}
        windows = [False, True] if own.full_attention and "window" in case.options else [False]
        for full in windows:
            for length in own.lengths:
                options = {**sized, "window": length} if full else sized
                label = f"{case.label}, full" if full else case.label
                found.append(_Question(label, case, length, options))
    if not found:
        raise InputError("there is nothing to measure; name a core at least")
    return sorted(found, key=lambda question: own.lengths.index(question.length))


def _memory_key(question: _Question) -> str:
    """What acting depends on: the length counts only where the window is as long."""
    return f"{question.label} {question.options.get('window')}"


def _row(
    question: _Question, own: CoresSettings, acted: Mapping[str, Any], ceilings: Ceilings
) -> dict[str, Any]:
    core = question.case.make(**question.options)
    known = acted.get(_memory_key(question))
    return {
        "label": question.label,
        "length": question.length,
        "batch": own.tokens // question.length,
        "features": core.features,
        "parameters": count_core(core),
        "state_bytes": bytes_of(jax.eval_shape(lambda: core.initial_carry(1))),
        "training": _training(core, question.length, own, ceilings),
        "acting": known or _acting(core, own),
    }


def _training(core: Any, length: int, own: CoresSettings, ceilings: Ceilings) -> dict[str, Any]:
    """A pass forwards and backwards: tokens a second, the floor, planned memory, time of compiling."""
    batch = own.tokens // length
    params, carry = init_core(core, own.seed), core.initial_carry(batch)
    x, reset = inputs(core, length, batch, own.seed, own.dtype)

    def loss(params: Any, x: Any) -> Any:
        return jnp.mean(jnp.square(core.apply(params, carry, x, reset)[1]))

    start = now()
    traced = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).trace(params, x)
    found, compiled = _compiled(traced, start)
    program = counted(traced.jaxpr, ceilings)
    if not ceilings.cpu:  # whose caches hold the arrays
        found |= {"floor_seconds": program.least_seconds}
    found |= {"moved_bytes": program.moved_bytes, "flops": program.flops}
    if compiled is not None:
        found["seconds"] = _timed(lambda: compiled(params, x), own.turns)
        found["tokens_per_second"] = _rates(own.tokens, found["seconds"])
    return found


def _acting(core: Any, own: CoresSettings) -> dict[str, Any]:
    """Steps of `lanes` rows: those of all rows a second."""
    params = init_core(core, own.seed)
    x = inputs(core, 1, own.lanes, own.seed, own.dtype)[0][0]

    def build() -> Any:
        carry = core.initial_carry(own.lanes)
        return carry, jax.jit(stepping(core, own.lanes, own.steps)).lower(params, carry, x).compile()

    try:
        carry, compiled = build()
    except jax.errors.JaxRuntimeError as error:
        return _no_memory(error)
    seconds = _timed(lambda: compiled(params, carry, x), own.turns)
    return {"steps_per_second": _rates(own.lanes * own.steps, seconds)}


def _compiled(traced: Any, start: Clock) -> tuple[dict[str, Any], Any]:
    """What compiling has taken since tracing began and what it planned, and the compiled program."""
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        return _no_memory(error), None
    taken = now() - start
    planned = compiled.memory_analysis()
    names = ("temp", "argument", "output")
    peak = sum(int(getattr(planned, f"{name}_size_in_bytes", 0)) for name in names)
    return {"compile_seconds": taken.wall, "peak_bytes": peak}, compiled


def _no_memory(error: Exception) -> dict[str, Any]:
    if not is_out_of_memory(error):
        raise error
    return {"out_of_memory": True}


def _timed(call: Any, turns: int) -> list[float] | None:
    """Seconds of each turn; None where the memory does not hold it."""
    taken = in_turns({"": call}, turns)
    return taken[""]["wall"] if "" in taken else None


def _rates(amount: int, seconds: list[float] | None) -> dict[str, Any] | None:
    return None if seconds is None else spread([amount / each for each in seconds])


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    header = ["core", "T", "B", "width", "parameters", "trained tokens/s", "of the floor"]
    header += ["GB", "GFLOP", "acting steps/s", "memory, MB", "state, bytes", "compile, s"]
    rows = []
    for row in result["rows"]:
        training, acting = row["training"], row["acting"]
        rows.append(
            [
                row["label"],
                str(row["length"]),
                str(row["batch"]),
                str(row["features"]),
                short(row["parameters"]),
                _rate_text(training.get("tokens_per_second")),
                *_floor_texts(training),
                _rate_text(acting.get("steps_per_second")),
                f"{training['peak_bytes'] / 1e6:.0f}" if "peak_bytes" in training else "",
                str(row["state_bytes"]),
                f"{training['compile_seconds']:.1f}" if "compile_seconds" in training else "",
            ]
        )
    own = result["settings"]
    notes = [
        f"T x B = {own['tokens']} tokens of float32; training: loss and gradients of parameters and inputs, "
        f"forwards and backwards, median (lowest–highest) of {own['turns']} turns",
        f"acting: {own['lanes']} rows step at once, {own['steps']} steps a turn; the steps of all rows count",
        "floor: every product and kernel moves its operands and results once or multiplies, and every "
        "recurrence moves its inputs and states once; GB, GFLOP: these bytes, and the operations of products",
        *([f"the ceilings: {Ceilings(**result['ceilings']).text()}"] if "ceilings" in result else []),
        "memory: XLA's plan of arguments, results and temporaries; state: of one row; `full` attends to the "
        "whole sequence, `attention` to its window",
        _CLAIMS,
    ]
    return Table("Cores at equal parameters, against the length of the context", header, rows, notes)


def _floor_texts(training: Mapping[str, Any]) -> list[str]:
    """Multiples of the floor, and what is counted; nothing in rows from before it was."""
    if "flops" not in training:
        return [""] * 3
    floor, seconds = training.get("floor_seconds"), training.get("seconds")
    over = f"{spread(seconds)['median'] / floor:.2f}x" if seconds and floor else ""
    return [over, short(training["moved_bytes"] / 1e9), short(training["flops"] / 1e9)]


def _rate_text(measured: Mapping[str, Any] | None) -> str:
    return "out of memory" if measured is None else spread_text(measured)


def figure(result: Mapping[str, Any]) -> "Figure":
    """Trained tokens per second against the length, a line per core, both axes logarithmic."""
    from .figures import against

    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for row in result["rows"]:
        rate = row["training"].get("tokens_per_second")
        if rate is not None:
            point = tuple(rate[name] / 1e3 for name in ("median", "low", "high"))
            lines.setdefault(row["label"], []).append((row["length"], *point))
    title = "Training at equal parameters, against the length of the context"
    return against(lines, title, "length of the sequences (T; T x B fixed)", "thousand tokens a second", True)
