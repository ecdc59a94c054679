"""resetta video-inspect: what is in a folder of videos."""

from collections.abc import Mapping
from typing import Any

from ..video.inspect import inspect
from .errors import input_errors
from .logs import phase


def run(raw: Mapping[str, Any]) -> None:
    """Print what is in the folder, without training anything."""
    # these say what to do with what was found
    later = ("name", "path", "max_bad", "shards")
    options = {key: value for key, value in raw["data"].items() if key not in later}
    with input_errors(), phase("looking at every file") as show:
        options["report"] = lambda done, total, name: show(done, total)
        lines = inspect(raw["data"]["path"], **options)
    for line in lines:
        print(line)
