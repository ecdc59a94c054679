"""Scripts of actions that a video model is steered with: recorded, random, or from a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ..video.clip import ActionSpace
from .errors import InputError

_WORDS = ("recorded", "random")


def choose_actions(
    choice: str,
    space: ActionSpace,
    recorded: Shaped[Any, "N B ..."] | None,
    horizon: int,
    clips: int,
    seed: int,
) -> Shaped[np.ndarray, "K B ..."] | None:
    """`[K, B]` int32 or `[K, B, A]` float32: the action that leads to each of `horizon` predicted frames.

    `choice` is `recorded`, the data's own (`recorded`, from the context's last frame on); `random`, uniform
    (continuous ones within [-1, 1]); or a file with one script for all clips, see `read_script`. None for
    data without actions. Raises `InputError` for too few, and for what isn't there or doesn't fit.
    """
    if space.kind == "none":
        if choice not in _WORDS:
            raise InputError(f"actions={choice} is of no use to data without actions; leave it out")
        return None
    if choice == "recorded":
        known = np.asarray(recorded)
        if len(known) < horizon:
            raise InputError(
                f"actions=recorded ends {horizon - len(known)} frames too early; use that many frames fewer, "
                "actions=random, or a file"
            )
        return known[:horizon]
    if choice == "random":
        generator = np.random.default_rng(seed)
        if space.kind == "discrete":
            return generator.integers(space.size, size=(horizon, clips)).astype(np.int32)
        return generator.uniform(-1, 1, size=(horizon, clips, space.size)).astype(np.float32)
    script = read_script(Path(choice), space)
    if len(script) < horizon:
        raise InputError(
            f"actions={choice} has {len(script)} actions and {horizon} frames are to be predicted; "
            f"give {horizon} or more, or fewer frames"
        )
    return np.repeat(script[:horizon, None], clips, axis=1)


def read_script(path: Path, space: ActionSpace) -> Shaped[np.ndarray, "K ..."]:
    """The actions in a file, one per predicted frame: `[K]` whole numbers, or `[K, A]` numbers.

    By its name's ending: `.npy`; `.npz` with `actions`; `.json`, a list or an object with the list
    `actions`; anything else is text, one action a line, the numbers of one parted by commas or blanks, `#`
    beginning a comment. Raises `InputError`, one sentence, for a file that is none of these or doesn't fit.
    """
    if not path.is_file():
        raise InputError(
            f"actions={path} is no file; use recorded, random, or a file of actions: .npy, .npz, .json, text"
        )
    read = _READERS.get(path.suffix.lower(), _text)
    try:
        values = np.asarray(read(path))
    except (OSError, ValueError, KeyError, EOFError, UnicodeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"actions={path} cannot be read ({why}); give .npy, .npz or .json with `actions`, or text with "
            "one action a line"
        ) from error
    discrete = space.kind == "discrete"
    if values.ndim == 2 and values.shape[1] == 1 and discrete:
        values = values[:, 0]
    if values.ndim == 1 and space.size == 1 and not discrete:
        values = values[:, None]
    fits = values.ndim == 1 if discrete else values.ndim == 2 and values.shape[1] == space.size
    if not fits or values.dtype.kind not in ("iu" if discrete else "iuf"):
        wanted = "whole numbers, one a frame" if discrete else f"{space.size} numbers a frame"
        raise InputError(f"actions={path} holds {_kind(values)} of shape {list(values.shape)}; give {wanted}")
    if discrete and (wrong := values[(values < 0) | (values >= space.size)]).size:
        raise InputError(f"actions={path} has the action {wrong[0]}; use 0 to {space.size - 1}")
    if not discrete and not np.isfinite(values).all():
        raise InputError(f"actions={path} has a number that is not finite; give finite ones")
    return values.astype(np.int32 if discrete else np.float32)


def _kind(values: np.ndarray) -> str:
    return {"i": "whole numbers", "u": "whole numbers", "f": "numbers", "b": "true and false"}.get(
        values.dtype.kind, "no numbers"
    )


def _npy(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


def _npz(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["actions"]


def _json(path: Path) -> Any:
    values = json.loads(path.read_text(encoding="utf-8"))
    return values["actions"] if isinstance(values, dict) else values


def _text(path: Path) -> Any:
    lines = path.read_text(encoding="utf-8").splitlines()
    parts = [line.partition("#")[0].replace(",", " ").split() for line in lines]
    words = [part for part in parts if part]
    try:
        return [[int(word) for word in line] for line in words]
    except ValueError:
        return [[float(word) for word in line] for line in words]


_READERS: dict[str, Callable[[Path], Any]] = {".npy": _npy, ".npz": _npz, ".json": _json}
