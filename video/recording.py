"""Recordings: an agent's frames, actions, rewards and resets as a folder that any data loader can read.

A recording is a folder with these files, all little-endian:

- `manifest.json`: `{"kind": "resetta-recording", "version": 1, "size": [H, W], "channels": C,
  "frames": [frames of each clip], "shards": ["frames-00000.bin", ...], "actions": "actions.npy" or null,
  "action_space": {"kind": "none" | "discrete" | "continuous", "size": n},
  "rewards": "rewards.npy", "resets": "resets.npy"}`
- the shards: raw uint8 `[frames, H, W, C]`, clip after clip; a clip lies whole in one shard.
- `actions.npy`: int32 `[total]` (-1: none) or float32 `[total, size]`; `actions[t]` leads from frame t to
  t + 1.
- `rewards.npy`: float32 `[total]`, the reward that came with frame t.
- `resets.npy`: bool `[total]`, true where frame t is the first of a new sequence. A clip may hold several.

The arrays run over all clips, one after the other. File names are plain names inside the folder.
"""

import dataclasses
import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from .clip import NO_ACTION, ActionSpace

KIND, VERSION = "resetta-recording", 1
SHARD_BYTES = 2 << 30


class RecordingWriter:
    """Writes a recording clip by clip; the folder appears when it is complete, at `close`.

    Used in a `with` block it is closed at the end, or discarded when the block fails. `size` is H = W or
    `(H, W)`. Raises `ValueError` where `folder` holds something already or can't be written to.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        size: int | tuple[int, int],
        channels: int,
        action_space: ActionSpace,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.folder = Path(folder).absolute()
        self._shape = (*((size, size) if isinstance(size, int) else size), channels)
        self._actions = action_space
        self._shard_bytes = shard_bytes
        self._frames: list[int] = []
        self._parts: dict[str, list[np.ndarray]] = {"actions": [], "rewards": [], "resets": []}
        self._shards: list[str] = []
        self._shard: BinaryIO | None = None
        _refuse_full(self.folder)
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._part = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent))
        except OSError as error:
            raise ValueError(
                f"cannot write {self.folder}: {error.strerror or error}; choose a folder you may write to"
            ) from error

    def add(
        self,
        frames: UInt8[np.ndarray, "T H W C"],
        actions: Shaped[np.ndarray, "T ..."] | None,
        rewards: Float[np.ndarray, " T"],
        resets: Bool[np.ndarray, " T"],
    ) -> None:
        """One more clip; `actions` is None where the action space is none.

        Raises `ValueError` for arrays of another length, shape or type than this recording has.
        """
        frames = np.asarray(frames)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != self._shape or not len(frames):
            raise ValueError(
                f"frames are {frames.dtype} {frames.shape}; this recording takes uint8 [T, "
                f"{', '.join(map(str, self._shape))}] with at least one frame"
            )
        total = len(frames)
        self._keep("rewards", np.asarray(rewards, np.float32), (total,))
        self._keep("resets", np.asarray(resets, bool), (total,))
        if self._actions.kind == "none":
            if actions is not None:
                raise ValueError("actions are given to a recording of action space none; give None")
        elif actions is None:
            raise ValueError(f"actions are missing; this recording has {self._actions.kind} ones")
        elif self._actions.kind == "discrete":
            actions = np.asarray(actions)
            if actions.size and not NO_ACTION <= actions.min() <= actions.max() < self._actions.size:
                raise ValueError(
                    f"actions from {actions.min()} to {actions.max()} are not all below "
                    f"{self._actions.size}; use 0 to {self._actions.size - 1}, or {NO_ACTION} for none"
                )
            self._keep("actions", actions.astype(np.int32), (total,))
        else:
            self._keep("actions", np.asarray(actions, np.float32), (total, self._actions.size))
        shard = self._shard
        if shard is None or (shard.tell() and shard.tell() + frames.nbytes > self._shard_bytes):
            if shard is not None:
                _finish(shard)
            self._shards.append(f"frames-{len(self._shards):05d}.bin")
            shard = self._shard = (self._part / self._shards[-1]).open("wb")
        shard.write(np.ascontiguousarray(frames).data)
        self._frames.append(total)

    def close(self) -> Path:
        """Completes the recording and gives it its name; returns the folder.

        Raises `ValueError` for a recording without clips.
        """
        if self._shard is None:
            self.discard()
            raise ValueError(f"the recording {self.folder} has no clips; add at least one before closing it")
        _finish(self._shard)
        for name, parts in self._parts.items():
            if parts:
                with (self._part / f"{name}.npy").open("wb") as file:
                    np.save(file, np.concatenate(parts), allow_pickle=False)
                    _flush(file)
        manifest = {
            "kind": KIND,
            "version": VERSION,
            "size": list(self._shape[:2]),
            "channels": self._shape[2],
            "frames": self._frames,
            "shards": self._shards,
            "actions": "actions.npy" if self._parts["actions"] else None,
            "action_space": dataclasses.asdict(self._actions),
            "rewards": "rewards.npy",
            "resets": "resets.npy",
        }
        with (self._part / "manifest.json").open("wb") as file:
            file.write(json.dumps(manifest, indent=1).encode())
            _flush(file)
        mask = os.umask(0)
        os.umask(mask)
        self._part.chmod(0o777 & ~mask)  # mkdtemp's folders are private, and a recording is for sharing
        _refuse_full(self.folder)
        if self.folder.exists():
            self.folder.rmdir()
        self._part.rename(self.folder)
        return self.folder

    def discard(self) -> None:
        """Removes what was written so far."""
        if self._shard is not None:
            self._shard.close()
        shutil.rmtree(self._part, ignore_errors=True)

    def __enter__(self) -> "RecordingWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _keep(self, name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
        if values.shape != shape:
            raise ValueError(f"{name} have shape {values.shape}; with these frames it must be {shape}")
        # A clip refused half-way leaves rows behind; they are cut to the clips that were taken.
        taken = self._parts[name][: len(self._frames)]
        self._parts[name] = [*taken, values.copy()]


@dataclasses.dataclass(frozen=True)
class Recording:
    """A recording opened for reading. Clip i has `frames[i]` frames of `size`, in file `shard[i]` from byte
    `offset[i]` on; its rows of the arrays begin at `row[i]`.
    """

    folder: Path
    size: tuple[int, int]
    channels: int
    frames: tuple[int, ...]
    shard: tuple[Path, ...]
    offset: tuple[int, ...]
    row: tuple[int, ...]
    action_space: ActionSpace
    actions: Path | None
    resets: Path
    files: tuple[Path, ...]

    def pixels(self, clip: int) -> UInt8[np.ndarray, "T H W C"]:
        """All frames of a clip, mapped and not read."""
        shape = (self.frames[clip], *self.size, self.channels)
        return np.memmap(self.shard[clip], np.uint8, "r", self.offset[clip], shape)

    def rows(self, file: Path, clip: int) -> np.ndarray:
        """A clip's part of one of the arrays."""
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        return np.array(array[self.row[clip] : self.row[clip] + self.frames[clip]])


