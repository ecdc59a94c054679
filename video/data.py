"""Data sets of videos: what they offer, and how they are made by name."""

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int, UInt8

from .clip import ActionSpace, Clip

ENDLESS = 2**31 - 1
"""The length of a clip that has no end."""

# name: module:Name of a world (drawn) or of a function that makes a data set; imported when one is made
_DATA = {
    "moving_digits": "worlds.digits:MovingDigits",
    "stochastic_digits": "worlds.digits:StochasticDigits",
    "occluder_recall": "worlds.occluder:OccluderRecall",
    "bouncing_balls": "worlds.balls:BouncingBalls",
    "maze_walk": "worlds.maze:MazeWalk",
    "photo_pans": "worlds.pans:PhotoPans",
    "folder": "folder:load_folder",
}
_DRAWN: Mapping[str, Any] = {"seed": 0, "length": None}  # options of all generated data beside the world's


class VideoData(Protocol):
    """Clips by number, in the splits `train` and `test`. Any number of threads may read."""

    @property
    def size(self) -> int:
        """Height and width of the frames."""
        ...

    @property
    def channels(self) -> int:
        """1 or 3."""
        ...

    @property
    def actions(self) -> ActionSpace:
        """What `Clip.actions` holds."""
        ...

    def count(self, split: str) -> int | None:
        """How many clips there are; None: endlessly many."""
        ...

    def lengths(self, split: str, ids: Int[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        """How many frames the clips have; `ENDLESS` for those without an end."""
        ...

    def read(
        self, split: str, ids: Int[np.ndarray, " B"], starts: Int[np.ndarray, " B"], frames: int
    ) -> Clip:
        """Frames `starts[b]` … `starts[b] + frames - 1` of clip `ids[b]`, numpy, `[frames, B, ...]`.

        `reset` is true where the clip itself says that another sequence begins: at its first frame, and
        inside a recording of several episodes. Raises `ValueError` for frames beyond a clip's end.
        """
        ...

    def truth(
        self, split: str, ids: Int[np.ndarray, " B"], starts: Int[np.ndarray, " B"], frames: int
    ) -> dict[str, np.ndarray]:
        """What is known of those frames, arrays `[frames, B, ...]`; empty where nothing is."""
        ...

    def measures(
        self,
        predicted: UInt8[np.ndarray, "T B H W C"],
        truth: dict[str, np.ndarray],
        context: dict[str, np.ndarray] | None = None,
    ) -> dict[str, Float[np.ndarray, "T B"]]:
        """Measures of predicted frames that the truth allows; NaN where undefined.

        `context` is the truth of the frames that the model was given. Where measures should be summed up not
        only by frame, but by what is true of a whole clip, the data has `groups`, too: a mapping from the
        measure's name to that of the truth, such as `{"recall": "delay"}`. Where the future is open, it has
        `samples`: over how many futures of a clip predictions are judged, unless the run says otherwise.
        """
        ...

    def describe(self) -> list[str]:
        """What the data is, a line each."""
        ...


def data_names() -> list[str]:
    """The names that `make_data` takes; any `module:Name` of your own works beside them."""
    return [*_DATA]


def data_options(name: str) -> dict[str, Any]:
    """The options of a data set and their defaults (`dataclasses.MISSING` where one must be given).

    Raises `ValueError` for an unknown name.
    """
    return _options(_target(name))


def make_data(name: str, **options: Any) -> VideoData:
    """A data set by name, or your own by `module:Name`.

    What is named makes an object with `read` (see `VideoData`) or a world with `clip` (see `World` in
    generated.py), which becomes a `GeneratedData` and has its options `seed` and `length` beside its own. For
    a world an option that is None takes its default, and a list stands for a tuple. Raises `ValueError`,
    naming the valid ones, for an unknown name or option.
    """
    target = _target(name)
    valid = _options(target)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in _parameters(target))
    for option in options:
        if option not in valid and not takes_any:
            has = f"its options are {', '.join(valid)}" if valid else "it has none"
            raise ValueError(f"data {name!r} has no option {option!r}{_near(option, valid)}; {has}")
    if hasattr(target, "clip"):
        options = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in options.items()
            if value is not None
        }
    missing = [o for o, default in valid.items() if default is dataclasses.MISSING and o not in options]
    if missing:
        raise ValueError(f"data {name!r} needs the option {missing[0]!r}")
    own_names = _DRAWN.keys() - {p.name for p in _parameters(target)} if hasattr(target, "clip") else ()
    own = {key: options.pop(key) for key in own_names if key in options}
    made = target(**options)
    if hasattr(made, "read"):
        return made
    if not hasattr(made, "clip"):
        raise ValueError(f"data {name!r} makes a {type(made).__name__}, which has neither `read` nor `clip`")
    from .generated import GeneratedData

    return GeneratedData(made, name=name.rpartition(":")[2], **own)


def _target(name: str) -> Any:
    """What makes the data: a class or a function."""
    if ":" not in name and name not in _DATA:
        choices = ", ".join(_DATA)
        raise ValueError(
            f"unknown data {name!r}{_near(name, _DATA)}; choose from {choices}, or give module:Name"
        )
    module, _, attribute = (name if ":" in name else f".{_DATA[name]}").partition(":")
    try:
        target = getattr(importlib.import_module(module, __package__), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"data {name!r} cannot be loaded: {error}") from error
    if not callable(target):
        raise ValueError(f"data {name!r} is a {type(target).__name__}; name a class or a function instead")
    return target


def _options(target: Any) -> dict[str, Any]:
    named = {
        p.name: dataclasses.MISSING if p.default is p.empty else p.default
        for p in _parameters(target)
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and not isinstance(p.default, ActionSpace)
    }
    return dict(_DRAWN) | named if hasattr(target, "clip") else named


def _parameters(target: Any) -> list[inspect.Parameter]:
    return [*inspect.signature(target).parameters.values()]


def _near(word: str, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, [*valid], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
