"""Which frames training sees at which step: a function of the seed and a cursor, which a run resumes from."""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from .clip import Clip
from .data import ENDLESS, VideoData

Ids = Int[np.ndarray, " B"]


def read_windows(
    data: VideoData, split: str, ids: Ids, starts: Ids, frames: int, on_device: bool = False
) -> Clip:
    """Frames `starts[b]` … of clip `ids[b]`, each beginning a sequence of its own: `reset[0]` is true.

    `on_device` leaves frames that are drawn where they are drawn (by a data set with `read_on_device`), so
    that a step of training waits for no copy to the host and back.
    """
    read = getattr(data, "read_on_device", data.read) if on_device else data.read
    clip = read(split, ids, starts, frames)
    reset = np.array(clip.reset)
    reset[0] = True
    return clip._replace(reset=reset)


@dataclasses.dataclass(frozen=True)
class Windows:
    """Independent clips of `frames` frames.

    Of endless data every step brings new videos, from their beginning. Otherwise every clip that is long
    enough comes once an epoch, in an order of that epoch's own, from a random frame on; an epoch's last step
    is filled up from the next epoch. Raises `ValueError` where no clip is long enough.
    """

    data: VideoData
    split: str
    batch: int
    frames: int
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least_one(batch=self.batch, frames=self.frames)
        _ = self._long_enough

    @functools.cached_property
    def _long_enough(self) -> Ids:
        return long_enough(self.data, self.split, self.frames)

    def at(self, step: int) -> tuple[Ids, Ids]:
        """The clips of step `step` (from 0), and the frames that they begin at; int64 `[B]`."""
        places = step * self.batch + np.arange(self.batch, dtype=np.int64)
        if self.data.count(self.split) is None:
            return places, np.zeros_like(places)
        known = self._long_enough
        ids = known[_shuffled(len(known), self.seed, places // len(known), places % len(known))]
        room = self.data.lengths(self.split, ids) - self.frames + 1
        draws = _generator(self.seed, step, 1).random(self.batch)
        return ids, (draws * room).astype(np.int64)


class Cursor(NamedTuple):
    """Where each row of a stream stands: how many clips lie behind it, and the frame inside its clip."""

    clips: Int[np.ndarray, " B"]
    frame: Int[np.ndarray, " B"]


class Segments(NamedTuple):
    """Parts of clips that go into a piece of a stream, at most one a row.

    Frames `starts` … `starts + takes - 1` of clips `ids`, which end after `lengths` frames, go to the rows
    `rows` from frame `places` of the piece on; all int64 `[n]`.
    """

    rows: Ids
    places: Ids
    ids: Ids
    starts: Ids
    takes: Ids
    lengths: Ids


@dataclasses.dataclass(frozen=True)
class Streams:
    """Whole clips one after the other, in pieces of `chunk` frames, for memories that go on across pieces.

    A piece has `chunk + 1` frames: its last is the first of the next piece, so that every frame but the
    clips' first is predicted once. `reset` is true at each clip's first frame, wherever in a piece it falls,
    and the action at a clip's last frame is none. Nothing grows with the number of pieces.

    Clips of two frames or more are dealt out to the rows in turn, in an order of each epoch's own: row b gets
    every `batch`-th from b on, so that together the rows see every clip once an epoch. Where there are fewer
    clips than rows, the rows that share a clip begin at different frames of it. Of endless data row b gets
    the clips b, b + batch, …

    `length` ends clips that are longer; endless data without an end of their own need it. Raises `ValueError`
    where they lack it and where there is no clip.
    """

    data: VideoData
    split: str
    batch: int
    chunk: int
    seed: int = 0
    length: int | None = None

    def __post_init__(self) -> None:
        _at_least_one(batch=self.batch, chunk=self.chunk)
        if self.length is not None and self.length < 2:
            raise ValueError(f"length={self.length} leaves nothing to predict in a clip; use 2 or more")
        known = self._known
        if self._endless and self._lengths(known)[0] >= ENDLESS:
            raise ValueError("a stream of endless videos needs their length; give length=")

    @functools.cached_property
    def _known(self) -> Ids:
        return long_enough(self.data, self.split, 2)

    @functools.cached_property
    def _endless(self) -> bool:
        return self.data.count(self.split) is None

    def first(self) -> Cursor:
        """Every row at the beginning of its first clip, but for rows that share one; int64."""
        clips, rows = np.zeros(self.batch, np.int64), np.arange(self.batch)
        if self._endless:
            return Cursor(clips, clips.copy())
        known = len(self._known)
        sharing = (self.batch - 1 - rows % known) // known + 1  # how many rows have this row's clip
        return Cursor(clips, self._lengths(self._ids(rows, clips)) * (rows // known) // sharing)

    def plan(self, cursor: Cursor) -> tuple[list[Segments], Cursor]:
        """What the piece at a cursor consists of, and the cursor of the next; reads nothing.

        Raises `ValueError` where the cursor is not of this data.
        """
        clips, frame = (np.array(leaf, np.int64) for leaf in cursor)
        rows, filled = np.arange(self.batch), np.zeros(self.batch, np.int64)
        plan = []
        while len(rows):
            ids = self._ids(rows, clips[rows])
            starts, lengths = frame[rows], self._lengths(ids)
            if (starts >= lengths).any():
                raise ValueError(
                    f"the stream stands at frame {starts[starts >= lengths][0]} of a clip of "
                    f"{lengths[starts >= lengths][0]} frames: the data or its options have changed since; "
                    "go on with the old ones or begin a new run"
                )
            takes = np.minimum(self.chunk + 1 - filled[rows], lengths - starts)
            plan.append(Segments(rows, filled[rows], ids, starts, takes, lengths))
            filled[rows] += takes
            unfilled = filled[rows] <= self.chunk
            # a full row stays at its last frame, which comes again; the others go on to their next clip
            frame[rows] = np.where(unfilled, 0, starts + takes - 1)
            clips[rows] += unfilled
            rows = rows[unfilled]
        return plan, Cursor(clips, frame)

    def advance(self, cursor: Cursor) -> Cursor:
        """The next piece's cursor, without reading this one."""
        return self.plan(cursor)[1]

    def next(self, cursor: Cursor) -> tuple[Clip, Cursor]:
        """The piece `[chunk + 1, B]` at a cursor, numpy, and the cursor of the next."""
        plan, after = self.plan(cursor)
        shape, image = (self.chunk + 1, self.batch), (self.data.size, self.data.size, self.data.channels)
        frames: Any = np.empty((*shape, *image), np.uint8)
        actions: Any = self.data.actions.nothing(*shape)
        reset: Any = np.zeros(shape, bool)
        for segments in plan:
            for clip, part in self._read_alike(segments):
                for k, (row, place, _, start, take, length) in enumerate(zip(*part, strict=True)):
                    # what was read ends with the segment or, where it was shifted, with the clip
                    skip = start - min(start, length - len(clip.frames))
                    to, of = slice(place, place + take), slice(skip, skip + take)
                    frames[to, row], reset[to, row] = clip.frames[of, k], clip.reset[of, k]
                    reset[place, row] |= start == 0
                    if actions is not None and clip.actions is not None:
                        kept = take - (start + take == length)
                        actions[place : place + kept, row] = clip.actions[skip : skip + kept, k]
        return Clip(frames, actions, reset), after

    def _read_alike(self, segments: Segments) -> list[tuple[Clip, Segments]]:
        """The segments in groups that are read with one call each, and what was read.

        Endless data is drawn by programs that are compiled for a number of frames: of those always as many
        are read as a piece or a whole clip has, beginning earlier where the clip would end before.
        """
        takes = np.minimum(self.chunk + 1, segments.lengths) if self._endless else segments.takes
        groups = []
        for count in np.unique(takes):
            part = Segments(*(field[takes == count] for field in segments))
            starts = np.minimum(part.starts, part.lengths - count)
            groups.append((self.data.read(self.split, part.ids, starts, int(count)), part))
        return groups

    def _ids(self, rows: Ids, clips: Ids) -> Ids:
        """Each row's clip number `clips`."""
        if self._endless:
            return clips * self.batch + rows
        known = self._known
        total = -(-self.batch // len(known)) * len(known)  # an epoch has every clip this often: once, or more
        share = -(-(total - rows) // self.batch)  # how many of an epoch's clips are the row's
        place = clips % share * self.batch + rows
        return known[_shuffled(len(known), self.seed, clips // share, place % len(known))]

    def _lengths(self, ids: Ids) -> Ids:
        lengths = np.asarray(self.data.lengths(self.split, ids), np.int64)
        return lengths if self.length is None else np.minimum(lengths, self.length)


def long_enough(data: VideoData, split: str, frames: int) -> Ids:
    """The clips with at least `frames` frames; `[0]` of endless data, whose clips are all alike.

    Raises `ValueError` where there is none.
    """
    count = data.count(split)
    lengths = data.lengths(split, np.arange(1 if count is None else count))
    ids = np.flatnonzero(lengths >= frames)
    if len(lengths) == 0:
        raise ValueError(f"there are no {split} clips; give the data at least one clip for this split")
    if len(ids) == 0:
        raise ValueError(
            f"no {split} clip has {frames} frames (the longest has {lengths.max()}); "
            "use that many frames or fewer, or longer videos"
        )
    return ids


def _shuffled(count: int, seed: int, epochs: Ids, ranks: Ids) -> Ids:
    """What stands at each rank in the order of its epoch."""
    out = np.empty_like(ranks)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        out[here] = _order(count, seed, int(epoch))[ranks[here]]
    return out


@functools.lru_cache(maxsize=8)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return _generator(seed, epoch).permutation(count)


def _generator(*seeds: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seeds))


def _at_least_one(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be a whole number; use 1 or more")
