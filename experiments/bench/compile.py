"""resetta bench compile: compile time of one update against depth, tracing and XLA apart."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..build import build_agent, settings
from ..config import TrainConfig
from ..errors import input_errors
from ..logs import phase
from .cases import CoresSettings, check_counts, read_cases
from .figures import against
from .results import Table, record, save, spread, spread_text
from .timing import Compiled, compile_update, prepare

if TYPE_CHECKING:
    from ..plots import Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompileSettings(CoresSettings):
    """configs/bench/compile.yaml says what each key means."""

    depths: list[int]
    repeats: int

    def __post_init__(self) -> None:
        check_counts("depths", self.depths)
        if self.repeats < 1:
            raise ValueError(f"repeats={self.repeats} must be at least 1")


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Compile every case at every depth, `repeats` times, and write `<out>/compile.json`."""
    own, cases = read_cases(configs, CompileSettings)
    with settings(cases[0].train):
        deep = {(case.label, depth): _with_depth(case.train, depth) for case in cases for depth in own.depths}
        with input_errors():
            agents = {key: build_agent(config) for key, config in deep.items()}
        prepare()
        found: dict[tuple[str, int], list[Compiled]] = {key: [] for key in deep}
        for repeat in range(own.repeats):  # the loop over repeats outside: a busy minute meets every case
            for number, (key, config) in enumerate(deep.items()):
                done = repeat * len(deep) + number + 1
                with phase(f"compiling {key[0]}, {key[1]} layers ({done}/{own.repeats * len(deep)})"):
                    found[key].append(compile_update(config, agents[key]))
        rows = [_row(*key, compiled) for key, compiled in found.items()]
        result = record("compile", own, cases, rows) | {"growth": _growth(rows)}
    save(result, own.folder, table(result), figure(result))


def _with_depth(config: TrainConfig, depth: int) -> TrainConfig:
    return dataclasses.replace(config, core={**config.core, "num_layers": depth})


def _row(label: str, depth: int, compiled: Sequence[Compiled]) -> dict[str, Any]:
    return {
        "label": label,
        "depth": depth,
        "parameters": compiled[0].parameters,
        "trace_seconds": spread([each.trace.wall for each in compiled]),
        "xla_seconds": spread([each.xla.wall for each in compiled]),
        "compile_seconds": spread([each.trace.wall + each.xla.wall for each in compiled]),
        "compile_cpu_seconds": spread([each.trace.cpu + each.xla.cpu for each in compiled]),
    }


def _growth(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per label the time at the greatest depth over that at the smallest, of medians."""
    grown = {}
    for label in dict.fromkeys(row["label"] for row in rows):
        mine = [row for row in rows if row["label"] == label]
        parts = ("trace_seconds", "xla_seconds", "compile_seconds", "compile_cpu_seconds")
        ratios = {part: mine[-1][part]["median"] / mine[0][part]["median"] for part in parts}
        grown[label] = {"depths": [mine[0]["depth"], mine[-1]["depth"]], **ratios}
    return grown


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    rows = []
    for row in result["rows"]:
        growth = result["growth"][row["label"]]
        deepest = row["depth"] == growth["depths"][1] != growth["depths"][0]
        times = (row[f"{part}_seconds"] for part in ("trace", "xla", "compile", "compile_cpu"))
        ratio = f"{growth['compile_cpu_seconds']:.2f}" if deepest else ""
        rows.append([row["label"], str(row["depth"]), *(spread_text(time, 2) for time in times), ratio])
    depths = result["settings"]["depths"]
    ratio_name = f"CPU-s, {depths[-1]} / {depths[0]} layers"
    header = ["core", "layers", "trace, s", "XLA, s", "both, s", "both, CPU-s", ratio_name]
    notes = [
        f"one update of PPO, compiled {result['settings']['repeats']} time(s) from empty caches: "
        "median (lowest–highest); trace includes lowering to StableHLO"
    ]
    return Table("Compile time of an update against depth", header, rows, notes)


def figure(result: Mapping[str, Any]) -> "Figure":
    """Compile time against depth, a line per core."""
    lines = {}
    for row in result["rows"]:
        point = (row["depth"], *(row["compile_seconds"][name] for name in ("median", "low", "high")))
        lines.setdefault(row["label"], []).append(point)
    return against(lines, "Compile time of an update against depth", "layers", "seconds", from_zero=True)
