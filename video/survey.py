"""The check of every clip below a folder, remembered for the next time.

What was found out is kept in a folder of the cache, in `manifest.json`. A clip whose files have the same
names, sizes and times of change as before isn't opened again.
"""

import concurrent.futures
import dataclasses
import hashlib
import importlib.util
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from . import decode
from .formats import FORMATS, IMAGES, VIDEOS, Source, find_clips
from .shards import Place, replacing
from .sources import BadClip, Facts, check_source

Report = Callable[[int, int, str], None]
"""Called with how many clips are done, how many there are and the last one's name; first while they are
checked, and once more from the start while their frames are copied."""

_VERSION = 1
_MOST_THREADS = 32


@dataclasses.dataclass(frozen=True)
class Checked:
    """A clip after its check: `facts`, or `fault`, a reason why it can't be used.

    `short` is a reason against a clip that is whole. `signature` stands for the names, sizes and times of
    change of its files, `bytes` is their size and `mtime_ns` the latest of the times. `place` is where its
    frames lie in the cache's copies, if they do.
    """

    source: Source
    signature: str
    bytes: int
    mtime_ns: int
    facts: Facts | None = None
    fault: str | None = None
    short: str | None = None
    place: Place | None = None

    @property
    def reason(self) -> str | None:
        """Why it can't be used; None for a good clip."""
        return self.fault or self.short

    @property
    def usable(self) -> Facts:
        """The facts; raises `ValueError` for a bad clip."""
        if self.facts is None or self.reason:
            raise ValueError(f"{self.source.name}: {self.reason}")
        return self.facts


