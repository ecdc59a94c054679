"""resetta bench memory: memory of one update against rollout length, as the compiler plans it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..build import build_agent, settings
from ..errors import InputError, input_errors
from ..logs import phase
from .cases import CoresSettings, check_counts, read_cases
from .figures import against
from .results import Table, record, save
from .timing import Compiled, compile_update, prepare

if TYPE_CHECKING:
    from ..plots import Figure

_MIB = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorySettings(CoresSettings):
    """configs/bench/memory.yaml says what each key means."""

    lengths: list[int]

    def __post_init__(self) -> None:
        check_counts("lengths", self.lengths)


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Compile every case at every length and write `<out>/memory.json`.

    XLA assigns every buffer when it compiles, so that the figures are exact and the same on every run; a
    process' resident memory would rather show what the compiler itself took.
    """
    own, cases = read_cases(configs, MemorySettings)
    with settings(cases[0].train):
        longer = {
            (case.label, length): dataclasses.replace(case.train, num_steps=length)
            for case in cases
            for length in own.lengths
        }
        with input_errors():
            agents = {key: build_agent(config) for key, config in longer.items()}
        prepare()
        rows = []
        for number, (key, config) in enumerate(longer.items(), 1):
            with phase(f"compiling {key[0]}, {key[1]} steps ({number}/{len(longer)})"):
                rows.append(_row(*key, compile_update(config, agents[key])))
        result = record("memory", own, cases, rows)
    save(result, own.folder, table(result), figure(result))


def _row(label: str, length: int, compiled: Compiled) -> dict[str, Any]:
    """Bytes; what is donated lies in an argument and is counted once."""
    planned = compiled.update.memory_analysis()
    if planned is None:
        raise InputError("this backend does not tell what memory it plans; use device=cpu, gpu or tpu")
    temporary, argument, output, alias = (
        int(getattr(planned, f"{name}_size_in_bytes")) for name in ("temp", "argument", "output", "alias")
    )
    return {
        "label": label,
        "num_steps": length,
        "parameters": compiled.parameters,
        "temporary_bytes": temporary,
        "argument_bytes": argument,
        "output_bytes": output,
        "donated_bytes": alias,
        "peak_bytes": temporary + argument + output - alias,
    }


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    names = ("peak", "temporary", "argument", "output", "donated")
    rows = [
        [row["label"], str(row["num_steps"]), *(f"{row[f'{name}_bytes'] / _MIB:.2f}" for name in names)]
        for row in result["rows"]
    ]
    header = ["core", "steps", *(f"{name}, MiB" for name in names)]
    envs = next(iter(result["configs"].values()))["num_envs"]
    notes = [f"one update of PPO in {envs} environments; peak = temporary + argument + output - donated"]
    return Table("Memory of an update against rollout length", header, rows, notes)


def figure(result: Mapping[str, Any]) -> "Figure":
    """Peak memory against rollout length, a line per core, both axes logarithmic."""
    lines = {}
    for row in result["rows"]:
        value = row["peak_bytes"] / _MIB
        lines.setdefault(row["label"], []).append((row["num_steps"], value, value, value))
    title = "Memory of an update against rollout length"
    return against(lines, title, "rollout length (steps)", "MiB", logarithmic=True)
