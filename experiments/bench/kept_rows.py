"""Rows of a long benchmark, kept as they are measured, so that it can be stopped and goes on."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..run_dir import write_json


class KeptRows:
    """A file a row in a folder; one that was asked for otherwise, or elsewhere, is measured again."""

    def __init__(self, folder: Path, circumstances: Mapping[str, Any]):
        """`circumstances` hold for every row: the device, versions, settings."""
        self._folder, self._circumstances = folder, dict(circumstances)

    def get(self, label: str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """The row that was kept under `label`, None where there is none for this question."""
        try:
            kept = json.loads(self._path(label).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return kept["row"] if kept.get("asked") == self._asked(asked) else None

    def keep(self, label: str, asked: Mapping[str, Any], row: Mapping[str, Any]) -> None:
        """Write a row at once, so that whatever stops the benchmark leaves it."""
        write_json(self._path(label), {"asked": self._asked(asked), "row": dict(row)})

    def _asked(self, asked: Mapping[str, Any]) -> Any:
        return json.loads(json.dumps({**self._circumstances, **asked}))

    def _path(self, label: str) -> Path:
        return self._folder / f"{re.sub(r'[^A-Za-z0-9_.=+-]+', '_', label)}.json"
