"""Data sets of videos: what they offer, and how they are made by name."""

import dataclasses
import difflib
import importlib
import inspect
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from .clip import ActionSpace, Clip

# name: module:Name of a world (drawn) or of a function that makes a data set
_DATA = {
    "moving_digits": "worlds.digits:MovingDigits",
    "stochastic_digits": "worlds.digits:StochasticDigits",
    "occluder_recall": "worlds.occluder:OccluderRecall",
    "bouncing_balls": "worlds.balls:BouncingBalls",
    "maze_walk": "worlds.maze:MazeWalk",
    "photo_pans": "worlds.pans:PhotoPans",
    "folder": "folder:load_folder",
}
_OWN = ("seed", "length")  # options of every generated data set beside its world's


class VideoData(Protocol):
    """Clips by number, in the splits `train` and `test`.

    `size` is the height and width of the frames, `channels` 1 or 3.
    """

    size: int
    channels: int
    actions: ActionSpace

    def count(self, split: str) -> int | None:
        """How many clips there are; None: endlessly many."""
        ...

    def lengths(self, split: str, ids: Int[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        """How many frames the clips have."""
        ...

    def read(self, split: str, ids: Int[np.ndarray, " B"], starts: Int[np.ndarray, " B"], frames: int) -> Clip:
        """Frames `starts[b]` … `starts[b] + frames - 1` of clip `ids[b]`, numpy, `[frames, B, ...]`.

        `reset` is true where the clip itself says that another sequence begins: at its first frame, and
        inside a recording of several episodes.
        """
        ...

    def truth(
        self, split: str, ids: Int[np.ndarray, " B"], starts: Int[np.ndarray, " B"], frames: int
    ) -> dict[str, np.ndarray]:
        """What is known of those frames, arrays `[frames, B, ...]`; empty where nothing is."""
        ...

    def measures(
        self, predicted: np.ndarray, truth: dict[str, np.ndarray], context: dict[str, np.ndarray] | None = None
    ) -> dict[str, Float[np.ndarray, "T B"]]:
        """Measures of predicted frames, uint8 `[T, B, H, W, C]`, that the truth allows; NaN where undefined.

        `context` is the truth of the frames that the model was given.
        """
        ...

    def describe(self) -> list[str]:
        """What the data is, a line each."""
        ...


def data_names() -> list[str]:
    """The names that `make_data` takes."""
    return [*_DATA]


def make_data(name: str, **options: Any) -> VideoData:
    """A data set by name, or your own by `module:Name`: an object with `read`, or a world with `clip`.

    Raises `ValueError`, naming the valid ones, for an unknown name or option.
    """
    from .generated import GeneratedData

    target = _target(name)
    drawn = hasattr(target, "clip")
    parameters = inspect.signature(target).parameters
    valid = [*parameters, *(_OWN if drawn else ())]
    for option in options:
        if option not in valid and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            raise ValueError(
                f"data {name!r} has no option {option!r}{_near(option, valid)}; its options are {', '.join(valid)}"
            )
    own = {key: options.pop(key) for key in _OWN if drawn and key in options and options[key] is not None}
    if dataclasses.is_dataclass(target) or drawn:
        options = {key: value for key, value in options.items() if value is not None}
    made = target(**options)
    return GeneratedData(made, name=name.rpartition(":")[2], **own) if hasattr(made, "clip") else made


def _target(name: str) -> Any:
    where = name
    if ":" not in name:
        if name not in _DATA:
            raise ValueError(f"unknown data {name!r}{_near(name, _DATA)}; choose from {', '.join(_DATA)}, or give module:Name")
        where = f".{_DATA[name]}"
    module, _, attribute = where.partition(":")
    try:
        return getattr(importlib.import_module(module, __package__), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"data {name!r} cannot be loaded: {error}") from error


def _near(word: str, valid: Any) -> str:
    close = difflib.get_close_matches(word, list(valid), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
