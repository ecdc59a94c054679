"""One clip of any format: whether it can be used, its frames and its actions."""

import contextlib
import functools
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped, UInt8

from . import decode
from .clip import NO_ACTION
from .formats import Source, arrangement, array_key
from .recording import Recording, open_recording

_AT_ONCE = 256 << 20  # bytes of decoded frames held at a time
_LOCKS = tuple(threading.Lock() for _ in range(16))


class BadClip(ValueError):
    """A clip that can't be used; the message is why, without the clip's name."""


class Facts(NamedTuple):
    """What is known of a usable clip. `fps` is 0 where there is none.

    `action_kind` is none, discrete or continuous; `action_size` how many actions there are at least, or how
    wide one is.
    """

    frames: int
    height: int
    width: int
    fps: float
    codec: str
    action_kind: str = "none"
    action_size: int = 0


def check_source(source: Source, backend: str = "auto") -> Facts:
    """Opens a clip and reads as much of it as it takes to know that it is whole.

    Arrays and images are read entirely; of a video see `probe` in decode.py. Raises `BadClip`.
    """
    if source.fault:
        raise BadClip(source.fault)
    with _reasons(source):
        facts = _facts(source, backend)
        actions = read_actions(source)
        if actions is None:
            return facts
        if len(actions) != facts.frames:
            raise BadClip(f"it has {len(actions)} actions and {facts.frames} frames")
        if actions.ndim == 2:
            return facts._replace(action_kind="continuous", action_size=actions.shape[1])
        return facts._replace(action_kind="discrete", action_size=_how_many(source, actions))


def read_source(
    source: Source, indices: Int[np.ndarray, " n"], backend: str = "auto"
) -> UInt8[np.ndarray, "n H W C"]:
    """Those frames of a clip in their own size, with 1 or 3 channels. Raises `BadClip`."""
    with _reasons(source):
        if source.kind == "video":
            return decode.read_frames(source.path, indices, backend)
        if source.kind == "images":
            frames = [_picture(_images(source)[i]) for i in indices]
            if len({frame.shape for frame in frames}) > 1:
                raise BadClip("its images differ in size")
            return np.stack(frames)
        if source.kind == "recording":
            return recording_of(source).pixels(_index(source))[indices]
        return np.asarray(_array(source)[indices])


