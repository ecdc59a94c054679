"""resetta bench ppo: seconds of an update and the floor under them, steps per CPU-second, compile time."""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from ..build import build_agent, init_seeds, settings
from ..devices import agent_shardings, place, run_mesh
from ..errors import input_errors
from ..logs import phase
from .cases import Case, CoresSettings, read_cases
from .ceilings import Ceilings, measure_ceilings
from .results import Table, record, save, short, spread, spread_text
from .roofline import counted
from .timing import Clock, Compiled, compile_update, now, prepare

if TYPE_CHECKING:
    from ..plots import Figure

_DROPPED = 2  # first updates, which also warm caches and allocators


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPOSettings(CoresSettings):
    """configs/bench/ppo.yaml says what each key means."""

    blocks: int
    block_updates: int

    def __post_init__(self) -> None:
        for name in ("blocks", "block_updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


class _Player:
    """A compiled update with the state it goes on from."""

    def __init__(self, case: Case):
        with input_errors():
            self.agent = build_agent(case.train)
            self.mesh = run_mesh(case.train.mesh, case.train.distributed, case.train.check_mesh)
        self.case = case
        self.blocks: list[Clock] = []
        self.state: Any = None
        self.compiled: Compiled

    def compile(self) -> None:
        self.compiled = compile_update(self.case.train, self.agent)

    def start(self) -> None:
        state = init_seeds(self.agent, self.case.train)
        self.state = place(state, agent_shardings(self.mesh, state))
        self.play(_DROPPED)

    def play(self, updates: int) -> Clock:
        start = now()
        for _ in range(updates):
            self.state, _ = self.compiled.update(self.state)
        jax.block_until_ready(self.state)
        return now() - start


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Measure every case in turns and write `<out>/ppo.json`."""
    own, cases = read_cases(configs, PPOSettings)
    with settings(cases[0].train):
        players = [_Player(case) for case in cases]  # mistakes in the last before the first is compiled
        prepare()
        with phase("measuring what the machine can do"):
            bfloat16 = any(case.train.precision == "bfloat16" for case in cases)
            ceilings = measure_ceilings(bfloat16)
        for player in players:
            with phase(f"compiling {player.case.label}"):
                player.compile()
        for player in players:
            with phase(f"first updates of {player.case.label}"):
                player.start()
        for block in range(own.blocks):  # in turns: what else the machine does meets every case alike
            for player in players:
                player.blocks.append(player.play(own.block_updates))
            took = ", ".join(f"{player.case.label} {player.blocks[-1].cpu:.2f} CPU-s" for player in players)
            print(f"block {block + 1}/{own.blocks}: {took}", file=sys.stderr, flush=True)
        result = record("ppo", own, cases, [_row(player, own, ceilings) for player in players])
        result["ceilings"] = dataclasses.asdict(ceilings)
    save(result, own.folder, table(result), figure(result))


def _row(player: _Player, own: PPOSettings, ceilings: Ceilings) -> dict[str, Any]:
    config, compiled = player.case.train, player.compiled
    steps = own.block_updates * config.steps_per_update * config.seeds
    # On a CPU caches hold what a minibatch makes, and others compute beside: products alone, in CPU-seconds.
    reachable = dataclasses.replace(ceilings, bytes_per_second=math.inf) if ceilings.cpu else ceilings
    taken = [block.cpu if ceilings.cpu else block.wall for block in player.blocks]
    seconds = spread([each / own.block_updates for each in taken])
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), player.state)
    program = counted(jax.make_jaxpr(player.agent.update)(one), reachable)
    floor = config.seeds * program.least_seconds
    return {
        "label": player.case.label,
        "core": player.case.core,
        "parameters": compiled.parameters,
        "steps_per_update": config.steps_per_update * config.seeds,
        "seconds_per_update": seconds,
        "floor_seconds": floor,
        "floor_fraction": floor / seconds["median"],
        "flops_per_update": config.seeds * program.flops,
        "bytes_per_update": config.seeds * program.moved_bytes,
        "steps_per_cpu_second": spread([steps / block.cpu for block in player.blocks]),
        "steps_per_second": spread([steps / block.wall for block in player.blocks]),
        "compile_seconds": compiled.trace.wall + compiled.xla.wall,
        "trace_seconds": compiled.trace.wall,
        "xla_seconds": compiled.xla.wall,
        "compile_cpu_seconds": compiled.trace.cpu + compiled.xla.cpu,
    }


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    first = next(iter(result["configs"].values()))
    unit = "CPU-s" if _on_cpu(result) else "s"
    header = [
        "core",
        "parameters",
        f"{unit} per update",
        f"floor, {unit}",
        "GB",
        "GFLOP",
        "steps per CPU-second",
        "steps per second",
    ]
    header += ["compile, s", "trace, s", "XLA, s", "compile, CPU-s"]
    times = ("compile_seconds", "trace_seconds", "xla_seconds", "compile_cpu_seconds")
    rows = [
        [
            row["label"],
            short(row["parameters"]),
            *_update_texts(row),
            spread_text(row["steps_per_cpu_second"]),
            spread_text(row["steps_per_second"]),
            *(f"{row[name]:.1f}" for name in times),
        ]
        for row in result["rows"]
    ]
    own = result["settings"]
    notes = [
        f"{first['env']['name']}: {first['num_envs']} environments x {first['num_steps']} steps, "
        f"{first['epochs']} epochs, {first['minibatches']} minibatches, {len(result['seeds'])} seed(s)",
        f"median (lowest–highest) of {own['blocks']} blocks of {own['block_updates']} update(s), the cores "
        f"in turns; the first {_DROPPED} updates are dropped",
        "floor: every matrix product multiplies at the ceiling, one core's; all else is free"
        if _on_cpu(result)
        else "floor: every matrix product and kernel moves its operands and results once or multiplies, and "
        "every recurrence moves its inputs and states once, at the ceilings; all else is free",
        "GB, GFLOP: what products, kernels and recurrences read and write at least; operations of products",
        *([f"the ceilings: {Ceilings(**result['ceilings']).text()}"] if "ceilings" in result else []),
        "CPU-seconds are those of all threads of the process; on an accelerator only steps per second count",
    ]
    return Table("PPO: environment steps per second", header, rows, notes)


def _on_cpu(result: Mapping[str, Any]) -> bool:
    return bool(result.get("ceilings", {}).get("cpu"))


def _update_texts(row: Mapping[str, Any]) -> list[str]:
    """Seconds of an update, their floor and what is counted; nothing in results from before it was."""
    if "floor_seconds" not in row:
        return [""] * 4
    floor = f"{row['floor_seconds']:.3g} ({row['floor_fraction']:.0%})"
    counted = [
        short(row[name] / 1e9) if name in row else "" for name in ("bytes_per_update", "flops_per_update")
    ]
    return [spread_text(row["seconds_per_update"]), floor, *counted]


def figure(result: Mapping[str, Any]) -> "Figure | None":
    """Seconds of an update beside their floor; None for results from before they were measured."""
    from .figures import bars

    rows = [row for row in result["rows"] if "floor_seconds" in row]
    if not rows:
        return None
    measured = {row["label"]: row["seconds_per_update"]["median"] for row in rows}
    floors = {row["label"]: row["floor_seconds"] for row in rows}
    groups = {"measured": measured, "floor": floors}
    unit = "CPU-seconds" if _on_cpu(result) else "seconds"
    return bars(groups, "An update of PPO", "core", unit)
