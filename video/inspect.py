"""What is in a folder of videos, in words."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .manifest import Manifest, action_space, convention, split
from .shards import nice_bytes
from .survey import Checked, Survey, survey

_READ_AS = {
    "next": "actions[t] leads to frame t + 1, as stored",
    "previous": "stored as what led to frame t: actions[t] is the file's [t + 1], the last is none",
    "none": "ignored",
}


def inspect(
    what: Manifest | Survey | str | os.PathLike[str] | Any, actions: str | None = None, **options: Any
) -> list[str]:
    """A data set in a few lines: clips, formats, splits, lengths, sizes, actions, the cache, and what is bad.

    `what` is a folder, whose `options` are those of `survey` and which may hold bad clips; a survey; a
    manifest; or data made of one. `actions` is the option of `ingest`.
    """
    what = getattr(what, "manifest", what)
    notes: tuple[str, ...] = ()
    if isinstance(what, Manifest):
        found, notes, actions = what.survey, what.notes, what.convention
    else:
        found = what if isinstance(what, Survey) else survey(Path(what), **options)
    good = found.good
    lines = [f"{found.root}: {_clips(len(found.clips))}, {len(good)} usable"]
    if good:
        lengths = np.array([clip.usable.frames for clip in good])
        lines += [
            _line("formats", _counted(clip.source.format for clip in good)),
            _line("split", _split(good)),
            _line(
                "frames",
                f"{lengths.min()} to {lengths.max()}, median {np.median(lengths):g}; {lengths.sum()} in all",
            ),
            _line(
                "sizes",
                f"{_counted(f'{clip.usable.width} x {clip.usable.height}' for clip in good)}; read as "
                f"{found.size} x {found.size} with {found.channels} channel{'s' * (found.channels > 1)}",
            ),
            _line("fps", _counted(f"{clip.usable.fps:g}" if clip.usable.fps else "unknown" for clip in good)),
            _line("codecs", _counted(clip.usable.codec for clip in good)),
            *_actions(good, actions),
        ]
    lines.append(_line("files", nice_bytes(_size(found))))
    known = f"{found.remembered} of {_clips(len(found.clips))} known from last time"
    copies = f"{nice_bytes(sum(found.shards))} of copies" if found.shards else "no copies"
    lines.append(_line("cache", f"{found.folder}: {known}, {copies}"))
    lines += [_line("note", note) for note in notes]
    lines += [_line("bad", f"{name}: {reason}") for name, reason in found.bad]
    return lines


def _split(good: tuple[Checked, ...]) -> str:
    try:
        train, test, notes = split([clip.source for clip in good])
    except ValueError as error:
        return str(error)
    if notes:
        return notes[0]
    how = "as the folders or lists have it" if good[0].source.split else "by the names' hash"
    return f"{len(train)} train, {len(test)} test, {how}"


def _actions(good: tuple[Checked, ...], actions: str | None) -> list[str]:
    try:
        space = action_space(good)
    except ValueError as error:
        return [_line("actions", str(error))]
    if space.kind == "none":
        return [_line("actions", "none")]
    what = f"{space.size} discrete" if space.kind == "discrete" else f"continuous, {space.size} wide"
    ways = sorted({(convention(clip.source, actions), clip.source.format) for clip in good})
    return [_line("actions", f"{what}; {format}: {_READ_AS[way]}") for way, format in ways]


def _size(found: Survey) -> int:
    """Bytes of all files; clips of one file share them."""
    return sum({clip.source.path: clip.bytes for clip in found.clips}.values())


def _counted(values: Iterable[str]) -> str:
    counts = Counter(values).most_common()
    shown = ", ".join(f"{value} ({n})" if len(counts) > 1 else value for value, n in counts[:6])
    return shown + (f" and {len(counts) - 6} more" if len(counts) > 6 else "")


def _clips(count: int) -> str:
    return f"{count} clip{'s' if count != 1 else ''}"


def _line(name: str, text: str) -> str:
    return f"{name:<8} {text}"
