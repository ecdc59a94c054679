"""Which clips lie below a folder, in which of the formats that are read here. Nothing is decoded yet.

- `videos`: .mp4, .mov, .avi, .mkv, .webm at any depth; actions, if any, in an `.npz` of the same stem beside.
- `teco`: .npz with `video` [T, H, W, C] uint8 and maybe `actions` [T] (TECO's layout, arXiv 2210.02396).
- `moving_mnist`: a whole data set in one array. `.npy`: [T, N, H, W] where the first axis is 20, which is how
  Moving MNIST comes, else [N, T, H, W]. `.npz` with `data` or `arr_0`: [N, T, H, W]. Either may end with an
  axis of 1 or 3 channels; [T, H, W, C] with such an axis is a single clip.
- `far`: a JSON list of objects with `video_path` (.npz as above, or a video) and maybe `action_path` (.npz
  with `actions`), relative to the list's own folder (FAR's layout, arXiv 2503.19325); given as the data's
  path, or as train.json and test.json in it.
- `images`: a folder of at least two .png or .jpg and no other clips, in natural order ("2" before "10");
  actions in an `.npz` of the folder's name beside it.
- `recording`: a folder that `RecordingWriter` wrote; see recording.py.

Where there are folders `train` and `test`, only they are looked into, and they are the split. Hidden files
are passed over. Nothing outside the data's folder is ever followed.
"""

import dataclasses
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .recording import is_recording, open_recording

FORMATS = ("videos", "teco", "moving_mnist", "far", "images", "recording")
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm")
IMAGES = (".png", ".jpg", ".jpeg")
ARRAYS = (".npz", ".npy")
ARRAY_KEYS = ("data", "arr_0")  # of .npz files with many clips
_PIPE = "is a pipe, a socket or a device; only regular files are opened"  # reading one may never end
_MNIST_FRAMES = 20
_CHANNELS = (1, 3)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where one clip comes from.

    `name` is its path relative to the root, with `/`, and `#index` behind it inside a file of many. `kind`
    says how it is opened: video, npz, array, images, recording. `actions` is the file with its actions, if
    any; `files` are all files that it depends on. `fault` is why it can't be used, where that is known.
    """

    name: str
    format: str
    kind: str
    path: str
    index: int | None = None
    actions: str | None = None
    split: str | None = None
    files: tuple[str, ...] = ()
    fault: str | None = None


def find_clips(root: str | os.PathLike[str], format: str = "auto") -> list[Source]:
    """All clips below `root`, in natural order of their names; bad files too, since they aren't opened.

    `root` may also be a single file. Raises `ValueError` for a root that doesn't exist, an unknown format, a
    link or a list's entry that leads out of the root, a clip that is listed twice, and lists of latents.
    """
    if format not in ("auto", *FORMATS):
        raise ValueError(f"format={format!r} is unknown; use auto or one of {', '.join(FORMATS)}")
    given = Path(root).expanduser()
    if not given.exists():
        raise ValueError(f"{given} does not exist; give a folder of videos")
    top = given.resolve()
    wanted: set[str] = set(FORMATS if format == "auto" else (format,))
    if top.is_file():
        base = top.parent
        if top.suffix.lower() == ".json":
            sources = _listed(base, top, None)
        else:
            sources = _in_folder(base, top.parent, [top], wanted, None)
    else:
        base = top
        lists = [(top / f"{split}.json", split) for split in ("train", "test")]
        lists = [(file, split) for file, split in lists if "far" in wanted and _is_list(base, file)]
        if lists:
            both = len(lists) == 2
            sources = [s for file, split in lists for s in _listed(base, file, split if both else None)]
        elif (top / "train").is_dir() and (top / "test").is_dir():
            sources = [s for split in ("train", "test") for s in _below(base, top / split, wanted, split)]
        else:
            sources = _below(base, top, wanted, None)
    _refuse_twice(sources)
    sources = [
        dataclasses.replace(source, fault=_PIPE) if any(map(_is_pipe, source.files)) else source
        for source in sources
    ]
    return sorted(sources, key=lambda source: natural(source.name))


def natural(name: str) -> tuple[Any, ...]:
    """A sort key in which numbers count as numbers."""
    parts = re.split(r"([0-9]+)", name)
    return (tuple((int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)), name)


def arrangement(shape: tuple[int, ...], suffix: str) -> str:
    """The axes of an array of clips, one letter each: `tnhw`, `nthw`, `nthwc`, `thwc` or `thw`.

    Raises `ValueError` for a shape that is none of them.
    """
    if len(shape) == 5 and shape[4] in _CHANNELS:
        return "nthwc"
    if len(shape) == 4:
        if shape[3] in _CHANNELS:
            return "thwc"
        return "tnhw" if suffix == ".npy" and shape[0] == _MNIST_FRAMES else "nthw"
    if len(shape) == 3:
        return "thw"
    raise ValueError(
        f"its array has shape {shape} instead of [N, T, H, W], with 1 or 3 channels behind or none"
    )


def array_key(keys: list[str]) -> str | None:
    """Which array of an .npz holds its frames; None where none does."""
    return next((key for key in ("video", *ARRAY_KEYS) if key in keys), None)


def _below(base: Path, folder: Path, wanted: set[str], split: str | None) -> list[Source]:
    return [
        source
        for inner, files in _walk(base, folder, set())
        for source in _in_folder(base, inner, files, wanted, split)
    ]


def _walk(base: Path, folder: Path, seen: set[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder below and its files; links to folders inside the root are followed, but never twice."""
    real = _contained(base, folder)
    if real in seen:
        return
    seen.add(real)
    entries = sorted(
        (e for e in folder.iterdir() if not e.name.startswith(".")), key=lambda e: natural(e.name)
    )
    folders = [entry for entry in entries if entry.is_dir()]
    yield folder, [entry for entry in entries if entry not in folders]
    if not is_recording(folder):
        for inner in folders:
            yield from _walk(base, inner, seen)


