"""Frames brought to one size, and kept as raw bytes in a few large files."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

SHARD_BYTES = 2 << 30
# ITU-R BT.601's luma, 0.299 R + 0.587 G + 0.114 B, in 65536ths: they sum to exactly 65536, so that a grey
# picture stays what it is.
_LUMA = np.array([19595, 38470, 7471], np.uint32)


class Place(NamedTuple):
    """Where a clip's frames lie: in which shard, and from which byte on."""

    shard: int
    offset: int


def fit(frames: UInt8[np.ndarray, "n H W C"], size: int, channels: int) -> UInt8[np.ndarray, "n size size c"]:
    """Frames as `size` × `size` with 1 or 3 channels.

    The middle square of each frame, resized by an antialiased bilinear filter where its side isn't `size`
    already; pixels of that size are untouched. Colour becomes grey by its luma (ITU-R BT.601), grey becomes
    colour by repetition.
    """
    if frames.shape[-1] == 3 and channels == 1:
        frames = ((frames @ _LUMA + 32768) >> 16).astype(np.uint8)[..., None]
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    frames = frames[:, top : top + side, left : left + side]
    if side != size:
        frames = _resized(frames, size)
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] < channels else frames


def plan(sizes: Sequence[int], limit: int = SHARD_BYTES) -> tuple[list[Place], list[int]]:
    """Where clips of these many bytes go, and each shard's bytes.

    A clip lies whole in one shard, and a shard holds at most `limit` bytes unless a single clip has more.
    """
    places: list[Place] = []
    shards: list[int] = []
    for size in sizes:
        if not shards or (shards[-1] and shards[-1] + size > limit):
            shards.append(0)
        places.append(Place(len(shards) - 1, shards[-1]))
        shards[-1] += size
    return places, shards


def shard_name(index: int) -> str:
    """The name of a shard's file."""
    return f"frames-{index:05d}.bin"


def need_space(folder: Path, size: int) -> None:
    """Raises `ValueError` where fewer than `size` bytes are free."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(
            f"the decoded frames need {nice_bytes(size)} in {folder}, where {nice_bytes(free)} are free; "
            "use data.shards=false to decode while training, or another place with data.cache=DIR"
        )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place when the block ends well and vanishes if not.

    Whoever has the old file mapped keeps it.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def nice_bytes(count: int) -> str:
    """A number of bytes for people: 999 bytes, 1.2 kB, 3.4 GB."""
    if count < 1000:
        return f"{count} bytes"
    units = ("kB", "MB", "GB", "TB")
    power = next((i for i in range(1, len(units)) if count < 999.95 * 1000**i), len(units))
    return f"{count / 1000**power:.1f} {units[power - 1]}"


def _resized(frames: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    grey = frames.shape[-1] == 1
    pictures = [Image.fromarray(np.ascontiguousarray(frame[..., 0] if grey else frame)) for frame in frames]
    # Pillow widens the bilinear filter with the reduction, so that nothing is skipped.
    out = [np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)) for picture in pictures]
    stacked = np.stack(out) if out else np.zeros((0, size, size, *(() if grey else (3,))), np.uint8)
    return stacked[..., None] if grey else stacked
