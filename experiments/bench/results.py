"""The record of a benchmark: one JSON schema, and the table and figure made from it."""

import dataclasses
import datetime
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from ..atomic import atomic
from ..devices import device_name
from ..plots import save_png
from ..run_dir import write_json
from .cases import Case, Settings

if TYPE_CHECKING:
    from ..plots import Figure

_PACKAGES = ("jax", "jaxlib", "flax", "gymnax", "optax")


class Table(NamedTuple):
    """A table as text: a title, the names of its columns, its rows, and notes below."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def record(
    name: str, settings: Settings, cases: Sequence[Case], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """What `<out>/<name>.json` holds for a benchmark of training."""
    first = cases[0].train
    return describe(
        name,
        dataclasses.asdict(settings),
        command=cases[0].command,
        seeds=range(first.seed, first.seed + first.seeds),
        configs={case.label: case.raw for case in cases},
        rows=rows,
    )


def describe(
    name: str,
    settings: Mapping[str, Any],
    *,
    command: str,
    seeds: Sequence[int],
    configs: Mapping[str, Any],
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """What `<out>/<name>.json` holds: rows, and everything needed to judge or repeat them."""
    versions = {package: metadata.version(package) for package in _PACKAGES}
    return {
        "benchmark": name,
        "command": command,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": device_name(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "versions": {"resetta": _own_version(), "python": platform.python_version(), **versions},
        "seeds": list(seeds),
        "settings": dict(settings),
        "configs": dict(configs),
        "rows": rows,
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The median of several measurements, their extremes, and the measurements."""
    return {
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "values": list(values),
    }


def spread_text(measured: Mapping[str, Any], digits: int = 3) -> str:
    """`median (low-high)`, such as `22.1 k (20.3 k–23 k)`."""
    median, low, high = (short(measured[name], digits) for name in ("median", "low", "high"))
    return median if low == high == median else f"{median} ({low}–{high})"


def short(number: float, digits: int = 3) -> str:
    """A number in `digits` significant digits, thousands as k and millions as M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            return _significant(number / size, digits) + unit
    return _significant(number, digits)


def _significant(number: float, digits: int) -> str:
    text = f"{number:.{digits}g}"
    return f"{float(text):.0f}" if "e+" in text else text


def save(result: Mapping[str, Any], out: Path, table: Table, figure: "Figure | None") -> None:
    """Write `<out>/<benchmark>.json`, and show and write what is made from it."""
    write_json(out / f"{result['benchmark']}.json", result)
    present(result, out, table, figure)


def present(result: Mapping[str, Any], out: Path, table: Table, figure: "Figure | None") -> None:
    """Write `<out>/<benchmark>.md` and `.png`, and show the table on the screen."""
    name = result["benchmark"]
    if figure is not None:
        save_png(figure, out / f"{name}.png")
    with atomic(out / f"{name}.md") as part:
        part.write_text(markdown(result, table, picture=figure is not None), encoding="utf-8")
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has room for the whole table
    notes = escape("\n".join(table.notes))
    shown = RichTable(title=table.title, title_justify="left", caption=notes, caption_justify="left")
    for k, column in enumerate(table.header):
        shown.add_column(column, justify="left" if k == 0 else "right", no_wrap=k == 0)
    for row in table.rows:
        shown.add_row(*map(escape, row))  # intervals are written in brackets, as Rich's own markup is
    console.print(shown)
    kinds = ["json", "md", *(["png"] if figure is not None else [])]
    print(f"written: {', '.join(str(out / f'{name}.{kind}') for kind in kinds)}")


def markdown(result: Mapping[str, Any], table: Table, picture: bool) -> str:
    """The text of `<benchmark>.md`."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    rule = ["---", *["---:"] * (len(table.header) - 1)]
    body = "\n".join(line(cells) for cells in (table.header, rule, *table.rows))
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    seeds = result["seeds"]
    several = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    parts = [
        f"# {table.title}",
        body,
        "\n".join(f"- {note}" for note in table.notes),
        f"![{table.title}]({result['benchmark']}.png)" if picture else "",
        f"Measured with `{result['command']}` ({several}) on {result['date'][:10]}, {result['device']}; "
        f"{versions}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _own_version() -> str:
    from ... import __version__

    return __version__