def _in_folder(
    base: Path, folder: Path, files: list[Path], wanted: set[str], split: str | None
) -> list[Source]:
    """The clips that lie directly in a folder."""
    if is_recording(folder):
        return _recorded(base, folder, split) if "recording" in wanted else []

    def of(*suffixes: str) -> list[Path]:
        return [file for file in files if file.suffix.lower() in suffixes]

    videos, images = of(*VIDEOS), of(*IMAGES)
    folders = {p.name for p in folder.iterdir() if p.is_dir()} if of(".npz") else set()
    beside = {file.stem for file in videos} | folders
    arrays = [file for file in of(*ARRAYS) if file.suffix.lower() == ".npy" or file.stem not in beside]
    sources = []
    if "videos" in wanted:
        sources += [_single(base, file, "videos", _actions_of(base, file), split) for file in videos]
    for file in arrays:
        sources += [source for source in _array(base, file, split) if source.format in wanted]
    if "images" in wanted and len(images) > 1 and (wanted == {"images"} or not (videos or arrays)):
        frames = tuple(str(_contained(base, image)) for image in images)
        actions = _actions_of(base, folder) if folder != base else None
        sources.append(
            Source(
                name=_name(base, folder),
                format="images",
                kind="images",
                path=str(_contained(base, folder)),
                actions=actions,
                split=split,
                files=(*frames, *([actions] if actions else [])),
            )
        )
    return sources


def _single(base: Path, file: Path, format: str, actions: str | None, split: str | None) -> Source:
    path = str(_contained(base, file))
    kind = "video" if file.suffix.lower() in VIDEOS else "npz"
    files = (path, *([actions] if actions else []))
    return Source(_name(base, file), format, kind, path, None, actions, split, files)


def _actions_of(base: Path, clip: Path) -> str | None:
    """The .npz of the same stem beside a video or a folder of images."""
    file = clip.with_suffix(".npz") if clip.is_file() else clip.parent / f"{clip.name}.npz"
    return str(_contained(base, file)) if file.is_file() else None