def frames_at_once(facts: Facts) -> int:
    """How many frames of a clip may be held decoded at a time."""
    return max(_AT_ONCE // (facts.height * facts.width * 3), 1)


def read_actions(source: Source) -> Shaped[np.ndarray, "T ..."] | None:
    """The clip's actions as they are stored: int32 `[T]` or float32 `[T, A]`; None where it has none.

    Raises `BadClip` for negative, infinite or oddly shaped ones; a recording's may hold `NO_ACTION`.
    """
    with _reasons(source):
        if source.kind == "recording":
            recording = recording_of(source)
            return recording.rows(recording.actions, _index(source)) if recording.actions else None
        if source.actions is None and source.kind != "npz":
            return None
        where = Path(source.actions or source.path)
        with np.load(where, allow_pickle=False) as archive:
            if "actions" not in archive.files:
                if source.actions is None:
                    return None
                raise BadClip(f"{where.name} beside it holds {', '.join(archive.files)} and no `actions`")
            actions = archive["actions"]
        return _well_formed(actions)


def _well_formed(actions: np.ndarray) -> np.ndarray:
    if actions.dtype.kind in "biu":
        if actions.ndim == 2 and actions.shape[1] == 1:
            actions = actions[:, 0]
        if actions.ndim != 1:
            raise BadClip(f"its actions are whole numbers of shape {actions.shape} instead of [T]")
        if actions.size and (actions.min() < 0 or actions.max() > 2**31 - 2):
            raise BadClip(
                f"its actions run from {actions.min()} to {actions.max()}; they are numbered from 0 on"
            )
        return actions.astype(np.int32)
    if actions.dtype.kind == "f":
        actions = actions[:, None] if actions.ndim == 1 else actions
        if actions.ndim != 2:
            raise BadClip(f"its actions have shape {actions.shape} instead of [T, A]")
        if not np.isfinite(actions).all():
            raise BadClip("its actions are not all finite")
        return actions.astype(np.float32)
    raise BadClip(f"its actions are {actions.dtype}; use whole numbers [T] or floating-point ones [T, A]")


def _how_many(source: Source, actions: np.ndarray) -> int:
    """At least one more than the highest action, or what the file says there are."""
    if source.kind == "recording":
        return recording_of(source).action_space.size
    with np.load(source.actions or source.path, allow_pickle=False) as archive:
        stated = int(archive["num_actions"]) if "num_actions" in archive.files else 0
    return max(stated, int(actions.max(initial=NO_ACTION)) + 1)


def _facts(source: Source, backend: str) -> Facts:
    if source.kind == "video":
        info = decode.probe(source.path, backend)
        return Facts(info.frames, info.height, info.width, float(info.fps), info.codec)
    if source.kind == "images":
        shapes = {_picture(file).shape for file in _images(source)}
        if len(shapes) > 1:
            raise BadClip("its images differ in size")
        height, width, _ = shapes.pop()
        codec = Path(source.files[0]).suffix.lower().lstrip(".").replace("jpeg", "jpg")
        return Facts(len(_images(source)), height, width, 0.0, codec)
    if source.kind == "recording":
        recording = recording_of(source)
        height, width = recording.size
        return Facts(recording.frames[_index(source)], height, width, 0.0, "raw")
    frames, height, width, channels = _array(source).shape
    if channels not in (1, 3) or not height or not width:
        raise BadClip(f"its frames have shape {(height, width, channels)} instead of [H, W, 1] or [H, W, 3]")
    return Facts(frames, height, width, 0.0, Path(source.path).suffix.lower().lstrip("."))


def _index(source: Source) -> int:
    if source.index is None:
        raise BadClip("it holds no clips")
    return source.index


def _images(source: Source) -> tuple[str, ...]:
    return source.files[:-1] if source.actions else source.files


def _picture(path: str) -> UInt8[np.ndarray, "H W 3"]:
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.mode.startswith(("I", "F")):
                raise BadClip(f"{Path(path).name} has more than 8 bits a pixel")
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadClip(f"{Path(path).name} is not a whole image ({error})") from error


def recording_of(source: Source) -> Recording:
    """The recording that a clip of kind recording is part of."""
    return _open_recording(source.path, Path(source.path, "manifest.json").stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _open_recording(folder: str, changed: int) -> Recording:
    return open_recording(folder)


def _array(source: Source) -> UInt8[np.ndarray, "T H W C"]:
    """The clip's part of its array; the array stays in memory (an .npz) or mapped (an .npy) for the next."""
    with _LOCKS[hash(source.path) % len(_LOCKS)]:  # or every thread would load the same large file
        whole = _load(source.path, os.stat(source.path).st_mtime_ns)
    if source.kind == "npz":
        clip = whole
    else:
        axes = arrangement(whole.shape, Path(source.path).suffix.lower())
        clip = whole if "n" not in axes else whole[:, source.index] if axes[0] == "t" else whole[source.index]
    if clip.ndim not in (3, 4):
        raise BadClip(f"`video` has shape {clip.shape} instead of [T, H, W, C]")
    return clip if clip.ndim == 4 else clip[..., None]


def forget_arrays() -> None:
    """Gives back the memory of the arrays that were read last."""
    _load.cache_clear()


@functools.lru_cache(maxsize=2)
def _load(path: str, changed: int) -> np.ndarray:
    array: Any
    if path.lower().endswith(".npy"):
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "mmap length" in str(error):  # all that numpy says of an array whose end is missing
                raise BadClip("is truncated: it has fewer bytes than its header declares") from error
            raise
    else:
        with np.load(path, allow_pickle=False) as archive:
            array = archive[array_key(archive.files) or "video"]
    if array.dtype != np.uint8:
        raise BadClip(f"its frames are {array.dtype}; store uint8, 0 to 255")
    return array


@contextlib.contextmanager
def _reasons(source: Source) -> Iterator[None]:
    """Whatever a damaged file makes its reader raise, as a `BadClip`."""
    try:
        yield
    except BadClip:
        raise
    except zipfile.BadZipFile as error:
        raise BadClip(f"it is not a whole .npz ({error})") from error
    except MemoryError as error:
        raise BadClip("it does not fit into memory") from error
    except KeyError as error:
        raise BadClip(f"it has no {error}") from error
    except (ValueError, OSError, EOFError, RuntimeError, NotImplementedError, zlib.error) as error:
        # The reader names the file, and whoever lists bad clips names them anyway.
        text = str(error).removeprefix(f"{source.path}: ").removeprefix(f"{source.path} ")
        raise BadClip(text.rstrip(".") or type(error).__name__) from error
