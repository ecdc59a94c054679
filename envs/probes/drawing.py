"""A picture of an episode: what is seen, what is asked, what is right, and what was answered.

Time runs from left to right and continues in the next band. In a band, each row of cells is an entry of the
token, in the colour of its field (vectors in shades of grey); the flags follow; below them, a row of targets
and, where answers are given, a row of answers with the wrong ones underlined in red.
"""

import numpy as np
from jaxtyping import UInt8

from ..draw_canvas import CATEGORIES, FAINT, INK, PAPER
from .base import FLAGS, Episode, Probe

_WRONG = "#d00000"
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
    rows = [(targets, mask)] if answers is None else [(targets, mask), (np.asarray(answers), mask)]
    for shown, where in rows:
        colours = np.array([_rgb(CATEGORIES[value % len(CATEGORIES)]) for value in shown])
        parts.append(np.where(where[:, None], colours, _rgb(PAPER))[None].repeat(2, 0))
    if answers is not None:
        wrong = mask & (np.asarray(answers) != targets)
        parts[-1][1] = np.where(wrong[:, None], _rgb(_WRONG), parts[-1][1])
    gap = np.broadcast_to(_rgb(PAPER), (_GAP, steps, 3))
    return np.concatenate([row for part in parts for row in (part, gap)])


def _mix(low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return low + (high - low) * weight[..., None]


def _shades(value: np.ndarray) -> np.ndarray:
    largest = max(np.abs(value).max(), 1e-6)
    return _mix(np.full(3, 255.0), np.zeros(3), (value / largest + 1) / 2)


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)
