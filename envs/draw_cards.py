"""Drawings of card tasks: suits in the four colours of a four-colour deck."""

from typing import Any

import numpy as np

from .draw_canvas import ACCENT, FAINT, GOAL, INK, MUTED, Canvas, Last

_SUIT_COLORS = (INK, ACCENT, "#2b6cb0", GOAL)  # spade, heart, diamond, club


def _suit(canvas: Canvas, center: tuple[float, float], size: float, suit: int) -> None:
    """A suit's sign, `size` high."""
    x, y = center
    color = _SUIT_COLORS[suit % 4]

    def at(dx: float, dy: float) -> tuple[float, float]:
        return x + dx * size, y + dy * size

    if suit % 4 == 0:
        canvas.polygon([at(0, -0.5), at(-0.38, 0.06), at(0.38, 0.06)], color)
        for dx in (-0.2, 0.2):
            canvas.circle(at(dx, 0.12), 0.21 * size, color)
        canvas.polygon([at(0, 0.05), at(-0.16, 0.5), at(0.16, 0.5)], color)
    elif suit % 4 == 1:
        for dx in (-0.2, 0.2):
            canvas.circle(at(dx, -0.19), 0.22 * size, color)
        canvas.polygon([at(-0.405, -0.12), at(0.405, -0.12), at(0, 0.47)], color)
    elif suit % 4 == 2:
        canvas.polygon([at(0, -0.5), at(0.36, 0), at(0, 0.5), at(-0.36, 0)], color)
    else:
        for dx, dy in ((0, -0.25), (-0.23, 0.08), (0.23, 0.08)):
            canvas.circle(at(dx, dy), 0.21 * size, color)
        canvas.circle(at(0, 0), 0.1 * size, color)
        canvas.polygon([at(0, -0.1), at(-0.16, 0.5), at(0.16, 0.5)], color)


def _card(
    canvas: Canvas,
    center: tuple[float, float],
    height: float,
    suit: int | None,
    edge: str = MUTED,
    width: float = 0.006,
) -> None:
    """A card face up, or face down where `suit` is None."""
    extent = (0.7 * height, height)
    corner = (center[0] - extent[0] / 2, center[1] - extent[1] / 2)
    canvas.box(corner, extent, FAINT if suit is None else "#ffffff", edge, width, 0.1 * height)
    if suit is not None:
        _suit(canvas, center, 0.5 * height, suit)


def _answer(canvas: Canvas, last: Last) -> None:
    """The suit that the agent named, and whether it was right; no reward, no verdict."""
    if last.choice is None:
        return
    canvas.text((0.72, 0.1), "answered", 0.05, MUTED)
    _suit(canvas, (0.72, 0.29), 0.2, last.choice)
    if last.reward:
        right = last.reward > 0
        canvas.text((0.72, 0.47), "right" if right else "wrong", 0.055, GOAL if right else ACCENT)


def _repeat_previous(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """The card on the table, the agent's last answer, and the cards that a good memory would hold."""
    k, time = int(env.k), int(state.time)
    recent = np.asarray(state.recent)
    canvas.text((0.28, 0.1), "card", 0.05, MUTED)
    _card(canvas, (0.28, 0.33), 0.36, int(recent[time % k]))
    _answer(canvas, last)
    per_row = min(k, 16)
    rows = -(-k // per_row)
    pitch = min(0.92 / per_row, 0.17)
    height = min(pitch / 0.78, 0.34 / rows)
    canvas.line([(0.04, 0.565), (0.96, 0.565)], FAINT, 0.006)
    canvas.text((0.5, 0.62), f"the last {k}; asked for: the outlined one", 0.042, MUTED)
    for age in range(k):  # oldest first; the oldest is the one asked for next
        index = time - k + 1 + age
        row, column = divmod(age, per_row)
        center = (0.5 + (column - (per_row - 1) / 2) * pitch, 0.82 + (row - (rows - 1) / 2) * height * 1.08)
        asked = age == 0 and index >= 0
        suit = int(recent[index % k]) if index >= 0 else None
        _card(canvas, center, height * 0.95, suit, ACCENT if asked else MUTED, 0.014 if asked else 0.005)


def _repeat_first(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """The card on the table, the agent's last answer, and the first card, which is always the answer."""
    canvas.text((0.28, 0.1), "card", 0.05, MUTED)
    _card(canvas, (0.28, 0.33), 0.36, int(state.current))
    _answer(canvas, last)
    canvas.line([(0.04, 0.565), (0.96, 0.565)], FAINT, 0.006)
    canvas.text((0.5, 0.62), "asked for: the first", 0.042, MUTED)
    _card(canvas, (0.5, 0.82), 0.28, int(state.first), ACCENT, 0.012)


DRAWINGS = {"RepeatPrevious": _repeat_previous, "RepeatFirst": _repeat_first}
