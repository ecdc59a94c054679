"""resetta video-inspect: what is in a folder of videos."""

from collections.abc import Mapping
from typing import Any

from ..video.inspect import inspect_folder
from .errors import input_errors
from .logs import phase


def run(raw: Mapping[str, Any]) -> None:
    """Print what is in the folder, without training anything."""
    options = {key: value for key, value in raw["data"].items() if key != "name"}
    with input_errors(), phase("looking at every file"):
        lines = inspect_folder(**options)
    for line in lines:
        print(line)
