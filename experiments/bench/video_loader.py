"""Reading videos: frames a second a core, from files and from their copies, and memory over many opens."""

import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...video.data import make_data
from ...video.decode import close_readers, read_frames, write_video
from ...video.folder import load_folder
from ..logs import phase
from .results import Table, spread, spread_text
from .timing import now
from .turns import in_turns
from .video_streaming import resident_bytes

if TYPE_CHECKING:
    from .video import VideoSettings

_CODECS = {"h264, lossless": {}, "h264, lossy": {"codec": "libx264", "lossless": False}}


def units(own: "VideoSettings") -> dict[str, Callable[[], list[dict[str, Any]]]]:
    """Sizes of frames, each to be measured alone, and memory: random windows of real mp4 files."""
    sizes = {f"{size} x {size}": functools.partial(_measure, own, size) for size in own.loader["sizes"]}
    return sizes | {"opens": functools.partial(_opens, own)}


def _measure(own: "VideoSettings", size: int) -> list[dict[str, Any]]:
    """A row per kind of file and reader."""
    o, rows = own.loader, []
    with tempfile.TemporaryDirectory() as name:
        for kind, options in _CODECS.items():
            folder = Path(name, options.get("codec", "rgb"))
            with phase(f"writing {o['files']} files of {size} x {size}, {kind}"):
                _write(folder, size, o, own.seed, options)
            rows += _rows(folder, size, kind, o, own)
    return rows


def _write(folder: Path, size: int, o: Mapping[str, Any], seed: int, options: Mapping[str, Any]) -> None:
    """Moving digits, which is what there is; real footage compresses less well and decodes slower."""
    folder.mkdir()
    data = make_data("moving_digits", size=size, seed=seed)
    for clip in range(o["files"]):
        frames = data.read("train", np.array([clip]), np.array([0]), o["frames"]).frames[:, 0]
        write_video(folder / f"{clip}.mp4", frames, **options)


def _rows(
    folder: Path, size: int, kind: str, o: Mapping[str, Any], own: "VideoSettings"
) -> list[dict[str, Any]]:
    paths = sorted(folder.iterdir())
    rng = np.random.default_rng(own.seed)
    windows = [
        (int(rng.integers(len(paths))), int(rng.integers(o["frames"] - o["window"] + 1))) for _ in range(32)
    ]
    copies = load_folder(folder, size=size, cache=folder.parent / "cache")
    clips = {clip.source.path: i for i, clip in enumerate(copies.manifest.clips)}

    def decoded(backend: str) -> None:
        for clip, start in windows:
            read_frames(paths[clip], np.arange(start, start + o["window"]), backend)

    def mapped() -> None:
        for clip, start in windows:
            pixels = copies.manifest.pixels[clips[str(paths[clip].resolve())]]
            assert pixels is not None
            np.array(pixels[start : start + o["window"]])

    readers: dict[str, Callable[[], None]] = {"pyav": functools.partial(decoded, "pyav")}
    try:
        decoded("decord")
        readers["decord"] = functools.partial(decoded, "decord")
    except ValueError:  # not installed here
        pass
    readers["memmap"] = mapped
    taken = in_turns(readers, own.blocks, f"{size} x {size}, {kind}: ", own.turn_seconds)
    close_readers()
    frames = len(windows) * o["window"]
    return [
        {
            "label": f"{size} x {size}",
            "kind": kind if reader != "memmap" else "copies",
            "reader": reader,
            "frames_per_cpu_second": spread([frames / max(s, 1e-6) for s in taken[reader]["cpu"]]),
        }
        for reader in readers
        if not (reader == "memmap" and kind != "h264, lossless")
    ]


def _opens(own: "VideoSettings") -> list[dict[str, Any]]:
    """Resident memory after the first tenth of the opens of files of the largest size, and after the last."""
    o, seen = own.loader, []
    with tempfile.TemporaryDirectory() as name, phase(f"opening files {o['opens']} times"):
        folder = Path(name, "files")
        _write(folder, max(o["sizes"]), o, own.seed, _CODECS["h264, lossy"])
        paths = sorted(folder.iterdir())
        start = now()
        for k in range(o["opens"]):
            read_frames(paths[k % len(paths)], [k % o["frames"]])
            close_readers()
            if k + 1 in (max(o["opens"] // 10, 1), o["opens"]):
                seen.append(resident_bytes())
        spent = now() - start
    facts = {"early_bytes": seen[0], "late_bytes": seen[-1], "cpu_seconds": spent.cpu}
    return [{"opens": o["opens"], **facts}]


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    o = result["settings"]["loader"]
    rows = [
        [row["label"], row["kind"], row["reader"], spread_text(row["frames_per_cpu_second"])]
        for row in result["rows"]
        if "label" in row
    ]
    notes = [
        f"windows of {o['window']} frames at random places of {o['files']} files of {o['frames']} frames",
        f"median (lowest–highest) of {result['settings']['blocks']} turns; CPU-seconds of all threads",
    ]
    for opens in (row for row in result["rows"] if "opens" in row):
        each = opens["cpu_seconds"] / opens["opens"] * 1e3
        early, late = (opens[f"{end}_bytes"] / 2**20 for end in ("early", "late"))
        notes.append(
            f"{opens['opens']} opens: {early:.0f} MiB resident after the first tenth, {late:.0f} MiB after "
            f"all, {each:.1f} CPU-ms each"
        )
    return Table("Reading videos", ["frames", "file", "reader", "frames per CPU-second"], rows, notes)
