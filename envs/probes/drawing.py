"""A picture of an episode: what is seen, what is asked, what is right, and what was answered.

Time runs from left to right and continues in the next band. In a band, each row of cells is an entry of the
token, in the colour of its field (vectors in shades of grey); the flags follow; below them, a row of targets
and, where answers are given, a row of answers with the wrong ones underlined in red. A probe that has
`frames` shows those instead, one after the other, with a target and an answer below each.
"""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from ..draw_canvas import CATEGORIES, FAINT, INK, PAPER
from .base import FLAGS, Episode, Probe

_WRONG = "#d00000"
_BAND = 2  # rows of cells that say a target or an answer
_GAP = 2  # rows of cells between the parts of a band
_MOST = 1024  # steps shown; of a longer episode, its beginning and its end


def picture(
    probe: Probe, episode: Episode, answers: np.ndarray | None = None, *, columns: int = 64, cell: int = 8
) -> UInt8[np.ndarray, "H W 3"]:
    """One episode (without a batch axis) as uint8 RGB, `columns` steps a band, `cell` pixels a cell.

    Raises `ValueError` for an episode with a batch axis.
    """
    if np.ndim(episode.targets) != 1:
        raise ValueError(
            f"the episode has shape {np.shape(episode.targets)}; draw one at a time (index its leaves)"
        )
    if hasattr(probe, "frames"):
        return _film(probe, episode, answers, columns, cell)
    cells = _cells(probe, episode, answers)
    steps = cells.shape[1]
    if steps > _MOST:
        cells = np.concatenate([cells[:, : _MOST // 2], cells[:, -_MOST // 2 :]], 1)
    missing = -cells.shape[1] % columns
    paper = np.broadcast_to(_rgb(PAPER), (cells.shape[0], missing, 3))
    bands = np.split(np.concatenate([cells, paper], 1), (cells.shape[1] + missing) // columns, 1)
    pixels = np.concatenate(bands).repeat(cell, 0).repeat(cell, 1)
    # A hairline between cells lets steps be counted.
    pixels[::cell], pixels[:, ::cell] = _rgb(PAPER), _rgb(PAPER)
    return pixels.astype(np.uint8)


def _cells(probe: Probe, episode: Episode, answers: np.ndarray | None) -> np.ndarray:
    """One band as long as the episode, a colour per cell: `[rows, T, 3]`."""
    tokens, mask = np.asarray(episode.tokens), np.asarray(episode.mask)
    targets, steps = np.asarray(episode.targets), tokens.shape[0]
    parts = []
    for number, name in enumerate(probe.fields):
        value = np.asarray(probe.field(tokens, name)).T
        symbolic = np.isin(value, (0, 1)).all()
        colour = _rgb(CATEGORIES[(number + 1) % len(CATEGORIES)])
        parts.append(_mix(_rgb(FAINT), colour, value) if symbolic else _shades(value))
    flags = np.stack([np.asarray(probe.field(tokens, name)) for name in FLAGS])
    flags[-1] = np.maximum(flags[-1], episode.reset)
    parts.append(_mix(_rgb(FAINT), _rgb(INK), flags))
    parts += _said(targets, mask, answers)
    gap = np.broadcast_to(_rgb(PAPER), (_GAP, steps, 3))
    return np.concatenate([row for part in parts for row in (part, gap)])


def _said(targets: np.ndarray, mask: np.ndarray, answers: np.ndarray | None) -> list[np.ndarray]:
    """Bands of targets and of answers, `[_BAND, T, 3]`."""
    parts = []
    for shown in [targets] if answers is None else [targets, np.asarray(answers)]:
        colours = np.array([_rgb(CATEGORIES[value % len(CATEGORIES)]) for value in shown])
        parts.append(np.where(mask[:, None], colours, _rgb(PAPER))[None].repeat(_BAND, 0))
    if answers is not None:
        wrong = mask & (np.asarray(answers) != targets)
        parts[-1][-1] = np.where(wrong[:, None], _rgb(_WRONG), parts[-1][-1])
    return parts


def _film(
    probe: Any, episode: Episode, answers: np.ndarray | None, columns: int, cell: int
) -> UInt8[np.ndarray, "H W 3"]:
    """Frames side by side; of a picture that is told pixel by pixel there is one, asked about at the end."""
    frames = np.asarray(probe.frames(episode.tokens)) * 255
    count, height, width = frames.shape[:3]
    last = slice(len(episode.targets) - count, None)
    given = None if answers is None else np.asarray(answers)[last]
    said = _said(np.asarray(episode.targets)[last], np.asarray(episode.mask)[last], given)
    paper = _rgb(PAPER)
    tiles = np.broadcast_to(paper, (count, height + 1 + len(said) * (_BAND + 1), width + 1, 3)).copy()
    tiles[:, :height, :width] = frames
    for number, part in enumerate(said):
        start = height + 1 + number * (_BAND + 1)
        tiles[:, start : start + _BAND, :width] = part.swapaxes(0, 1)[:, :, None]
    # as many to a row, as large as there is room for
    scale = max(cell // 2, 1)
    across = max(columns * cell // ((width + 1) * scale), 1)
    blank = np.broadcast_to(paper, (-count % across, *tiles.shape[1:]))
    bands = np.concatenate([tiles, blank]).reshape(-1, across, *tiles.shape[1:])
    pixels = bands.swapaxes(1, 2).reshape(-1, across * (width + 1), 3).repeat(scale, 0).repeat(scale, 1)
    whole = np.broadcast_to(paper, (pixels.shape[0], max(columns * cell, pixels.shape[1]), 3)).copy()
    whole[:, : pixels.shape[1]] = pixels
    return whole.astype(np.uint8)


def _mix(low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return low + (high - low) * weight[..., None]


def _shades(value: np.ndarray) -> np.ndarray:
    largest = max(np.abs(value).max(), 1e-6)
    return _mix(np.full(3, 255.0), np.zeros(3), (value / largest + 1) / 2)


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)
