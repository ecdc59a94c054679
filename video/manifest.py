"""Usable clips of a folder: the splits, their actions in this package's convention, and fast copies.

The copies are the frames of all clips brought to one size, raw uint8, in a few large files of the cache. They
lie in a folder whose name stands for what was copied: who reads them can't meet another data set's.
"""

import dataclasses
import hashlib
import json
import math
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped

from .clip import ActionSpace
from .formats import Source
from .shards import fit, need_space, plan, replacing, shard_name
from .sources import BadClip, forget_arrays, frames_at_once, read_actions, read_source, recording_of
from .survey import Checked, Report, Survey, in_parallel, survey, unwritable, write_manifest

CONVENTIONS = ("next", "previous", "none")
_CONVENTION = {"teco": "previous", "far": "previous"}  # of the other formats: next
_NAMED = 3  # bad clips in one sentence
_TEST_SHARE = 10  # per cent
_COPY = "copy-"


@dataclasses.dataclass(frozen=True, eq=False)
class Manifest:
    """Usable clips, ready to be read.

    `train` and `test` are indices into `clips`. Clip i has `lengths[i]` frames, uint8 `[T, size, size,
    channels]`, `pixels[i]`; None where they are decoded while training. Its rows of `actions` (int32
    `[total]` or float32 `[total, A]`, already in this package's convention) and `resets` begin at `rows[i]`.
    `notes` are sentences for people, `convention` the option `actions`.
    """

    survey: Survey
    clips: tuple[Checked, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    space: ActionSpace
    lengths: np.ndarray
    rows: np.ndarray
    pixels: tuple[np.ndarray | None, ...]
    actions: Shaped[np.ndarray, "total ..."] | None
    resets: Bool[np.ndarray, " total"] | None
    notes: tuple[str, ...]
    convention: str | None = None


def ingest(
    root: str | os.PathLike[str],
    *,
    size: int = 64,
    channels: int = 3,
    actions: str | None = None,
    format: str = "auto",
    backend: str = "auto",
    min_frames: int = 2,
    max_bad: int = 0,
    cache: str | os.PathLike[str] | None = None,
    shards: bool = True,
    report: Report | None = None,
) -> Manifest:
    """Checks every clip below `root`, splits them, converts their actions and copies their frames.

    `actions` says what the files' `actions[t]` does: it leads to the `next` frame (t + 1), or it led from the
    `previous` one, in which case ours[t] = theirs[t + 1] and the last is none; `none` ignores them; None
    takes each format's own (TECO's and FAR's: previous; the others: next). Up to `max_bad` clips may be
    unusable. `cache` is where the cache's folders are made (default: `$XDG_CACHE_HOME` or `~/.cache`,
    `/resetta`). Without `shards` frames are decoded when they are read, and damage in a video's middle shows
    only then.

    Raises `ValueError`, one sentence, for more bad clips than that, for actions that some clips have and
    others don't or that differ in kind, and as `survey` does.
    """
    if actions not in (None, *CONVENTIONS):
        raise ValueError(f"actions={actions!r} is unknown; use one of {', '.join(CONVENTIONS)}, or null")
    if max_bad < 0:
        raise ValueError(f"max_bad={max_bad} must be at least 0, which lets no clip be unusable")
    found = survey(
        root,
        size=size,
        channels=channels,
        format=format,
        backend=backend,
        min_frames=min_frames,
        cache=cache,
        report=report,
    )
    _bearable(found, max_bad)
    if shards:
        found = _copied(found, report)
        _bearable(found, max_bad)
    forget_arrays()
    good = found.good
    train, test, notes = split([clip.source for clip in good])
    space = ActionSpace() if actions == "none" else action_space(good)
    lengths = np.array([clip.usable.frames for clip in good], np.int64)
    rows = np.cumsum(lengths) - lengths
    return Manifest(
        survey=found,
        clips=good,
        train=train,
        test=test,
        space=space,
        lengths=lengths,
        rows=rows,
        pixels=tuple(_pixels(found, good)) if shards else (None,) * len(good),
        actions=None if space.kind == "none" else _actions(good, space, actions),
        resets=_resets(good),
        notes=notes,
        convention=actions,
    )


def convention(source: Source, actions: str | None) -> str:
    """`next` or `previous`: what a clip's actions are taken to mean."""
    return actions or _CONVENTION.get(source.format, "next")


def split(sources: Sequence[Source]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]:
    """Indices of the training and test clips, and notes.

    As the folders or lists `train` and `test` have it; else the tenth whose names have the lowest SHA-256 is
    for testing, whatever their order and wherever the folder is. A single clip is in both. Raises
    `ValueError` where one of the two has no usable clip.
    """
    if any(source.split for source in sources):
        parts = {
            name: tuple(i for i, s in enumerate(sources) if s.split == name) for name in ("train", "test")
        }
        for name, part in parts.items():
            if not part:
                raise ValueError(
                    f"`{name}` has no usable clips beside the other; add some, or put all clips in one folder"
                )
        return parts["train"], parts["test"], ()
    if len(sources) == 1:
        return (0,), (0,), (f"{sources[0].name} is the only clip: it is trained on and tested on",)
    ranked = sorted(range(len(sources)), key=lambda i: hashlib.sha256(os.fsencode(sources[i].name)).digest())
    test = math.ceil(len(sources) * _TEST_SHARE / 100)
    return tuple(sorted(ranked[test:])), tuple(sorted(ranked[:test])), ()


def _bearable(found: Survey, max_bad: int) -> None:
    bad = found.bad
    if len(bad) > max_bad:
        first = "; ".join(f"{name}: {reason}" for name, reason in bad[:_NAMED])
        raise ValueError(
            f"{len(bad)} of {len(found.clips)} clips in {found.root} cannot be used (first: {first}); mend "
            f"or remove them, or allow them with data.max_bad={len(bad)}"
        )
    if not found.good:
        raise ValueError(f"none of the {len(bad)} clips in {found.root} can be used; mend them")


def action_space(clips: Sequence[Checked]) -> ActionSpace:
    """What all clips' actions have in common; raises `ValueError` where that is nothing."""
    kinds: dict[tuple[str, int], list[str]] = {}
    for clip in clips:
        facts = clip.usable
        width = facts.action_size if facts.action_kind == "continuous" else 0
        kinds.setdefault((facts.action_kind, width), []).append(clip.source.name)
    without = kinds.pop(("none", 0), [])
    if not kinds:
        return ActionSpace()
    if without:
        raise ValueError(
            f"{len(without)} of {len(clips)} clips have no actions (first: {without[0]}) while the others "
            "have; give all of them actions, or ignore them with data.actions=none"
        )
    if len(kinds) > 1:
        examples = " and ".join(
            f"{kind}{f' of width {width}' if width else ''} in {names[0]}"
            for (kind, width), names in kinds.items()
        )
        raise ValueError(f"actions are {examples}; store one kind, or ignore them with data.actions=none")
    return ActionSpace(next(iter(kinds))[0], max(clip.usable.action_size for clip in clips))


def _actions(
    clips: Sequence[Checked], space: ActionSpace, actions: str | None
) -> Shaped[np.ndarray, "total ..."]:
    """All clips' actions in this package's convention."""
    none, parts = space.nothing(1), []
    for clip in clips:
        stored = read_actions(clip.source)
        if stored is None or none is None or len(stored) != clip.usable.frames:
            raise ValueError(f"{clip.source.name} changed while it was read; start again")
        if convention(clip.source, actions) == "previous":
            stored = np.concatenate([stored[1:], none])
        parts.append(stored)
    return np.concatenate(parts)


def _resets(clips: Sequence[Checked]) -> Bool[np.ndarray, " total"] | None:
    """Where recordings say that another sequence begins inside a clip; None where there are no recordings."""
    if not any(clip.source.kind == "recording" for clip in clips):
        return None
    parts = []
    for clip in clips:
        parts.append(np.zeros(clip.usable.frames, bool))
        if clip.source.kind == "recording" and clip.source.index is not None:
            recording = recording_of(clip.source)
            parts[-1] = recording.rows(recording.resets, clip.source.index)
    return np.concatenate(parts)


def _in_place(clip: Checked, size: int, channels: int) -> bool:
    """Whether a clip's frames can be mapped where they are: a recording's of the same size."""
    facts = clip.usable
    return (
        clip.source.kind == "recording"
        and facts.height == facts.width == size
        and recording_of(clip.source).channels == channels
    )


def _copied(found: Survey, report: Report | None) -> Survey:
    """Every usable clip's frames in the cache, in one size; nothing is done where they are there already."""
    wanted = [clip for clip in found.good if not _in_place(clip, found.size, found.channels)]
    if all(clip.place is not None for clip in wanted) and _whole(found):
        return found
    each = found.size * found.size * found.channels
    places, sizes = plan([clip.usable.frames * each for clip in wanted])
    placed = {clip.source.name: place for clip, place in zip(wanted, places, strict=True)}
    named = json.dumps([(clip.source.name, clip.signature, clip.usable.frames) for clip in wanted])
    copy = _COPY + hashlib.sha256(named.encode()).hexdigest()[:12]
    faults: dict[str, str] = {}
    lock, done = threading.Lock(), 0
    try:
        (found.folder / copy).mkdir(exist_ok=True)
        need_space(found.folder, sum(sizes))
        for shard, size in enumerate(sizes):
            here = [clip for clip in wanted if placed[clip.source.name].shard == shard]
            with replacing(found.folder / copy / shard_name(shard)) as temporary:
                with temporary.open("wb") as file:
                    file.truncate(size)

                def one(clip: Checked, path: Path = temporary) -> str:
                    try:
                        _copy(clip, path, placed[clip.source.name].offset, found)
                    except BadClip as error:
                        with lock:
                            faults[clip.source.name] = str(error)
                    return clip.source.name

                for name in in_parallel(one, here):
                    done += 1
                    if report is not None:
                        report(done, len(wanted), name)
    except OSError as error:
        raise unwritable(found.folder, error) from error

    def after(clip: Checked) -> Checked:
        fault = faults.get(clip.source.name)
        if fault is not None:
            return dataclasses.replace(clip, facts=None, fault=fault, place=None)
        return dataclasses.replace(clip, place=placed.get(clip.source.name))

    found = dataclasses.replace(found, clips=tuple(map(after, found.clips)), copy=copy, shards=tuple(sizes))
    write_manifest(found)
    for old in found.folder.glob(f"{_COPY}*"):
        if old.name != copy:
            shutil.rmtree(old, ignore_errors=True)  # whoever reads them keeps them open
    return found


def _whole(found: Survey) -> bool:
    """Whether the copies are there and of the size they should be."""
    files = [found.folder / found.copy / shard_name(i) for i in range(len(found.shards))]
    return all(
        file.is_file() and file.stat().st_size == size for file, size in zip(files, found.shards, strict=True)
    )


def _copy(clip: Checked, path: Path, at: int, found: Survey) -> None:
    """A clip's frames into its place in a shard's file."""
    frames, block = clip.usable.frames, frames_at_once(clip.usable)
    out = np.memmap(path, np.uint8, "r+", at, (frames, found.size, found.size, found.channels))
    for start in range(0, frames, block):
        stop = min(start + block, frames)
        read = read_source(clip.source, np.arange(start, stop), found.backend)
        out[start:stop] = fit(read, found.size, found.channels)
    out.flush()


def _pixels(found: Survey, clips: Sequence[Checked]) -> Iterator[np.ndarray]:
    """Every clip's frames, mapped; each file is opened once, now."""
    files: dict[Path, np.ndarray] = {}
    for clip in clips:
        shape = (clip.usable.frames, found.size, found.size, found.channels)
        if _in_place(clip, found.size, found.channels) and clip.source.index is not None:
            recording = recording_of(clip.source)
            file, begin = recording.shard[clip.source.index], recording.offset[clip.source.index]
        elif clip.place is not None:
            file, begin = found.folder / found.copy / shard_name(clip.place.shard), clip.place.offset
        else:
            raise ValueError(f"{clip.source.name} changed while it was read; start again")
        if file not in files:
            files[file] = np.memmap(file, np.uint8, "r")
        yield files[file][begin : begin + math.prod(shape)].reshape(shape)
