"""Films and strips of predicted videos beside the true ones."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from ..video.data import VideoData
from ..video.model import FrameModel
from ..video.protocol import Protocol
from ..video.stream import read_windows
from .logs import Show
from .media import pages, write_gif, write_mp4, write_png
from .run_dir import RunDir
from .video_evaluate import clip_ids, predictions

_GIF_FRAMES = 150  # longer films are MP4 only
_COLUMNS = 10  # frames of a strip
_BAND = 18  # pixels of its margins with words
_CONTEXT, _PREDICTED, _PAPER = (100, 116, 139), (217, 72, 15), (250, 249, 246)


def film_run(
    model: FrameModel,
    data: VideoData,
    variables: Any,
    run_dir: RunDir,
    *,
    context: int,
    frames: int,
    clips: int = 3,
    split: str = "test",
    seed: int = 0,
    fps: float = 12,
    size: int = 192,
) -> list[Path]:
    """Writes `media/prediction_<split>.mp4` (with a GIF if short) and `media/strip_<split>.png`."""
    protocol = Protocol(context=context, frames=frames, clips=clips, seed=seed, split=split)
    ids = clip_ids(data, protocol)
    clip = read_windows(data, split, ids, np.zeros_like(ids), frames)
    drawn = predictions(model, variables, clip, protocol, jax.random.key(seed))
    predicted = np.concatenate([np.asarray(clip.frames[:context]), drawn])
    rows = [
        [(f"clip {int(i)}, true", clip.frames[:, k]), ("predicted", predicted[:, k])]
        for k, i in enumerate(ids)
    ]
    run_dir.media.mkdir(exist_ok=True)
    stem = run_dir.media / f"prediction_{split}"
    written = write_film(stem, rows, context, fps=fps, size=size)
    picture = strip(
        [film for row in rows for _, film in row], context, titles=["true", "predicted"] * len(rows)
    )
    return [*written, write_png(run_dir.media / f"strip_{split}.png", picture)]


def write_film(
    stem: Path,
    rows: Sequence[Sequence[tuple[str, Any]]],
    context: int,
    *,
    fps: float = 12,
    size: int = 192,
    lossless: bool = False,
    show: Show = lambda done, total: None,
) -> list[Path]:
    """`stem`.mp4, and `stem`.gif of a short film: rows of panels (title, uint8 `[T, H, W, C]`).

    The frame of a panel is grey while the model is given true frames, and orange once it goes on alone. A
    long film is drawn and written picture by picture; `show` is told how many are done.
    """
    hold = max(int(fps), 1)
    length = max(len(frames) for row in rows for _, frames in row) + hold
    film = _pages(rows, context, size, hold)
    if length <= _GIF_FRAMES:
        pictures = np.stack([*film])
        paths = [write_mp4(stem.with_name(stem.name + ".mp4"), pictures, fps, lossless)]
        return [*paths, write_gif(stem.with_name(stem.name + ".gif"), pictures, fps)]
    counted = _counted(film, length, show)
    return [write_mp4(stem.with_name(stem.name + ".mp4"), counted, fps, lossless)]


def _pages(
    rows: Sequence[Sequence[tuple[str, Any]]], context: int, size: int, hold: int
) -> Iterator[np.ndarray]:
    """The pictures of a film, one row of panels below the other; what ends earlier waits."""
    films, last = [], []
    for row in rows:
        panels = [(title, _Panel(frames, size, context)) for title, frames in row]
        films.append(pages(panels, hold=hold, counter=lambda t: _when(t - context)))
    for parts in itertools.zip_longest(*films):
        last = [old if new is None else new for new, old in zip(parts, last or parts, strict=True)]
        width = max(part.shape[1] for part in last)
        yield np.concatenate(
            [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), mode="edge") for part in last]
        )


def _when(ahead: int) -> str:
    """As the strips and the report count: the first predicted frame is +1."""
    return "context" if ahead < 0 else f"frame +{ahead + 1}"


class _Panel:
    """A film's frames as they are shown, each scaled and framed when it is asked for."""

    def __init__(self, frames: Any, size: int, context: int) -> None:
        self.frames, self.size, self.context = frames, size, context

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, t: int) -> np.ndarray:
        return _framed(_scaled(self.frames[t : t + 1], self.size), self.context - t)[0]


def _counted(film: Iterator[np.ndarray], length: int, show: Show) -> Iterator[np.ndarray]:
    for number, picture in enumerate(film, 1):
        show(number, length)
        yield picture


def strip(
    films: Sequence[Any], context: int, size: int = 96, titles: Sequence[str] = ()
) -> UInt8[np.ndarray, "H W 3"]:
    """One row a film `[T, H, W, C]`, its frames at the same times: the context's last, then later ones.

    `titles`, one a film, stand upright to the left of the rows.
    """
    length = len(films[0])
    ahead = np.unique(np.geomspace(1, max(length - context, 1), _COLUMNS - 1).round().astype(int))
    times = np.concatenate([[context - 1], context - 1 + ahead])
    rows = []
    for film in films:
        cells = _framed(_scaled(np.asarray(film)[times], size), 1)
        cells = np.pad(cells, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=_PAPER[0])
        rows.append(np.concatenate(list(cells), axis=1))
    picture = np.concatenate(rows)
    if titles:  # columns, once the picture lies on its side
        picture = np.rot90(_labelled(np.rot90(picture, -1), titles[::-1]))
    labels = [f"context ({context})", *(f"+{k}" for k in ahead.tolist())]
    return _labelled(picture, labels, _BAND if titles else 0)


def _labelled(picture: np.ndarray, labels: Sequence[str], left: int = 0) -> np.ndarray:
    """With a label above each column; the first begins at `left`."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (picture.shape[1], picture.shape[0] + _BAND), _PAPER)
    page.paste(Image.fromarray(picture), (0, _BAND))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    step = (picture.shape[1] - left) / len(labels)
    for k, label in enumerate(labels):
        draw.text((left + (k + 0.5) * step, _BAND / 2), label, fill=_CONTEXT, font=font, anchor="mm")
    return np.asarray(page)


def _scaled(frames: Any, size: int) -> np.ndarray:
    """Colour frames whose height is the multiple of theirs nearest to `size`: pixels stay squares."""
    frames = np.asarray(frames)
    times = max(round(size / frames.shape[1]), 1)
    frames = frames.repeat(times, axis=1).repeat(times, axis=2)
    return np.broadcast_to(frames, (*frames.shape[:3], 3)) if frames.shape[3] == 1 else frames


def _framed(frames: np.ndarray, context: int) -> np.ndarray:
    """A border of two pixels: grey in the first `context` frames (none below 1), orange after them."""
    framed = np.pad(frames, ((0, 0), (2, 2), (2, 2), (0, 0)))
    context = max(context, 0)
    for part, color in ((slice(None, context), _CONTEXT), (slice(context, None), _PREDICTED)):
        view = framed[part]
        view[:, :2] = view[:, -2:] = color
        view[:, :, :2] = view[:, :, -2:] = color
    return framed
