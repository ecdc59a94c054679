"""resetta bench tables: tables and figures again from the JSON, and the CSV, of results that are there."""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .results import present


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Write every table and figure of the results in `out` again."""
    for config in configs:
        out = Path(config["out"])
        results = [result for path in sorted(out.glob("*.json")) if (result := _read(path)) is not None]
        if not results:
            raise InputError(f"out={out} holds no result of a benchmark; run one first, or give its folder")
        for result in results:
            module = importlib.import_module(f".{result['benchmark']}", __package__)
            if hasattr(module, "complete"):
                result = module.complete(result, out)
            figure = module.figure(result) if hasattr(module, "figure") else None
            present(result, out, module.table(result), figure)
            if hasattr(module, "further"):
                module.further(result, out)


def _read(path: Path) -> dict[str, Any] | None:
    """A result, None for a JSON file of another kind."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    named = isinstance(content, dict) and {"benchmark", "rows", "configs"} <= content.keys()
    return content if named and (Path(__file__).parent / f"{content['benchmark']}.py").exists() else None
