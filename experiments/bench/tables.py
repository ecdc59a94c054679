"""resetta bench tables: tables and figures again from the JSON, and the CSV, of results that are there."""

import dataclasses
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import build_dataclass
from ..errors import InputError, input_errors
from ..plots import save_png
from ..run_dir import RunDir
from .cases import Settings, plain_settings
from .comparison_curves import write_csv
from .results import present
from .run_curves import Points, choose, drawn, points_of, read_curves


@dataclasses.dataclass(frozen=True, kw_only=True)
class TablesSettings(Settings):
    """configs/bench/tables.yaml says what each key means."""

    runs: list[str] = dataclasses.field(default_factory=list)
    points: int = 100
    only: list[str] = dataclasses.field(default_factory=list)
    picture: str = "curves"

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ValueError(f"points={self.points} must be at least 1")
        if not self.picture or Path(self.picture).name != self.picture:
            raise ValueError(f"picture={self.picture!r} must be a name without a folder, such as curves")


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Write every table and figure of the results in `out` again, and curves of `runs`."""
    for config in configs:
        with input_errors():
            own = build_dataclass(TablesSettings, plain_settings(config), "")
        made = _made(own)
        results = _results(own.folder)
        curves, others = read_curves(own.folder, besides=made)
        curves |= made
        if not results and not curves:
            raise InputError(
                f"out={own.out} holds no result of a benchmark and no CSV that begins with env_steps; run a "
                "benchmark first, or give its folder, or runs=[...] to make such files"
            )
        chosen = choose(curves, own.only)
        for name, points in made.items():
            write_csv(own.folder / f"{name}.csv", points)
        if chosen:
            print(f"written: {save_png(drawn(chosen), own.folder / f'{own.picture}.png')}")
            left = [*(name for name in curves if name not in chosen and not own.only), *others]
            if left:
                print(f"not in it, for their columns are others: {', '.join(left)}")
        for module, result in results:
            figure = module.figure(result) if hasattr(module, "figure") else None
            present(result, own.folder, module.table(result), figure)
            if hasattr(module, "further"):
                module.further(result, own.folder)


def _made(own: TablesSettings) -> dict[str, Points]:
    """The curves of `runs`, by the names of their directories."""
    made: dict[str, Points] = {}
    for given in own.runs:
        run = RunDir.read(given)
        run.check_kind("bench tables", video=False)
        name = run.path.resolve().name
        if name in made:
            raise InputError(
                f"runs={own.runs} names two runs {name}; put them into different folders with out="
            )
        made[name] = points_of(run, own.points)
    return made


def _results(folder: Path) -> list[tuple[Any, dict[str, Any]]]:
    """Every result of a folder, with all that lies beside it, and the module that made it."""
    found = []
    for path in sorted(folder.glob("*.json")):
        if (result := _read(path)) is not None:
            module = importlib.import_module(f".{result['benchmark']}", __package__)
            found.append((module, module.complete(result, folder) if hasattr(module, "complete") else result))
    return found


def _read(path: Path) -> dict[str, Any] | None:
    """A result, None for a JSON file of another kind."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    named = isinstance(content, dict) and {"benchmark", "rows", "configs"} <= content.keys()
    return content if named and (Path(__file__).parent / f"{content['benchmark']}.py").exists() else None