def is_recording(folder: Path) -> bool:
    """Whether the folder has a manifest that says so."""
    try:
        return _manifest(folder).get("kind") == KIND
    except (OSError, ValueError):
        return False


def open_recording(folder: str | os.PathLike[str]) -> Recording:
    """Reads the manifest and checks every file's size against it.

    Raises `ValueError`, one sentence, for anything that isn't as this module's page says.
    """
    folder = Path(folder).resolve()
    try:
        _inside(folder, "manifest.json")
        return _opened(folder, _manifest(folder))
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise ValueError(f"the recording's manifest.json {what}; record it again") from error


def _opened(folder: Path, manifest: dict[str, Any]) -> Recording:
    if manifest["kind"] != KIND or manifest["version"] != VERSION:
        raise ValueError(
            f"{manifest['kind']!r} of version {manifest['version']!r} is not {KIND!r} of version {VERSION}; "
            "record it again"
        )
    (height, width), channels, frames = manifest["size"], manifest["channels"], tuple(manifest["frames"])
    numbers = (height, width, channels, *frames)
    if not frames or any(type(n) is not int or n < 1 for n in numbers) or channels not in (1, 3):
        raise ValueError("the recording's sizes are not all whole numbers above 0; record it again")
    row = tuple(itertools.accumulate(frames, initial=0))
    shards = [_inside(folder, name) for name in manifest["shards"]]
    sizes = [shard.stat().st_size for shard in shards]
    of, offset = _places(sizes, [n * height * width * channels for n in frames])
    space = ActionSpace(**manifest["action_space"])
    actions = None if space.kind == "none" else _inside(folder, manifest["actions"])
    rewards, resets = (_inside(folder, manifest[name]) for name in ("rewards", "resets"))
    wanted: list[tuple[Path | None, type, tuple[int, ...]]] = [
        (actions, np.int32, (row[-1],)),
        (rewards, np.float32, (row[-1],)),
        (resets, np.bool_, (row[-1],)),
    ]
    if space.kind == "continuous":
        wanted[0] = (actions, np.float32, (row[-1], space.size))
    for file, dtype, shape in wanted:
        if file is None:
            continue
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(
                f"{file.name} is {array.dtype} {array.shape} instead of {np.dtype(dtype)} {shape}; "
                "record it again"
            )
    named = [file for file, *_ in wanted if file is not None]
    return Recording(
        folder=folder,
        size=(height, width),
        channels=channels,
        frames=frames,
        shard=tuple(shards[i] for i in of),
        offset=tuple(offset),
        row=row[:-1],
        action_space=space,
        actions=actions,
        resets=resets,
        files=(folder / "manifest.json", *shards, *named),
    )


def _places(sizes: list[int], clips: list[int]) -> tuple[list[int], list[int]]:
    """In which shard each clip lies and from which byte on: the shards are full one after the other."""
    shard, at, of, offset = 0, 0, [], []
    for size in clips:
        if shard < len(sizes) and at == sizes[shard]:
            shard, at = shard + 1, 0
        if shard == len(sizes) or at + size > sizes[shard]:
            break
        of.append(shard)
        offset.append(at)
        at += size
    if len(of) < len(clips) or shard != len(sizes) - 1 or at != sizes[shard]:
        raise ValueError(
            f"the recording's shards have {sum(sizes)} bytes where its clips need {sum(clips)}, each whole "
            "in one shard; copy or record it again"
        )
    return of, offset


def _inside(folder: Path, name: str) -> Path:
    """The file of that plain name in the folder: a manifest from elsewhere must not lead out of it."""
    if not name or Path(name).name != name or "\\" in name or (folder / name).resolve().parent != folder:
        raise ValueError(
            f"the recording names the file {name!r}, which must be a plain name inside its folder"
        )
    return folder / name


def _manifest(folder: Path) -> dict[str, Any]:
    values = json.loads((folder / "manifest.json").read_bytes())
    return values if isinstance(values, dict) else {}


def _refuse_full(folder: Path) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; choose another folder, or remove it first")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _finish(file: BinaryIO) -> None:
    _flush(file)
    file.close()
