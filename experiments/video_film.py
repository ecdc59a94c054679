"""Films and strips of predicted videos beside the true ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from ..video.data import VideoData
from ..video.model import FrameModel
from ..video.protocol import Protocol
from ..video.stream import read_windows
from .media import side_by_side, write_gif, write_mp4, write_png
from .run_dir import RunDir
from .video_evaluate import clip_ids, predictions

_GIF_FRAMES = 150  # longer films are MP4 only
_COLUMNS = 10  # frames of a strip
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
    picture = strip([film for row in rows for _, film in row], context)
    return [*written, write_png(run_dir.media / f"strip_{split}.png", picture)]


def write_film(
    stem: Path,
    rows: Sequence[Sequence[tuple[str, Any]]],
    context: int,
    *,
    fps: float = 12,
    size: int = 192,
    lossless: bool = False,
) -> list[Path]:
    """`stem`.mp4, and `stem`.gif of a short film: rows of panels (title, uint8 `[T, H, W, C]`).

    The frame of a panel is grey while the model is given true frames, and orange once it goes on alone.
    """
    films = []
    for row in rows:
        panels = [(title, _framed(_scaled(frames, size), context)) for title, frames in row]
        films.append(side_by_side(panels, captions=["" for _ in panels], hold=max(int(fps), 1)))
    width = max(film.shape[2] for film in films)
    length = max(len(film) for film in films)
    films = [
        np.pad(film, ((0, length - len(film)), (0, 0), (0, width - film.shape[2]), (0, 0)), mode="edge")
        for film in films
    ]
    film = np.concatenate(films, axis=1)
    written = [write_mp4(stem.with_name(stem.name + ".mp4"), film, fps, lossless)]
    if length <= _GIF_FRAMES:
        written.append(write_gif(stem.with_name(stem.name + ".gif"), film, fps))
    return written


def strip(films: Sequence[Any], context: int, size: int = 96) -> UInt8[np.ndarray, "H W 3"]:
    """One row a film `[T, H, W, C]`, its frames at the same times: the context's last, then later ones."""
    length = len(films[0])
    ahead = np.unique(np.geomspace(1, max(length - context, 1), _COLUMNS - 1).round().astype(int))
    times = np.concatenate([[context - 1], context - 1 + ahead])
    rows = []
    for film in films:
        cells = _framed(_scaled(np.asarray(film)[times], size), 1)
        cells = np.pad(cells, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=_PAPER[0])
        rows.append(np.concatenate(list(cells), axis=1))
    picture = np.concatenate(rows)
    return _labelled(picture, [f"context ({context})", *(f"+{k}" for k in ahead.tolist())])


def _labelled(picture: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """With a label above each column."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (picture.shape[1], picture.shape[0] + 18), _PAPER)
    page.paste(Image.fromarray(picture), (0, 18))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    step = picture.shape[1] / len(labels)
    for k, label in enumerate(labels):
        draw.text(((k + 0.5) * step, 9), label, fill=_CONTEXT, font=font, anchor="mm")
    return np.asarray(page)


def _scaled(frames: Any, size: int) -> np.ndarray:
    """Colour frames whose height is the multiple of theirs nearest to `size`: pixels stay squares."""
    frames = np.asarray(frames)
    times = max(round(size / frames.shape[1]), 1)
    frames = frames.repeat(times, axis=1).repeat(times, axis=2)
    return np.broadcast_to(frames, (*frames.shape[:3], 3)) if frames.shape[3] == 1 else frames


def _framed(frames: np.ndarray, context: int) -> np.ndarray:
    """A border of two pixels: grey in the context, orange after it."""
    framed = np.pad(frames, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for part, color in ((slice(None, context), _CONTEXT), (slice(context, None), _PREDICTED)):
        view = framed[part]
        view[:, :2] = view[:, -2:] = color
        view[:, :, :2] = view[:, :, -2:] = color
    return framed