def _array(base: Path, file: Path, split: str | None) -> list[Source]:
    """The clips of an .npy or .npz: one for TECO's, else as many as the array's header says."""
    path = _contained(base, file)
    name, files = _name(base, file), (str(path),)
    try:
        key, shape = _header(path)
        if key == "video":
            return [_single(base, file, "teco", None, split)]
        axes = arrangement(shape, file.suffix.lower())
    except (ValueError, OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        fault = str(error) or type(error).__name__
        format = "teco" if file.suffix.lower() == ".npz" else "moving_mnist"
        return [Source(name, format, "array", str(path), None, None, split, files, fault)]
    if "n" not in axes:
        return [Source(name, "moving_mnist", "array", str(path), None, None, split, files)]
    count = shape[axes.index("n")]
    if not count:
        return [
            Source(name, "moving_mnist", "array", str(path), None, None, split, files, "it holds no clips")
        ]
    return [
        Source(f"{name}#{i}", "moving_mnist", "array", str(path), i, None, split, files) for i in range(count)
    ]


def _header(path: Path) -> tuple[str | None, tuple[int, ...]]:
    """The key (None in an .npy) and the shape of the array of frames, from the file's header alone."""
    if _is_pipe(path):
        raise OSError(_PIPE)
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            return None, _shape(file)
    with zipfile.ZipFile(path) as archive:
        keys = [member.removesuffix(".npy") for member in archive.namelist()]
        key = array_key(keys)
        if key is None:
            raise ValueError(
                f"it holds {', '.join(keys) or 'nothing'} where `video`, `data` or `arr_0` is needed, and no "
                "video or folder of its name is beside it"
            )
        with archive.open(f"{key}.npy") as file:
            return key, _shape(file)


def _shape(file: Any) -> tuple[int, ...]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)[0]


def _recorded(base: Path, folder: Path, split: str | None) -> list[Source]:
    name, folder = "" if folder == base else _name(base, folder), _contained(base, folder)
    try:
        recording = open_recording(folder)
    except ValueError as error:
        files = (str(folder / "manifest.json"),)
        return [
            Source(
                name or ".", "recording", "recording", str(folder), split=split, files=files, fault=str(error)
            )
        ]
    files = tuple(map(str, recording.files))
    actions = str(recording.actions) if recording.actions else None
    return [
        Source(f"{name}#{i}", "recording", "recording", str(folder), i, actions, split, files)
        for i in range(len(recording.frames))
    ]


def _is_list(base: Path, file: Path) -> bool:
    """Whether train.json or test.json is a list of clips, and not somebody's notes."""
    if not file.is_file():
        return False
    _contained(base, file)
    try:
        entries = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(entries, list) and any(
        isinstance(entry, dict) and entry.keys() & {"video_path", "latent_path"} for entry in entries
    )


def _listed(base: Path, file: Path, split: str | None) -> list[Source]:
    """The clips of FAR's list."""
    try:
        entries = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}); give a list of objects with `video_path`") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{file} is not a list of objects; give each clip as an object with `video_path`")
    sources = []
    for i, entry in enumerate(entries):
        video, actions = entry.get("video_path"), entry.get("action_path")
        if video is None and "latent_path" in entry:
            raise ValueError(
                f"{file.name} lists latents, which belong to another model's autoencoder; give `video_path`"
            )
        if not isinstance(video, str) or not isinstance(actions, str | None):
            raise ValueError(f"entry {i} of {file.name} has no `video_path`; give one, as a string")
        if "\0" in video + (actions or ""):
            raise ValueError(f"entry {i} of {file.name} has a null character in a path; mend the list")
        path = file.parent / video
        if path.suffix.lower() not in (*VIDEOS, ".npz"):
            raise ValueError(f"{file.name} lists {video!r}; use .npz or one of {', '.join(VIDEOS)}")
        stored = str(_contained(base, file.parent / actions)) if actions else None
        sources.append(_single(base, path, "far", stored, split))
    return sources


def _contained(base: Path, path: Path) -> Path:
    """The real path, which must lie in the root, so that data from elsewhere can't show private files."""
    real = path.resolve()
    if not real.is_relative_to(base):
        raise ValueError(f"{path} leads out of {base}, to {real}; copy what it names into the folder")
    return real


def _is_pipe(file: str | Path) -> bool:
    """Whether it is there and neither a regular file nor a folder."""
    path = Path(file)
    return not path.is_file() and not path.is_dir() and path.exists()


def _name(base: Path, path: Path) -> str:
    """Relative to the root; what a list wrote with `..` or absolutely is named as it resolves."""
    inside = path if path.is_relative_to(base) and ".." not in path.parts else path.resolve()
    return inside.relative_to(base).as_posix()


def _refuse_twice(sources: list[Source]) -> None:
    """The same file under two names would be in both splits before long."""
    seen: dict[tuple[str, int | None], str] = {}
    for source in sources:
        key = (source.path, source.index)
        if key in seen:
            raise ValueError(
                f"{source.name} and {seen[key]} are the same clip, which would count twice; remove one"
            )
        seen[key] = source.name
