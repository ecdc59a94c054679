"""Your own videos as a data set."""

import os
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from .clip import ActionSpace, Clip
from .inspect import inspect
from .manifest import Manifest, ingest
from .shards import fit
from .sources import read_source
from .survey import Report


class FolderData:
    """The clips of a `Manifest` as `VideoData`; any number of threads may read.

    Clips may differ in length. Nothing is known of them but their frames: `truth` and `measures` are empty.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._split = {
            "train": np.array(manifest.train, np.int64),
            "test": np.array(manifest.test, np.int64),
        }

    @property
    def size(self) -> int:
        """Height and width of the frames."""
        return self.manifest.survey.size

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.manifest.survey.channels

    @property
    def actions(self) -> ActionSpace:
        """What all clips' actions have in common."""
        return self.manifest.space

    def count(self, split: str) -> int:
        """How many clips there are."""
        return len(self._of(split))

    def lengths(self, split: str, ids: Int[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        """How many frames the clips have."""
        return self.manifest.lengths[self._chosen(split, ids)]

    def read(
        self, split: str, ids: Int[np.ndarray, " B"], starts: Int[np.ndarray, " B"], frames: int
    ) -> Clip:
        """Frames `starts[b]` … `starts[b] + frames - 1` of clip `ids[b]`, `[frames, B, ...]`.

        `reset` is true at a clip's first frame and where a recording says so. Raises `ValueError` for frames
        or clips beyond the end, and for a file that can't be read any more.
        """
        clips, starts = self._chosen(split, ids), np.asarray(starts, np.int64)
        lengths = self.manifest.lengths[clips]
        if outside := np.flatnonzero((starts < 0) | (starts + frames > lengths)).tolist():
            b = outside[0]
            raise ValueError(
                f"clip {int(ids[b])} of {split} has {lengths[b]} frames and {starts[b]} to "
                f"{starts[b] + frames - 1} were asked for; use shorter pieces or longer clips"
            )
        pixels: Any = np.empty((frames, len(clips), self.size, self.size, self.channels), np.uint8)
        for b, (clip, start) in enumerate(zip(clips.tolist(), starts.tolist(), strict=True)):
            pixels[:, b] = self._frames(clip, start, frames)
        rows = (self.manifest.rows[clips] + starts)[None] + np.arange(frames)[:, None]
        actions: Any = self.manifest.actions
        resets = self.manifest.resets
        reset: Any = np.zeros((frames, len(clips)), bool) if resets is None else resets[rows]
        reset[:1] |= starts == 0
        return Clip(pixels, None if actions is None else actions[rows], reset)

    def truth(
        self, split: str, ids: Int[np.ndarray, " B"], starts: Int[np.ndarray, " B"], frames: int
    ) -> dict[str, np.ndarray]:
        """Nothing."""
        return {}

    def measures(
        self,
        predicted: UInt8[np.ndarray, "T B H W C"],
        truth: dict[str, np.ndarray],
        context: dict[str, np.ndarray] | None = None,
    ) -> dict[str, Float[np.ndarray, "T B"]]:
        """None."""
        return {}

    def describe(self) -> list[str]:
        """What `inspect` says of it."""
        return inspect(self.manifest)

    def _frames(self, clip: int, start: int, frames: int) -> np.ndarray:
        mapped = self.manifest.pixels[clip]
        if mapped is not None:
            return mapped[start : start + frames]
        source, backend = self.manifest.clips[clip].source, self.manifest.survey.backend
        try:
            read = read_source(source, np.arange(start, start + frames), backend)
        except ValueError as error:
            raise ValueError(
                f"{source.name} cannot be read: {error}; mend or remove it, or use data.shards=true, which "
                "finds damaged clips beforehand"
            ) from error
        return fit(read, self.size, self.channels)

    def _of(self, split: str) -> np.ndarray:
        if split not in self._split:
            raise ValueError(f"split={split!r} is unknown; use train or test")
        return self._split[split]

    def _chosen(self, split: str, ids: Int[np.ndarray, " B"]) -> np.ndarray:
        part, ids = self._of(split), np.asarray(ids, np.int64)
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(part):
            wrong = ids.max() if ids.min() >= 0 else ids.min()
            raise ValueError(f"{split} has {len(part)} clips and no clip {wrong}; use 0 to {len(part) - 1}")
        return part[ids]


def load_folder(
    path: str | os.PathLike[str],
    size: int = 64,
    channels: int = 3,
    actions: str | None = None,
    format: str = "auto",
    backend: str = "auto",
    min_frames: int = 2,
    max_bad: int = 0,
    cache: str | os.PathLike[str] | None = None,
    shards: bool = True,
    *,
    report: Report | None = None,
) -> FolderData:
    """The clips below `path`, checked and made ready; see `ingest`, whose options these are."""
    return FolderData(
        ingest(
            path,
            size=size,
            channels=channels,
            actions=actions,
            format=format,
            backend=backend,
            min_frames=min_frames,
            max_bad=max_bad,
            cache=cache,
            shards=shards,
            report=report,
        )
    )