@dataclasses.dataclass(frozen=True)
class Survey:
    """All clips of a folder, the bad ones too. `remembered` of them were known from last time.

    `folder` is the cache's, and `shards` are the sizes in bytes of the files in its folder `copy`.
    """

    root: Path
    folder: Path
    size: int
    channels: int
    backend: str
    clips: tuple[Checked, ...]
    remembered: int
    copy: str = ""
    shards: tuple[int, ...] = ()

    @property
    def good(self) -> tuple[Checked, ...]:
        """Those that can be used."""
        return tuple(clip for clip in self.clips if not clip.reason)

    @property
    def bad(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of those that can't."""
        return tuple((clip.source.name, clip.reason) for clip in self.clips if clip.reason)


def survey(
    root: str | os.PathLike[str],
    *,
    size: int = 64,
    channels: int = 3,
    format: str = "auto",
    backend: str = "auto",
    min_frames: int = 2,
    cache: str | os.PathLike[str] | None = None,
    report: Report | None = None,
) -> Survey:
    """Finds and checks every clip and writes the manifest; bad clips are listed and stop nothing.

    Raises `ValueError` for a root without clips, for the reasons of `find_clips`, and where the cache
    can't be written to.
    """
    if channels not in (1, 3) or size < 1:
        raise ValueError(
            f"size={size} and channels={channels} make no frames; use a positive size and 1 or 3 channels"
        )
    if backend not in decode.BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown; use one of {', '.join(decode.BACKENDS)}")
    if backend == "decord" and importlib.util.find_spec("decord") is None:
        raise ValueError("backend=decord is not installed here; use data.backend=pyav, or auto")
    top = Path(root).expanduser().resolve()
    sources = find_clips(root, format)
    if not sources:
        raise ValueError(
            f"{root} holds no clips{'' if format == 'auto' else f' of format {format}'}; accepted are videos "
            f"({', '.join(VIDEOS)}), TECO's .npz, Moving MNIST's .npy and .npz, FAR's JSON lists, folders of "
            f"images ({', '.join(IMAGES)}) and recordings: format={'|'.join(('auto', *FORMATS))}"
        )
    folder = cache_folder(top, size, channels, cache)
    copy, shards, before = _remembered(folder, top, backend)
    stats: dict[str, tuple[int, int] | None] = {}
    fresh = [_signed(source, top, stats) for source in sources]
    known = [before.get(clip.source.name) for clip in fresh]
    clips = {
        clip.source.name: dataclasses.replace(old, source=clip.source)
        for clip, old in zip(fresh, known, strict=True)
        if old is not None and old.signature == clip.signature
    }
    remembered = len(clips)
    # All clips of one array are checked by one thread, which opens the array once.
    unknown = [clip for clip in fresh if clip.source.name not in clips]
    groups = [list(group) for _, group in itertools.groupby(unknown, lambda clip: clip.source.path)]

    def check(group: list[Checked]) -> list[Checked]:
        return [_checked(clip, backend) for clip in group]

    for group in in_parallel(check, groups):
        for clip in group:
            clips[clip.source.name] = clip
            if report is not None:
                report(len(clips), len(fresh), clip.source.name)
    found = Survey(
        root=top,
        folder=folder,
        size=size,
        channels=channels,
        backend=backend,
        clips=tuple(clips[source.name] for source in sources),
        remembered=remembered,
        copy=copy,
        shards=shards,
    )
    if unknown or len(before) != len(fresh):
        write_manifest(found)
    # Whether a clip is too short depends on who asks, so it isn't remembered.
    return dataclasses.replace(found, clips=tuple(_long_enough(clip, min_frames) for clip in found.clips))


def cache_folder(root: Path, size: int, channels: int, cache: str | os.PathLike[str] | None = None) -> Path:
    """Where a folder's manifest and copies are kept; made if need be, one for each size and channels."""
    base = Path(cache).expanduser() if cache is not None else _home() / "resetta"
    digest = hashlib.sha256(os.fsencode(root) + f"\0{size}\0{channels}".encode()).hexdigest()[:12]
    folder = base.absolute() / f"{root.name}-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def in_parallel(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Results as they come, from threads; those not begun are dropped when the caller stops."""

    def one(item: Any) -> Any:
        try:
            return function(item)
        finally:
            decode.close_readers()

    pool = concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS))
    try:
        for future in concurrent.futures.as_completed([pool.submit(one, item) for item in items]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def unwritable(folder: Path, error: OSError) -> ValueError:
    """The sentence about a cache that can't be written to."""
    return ValueError(
        f"cannot write to the cache {folder}: {error.strerror or error}; choose another with data.cache=DIR"
    )


def _signed(source: Source, root: Path, stats: dict[str, tuple[int, int] | None]) -> Checked:
    for file in source.files:
        if file not in stats:
            try:
                status = os.stat(file)
                stats[file] = (status.st_size, status.st_mtime_ns)
            except OSError:
                stats[file] = None  # a link to nowhere, or gone meanwhile: the check says so
    found = [stats[file] or (0, 0) for file in source.files]
    names = [os.path.relpath(file, root) for file in source.files]
    text = json.dumps([source.format, source.kind, source.index, *zip(names, found, strict=True)])
    signature = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Checked(source, signature, sum(size for size, _ in found), max(time for _, time in found))


def _checked(clip: Checked, backend: str) -> Checked:
    try:
        return dataclasses.replace(clip, facts=check_source(clip.source, backend))
    except BadClip as error:
        return dataclasses.replace(clip, fault=str(error))


def _long_enough(clip: Checked, least: int) -> Checked:
    if clip.facts is None or clip.facts.frames >= least:
        return clip
    plural = "s" if clip.facts.frames != 1 else ""
    return dataclasses.replace(clip, short=f"it has {clip.facts.frames} frame{plural} and {least} are needed")


def _remembered(folder: Path, root: Path, backend: str) -> tuple[str, tuple[int, ...], dict[str, Checked]]:
    """The last survey's copies and clips by name; nothing where there is none or it is of another kind."""
    try:
        values = json.loads((folder / "manifest.json").read_bytes())
        if (values["version"], values["root"], values["backend"]) != (_VERSION, str(root), backend):
            return "", (), {}
        clips = {}
        for entry in values["clips"]:
            source = Source(entry["name"], entry["format"], entry["kind"], "")
            clips[source.name] = Checked(
                source=source,
                signature=entry["signature"],
                bytes=entry["bytes"],
                mtime_ns=entry["mtime_ns"],
                facts=Facts(**entry["facts"]) if entry["facts"] else None,
                fault=entry["fault"],
                place=Place(*entry["place"]) if entry["place"] else None,
            )
        return str(values["copy"]), tuple(values["shards"]), clips
    except (OSError, ValueError, KeyError, TypeError):
        return "", (), {}


def write_manifest(found: Survey) -> None:
    """Keeps what was found out for the next time; raises `ValueError` where the cache can't be written to."""
    clips = [
        {
            "name": clip.source.name,
            "format": clip.source.format,
            "kind": clip.source.kind,
            "split": clip.source.split,
            "bytes": clip.bytes,
            "mtime_ns": clip.mtime_ns,
            "signature": clip.signature,
            "facts": clip.facts._asdict() if clip.facts else None,
            "fault": clip.fault,
            "place": clip.place,
        }
        for clip in found.clips
    ]
    values = {
        "kind": "resetta-manifest",
        "version": _VERSION,
        "root": str(found.root),
        "size": found.size,
        "channels": found.channels,
        "backend": found.backend,
        "copy": found.copy,
        "shards": found.shards,
        "clips": clips,
    }
    try:
        with replacing(found.folder / "manifest.json") as temporary:
            temporary.write_text(json.dumps(values, indent=0), encoding="utf-8")
    except OSError as error:
        raise unwritable(found.folder, error) from error
