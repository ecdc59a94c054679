"""resetta bench acting: one step of every core, against the time of moving its parameters and states."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ..build import settings
from ..logs import phase
from .cases import check_counts
from .ceilings import Ceilings, measure_ceilings
from .core_cases import CoreCase, CoreSettings, bytes_of, init_core, inputs, read_core_cases, stepping
from .results import Table, describe, save, short, spread, spread_text
from .turns import in_turns


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActingSettings(CoreSettings):
    """configs/bench/acting.yaml says what each key means."""

    lanes: list[int]
    steps: int
    blocks: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("lanes", self.lanes)
        for name in ("steps", "blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Measure every case in turns and write `<out>/acting.json`."""
    own, cases = read_core_cases(configs, ActingSettings)
    with settings(own):
        with phase("measuring what the machine can do"):
            ceilings = measure_ceilings()
        turns, facts = {}, {}
        for case in cases:
            for lanes in own.lanes:
                label = f"{case.label}, {lanes} lanes"
                with phase(f"compiling {label}"):
                    turns[label], facts[label] = _steps(case, lanes, own)
        taken = in_turns(turns, own.blocks)
        rows = [_row(fact, taken.get(label), own, ceilings) for label, fact in facts.items()]
        result = describe(
            "acting",
            dataclasses.asdict(own),
            command=configs[0]["command"],
            seeds=[own.seed],
            configs={case.label: {"name": case.name, **case.options} for case in cases},
            rows=rows,
        )
        result["ceilings"] = dataclasses.asdict(ceilings)
    save(result, own.folder, table(result), None)


def _steps(case: CoreCase, lanes: int, own: ActingSettings) -> tuple[Any, dict[str, Any]]:
    """A turn, and what it moves."""
    core = case.make()
    params, carry = init_core(core, own.seed), core.initial_carry(lanes)
    x = inputs(core, 1, lanes, own.seed, own.dtype)[0][0]
    facts = {
        "label": case.label,
        "lanes": lanes,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "parameter_bytes": bytes_of(params),
        "state_bytes": bytes_of(carry),
        "moved_bytes": bytes_of(params) + (1 + _written(core)) * bytes_of(carry) + 2 * bytes_of(x),
    }
    compiled = jax.jit(stepping(core, lanes, own.steps)).lower(params, carry, x).compile()
    return (lambda: compiled(params, carry, x)), facts


def _written(core: Any) -> float:
    """The part of a state that a step changes: of a ring of keys and values one entry, else all of it."""
    return 1 / getattr(core, "window", 1)


def _row(
    facts: dict[str, Any], taken: Mapping[str, list[float]] | None, own: ActingSettings, ceilings: Ceilings
) -> dict[str, Any]:
    floor = facts["moved_bytes"] / ceilings.bytes_per_second
    row = facts | {"floor_seconds": floor}
    if taken is None:
        return row | {"out_of_memory": True}
    seconds = spread([wall / own.steps for wall in taken["wall"]])
    return row | {"seconds": seconds, "over_floor": seconds["median"] / floor}


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    header = ["core", "lanes", "parameters", "state, MB", "µs a step", "floor, µs", "step / floor", "steps/s"]
    rows = []
    for row in result["rows"]:
        facts = [row["label"], str(row["lanes"]), short(row["parameters"]), f"{row['state_bytes'] / 1e6:.3g}"]
        floor = f"{row['floor_seconds'] * 1e6:.3g}"
        if "seconds" not in row:
            rows.append([*facts, "out of memory", floor, "", ""])
            continue
        micro = {name: row["seconds"][name] * 1e6 for name in ("median", "low", "high")}
        rate = short(row["lanes"] / row["seconds"]["median"])
        rows.append([*facts, spread_text(micro), floor, f"{row['over_floor']:.2f}", rate])
    own = result["settings"]
    notes = [
        f"{own['steps']} steps a turn in one program, each from the state and output of the one before; "
        f"median (lowest–highest) of {own['blocks']} turns; steps/s are those of all lanes",
        "floor: parameters and states read once, what changes of the states written once, inputs and "
        "outputs, at the speed of a copy",
        f"the ceilings: {Ceilings(**result['ceilings']).text()}",
    ]
    return Table("Acting: one step of a core", header, rows, notes)
