"""Drawings of card tasks: colours, suits in the four colours of a four-colour deck, and ranks."""

from typing import Any

import numpy as np

from .draw_canvas import ACCENT, FAINT, GOAL, INK, MUTED, Canvas, Last

_RANKS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
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
    kind: int | None,
    edge: str = MUTED,
    width: float = 0.006,
    kinds: int = 4,
) -> None:
    """A card face up, or face down where `kind` is None: one of 2 colours, 4 suits or 13 ranks."""
    extent = (0.7 * height, height)
    corner = (center[0] - extent[0] / 2, center[1] - extent[1] / 2)
    canvas.box(corner, extent, FAINT if kind is None else "#ffffff", edge, width, 0.1 * height)
    if kind is None:
        return
    if kinds == 2:
        canvas.circle(center, 0.22 * height, _SUIT_COLORS[kind])
    elif kinds == 4:
        _suit(canvas, center, 0.5 * height, kind)
    else:
        canvas.text(center, _RANKS[kind], 0.42 * height)


def _answer(canvas: Canvas, last: Last, words: tuple[str, ...] | None = None) -> None:
    """What the agent answered, and whether it was right; no reward, no verdict.

    A suit, or where there are `words` one of them, or a number where there are none.
    """
    if last.choice is None:
        return
    canvas.text((0.72, 0.1), "answered", 0.05, MUTED)
    if words is None:
        _suit(canvas, (0.72, 0.29), 0.2, last.choice)
    else:
        canvas.text((0.72, 0.29), words[last.choice] if words else str(last.choice), 0.1)
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


def _autoencode(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """The card on the table while watching, the agent's last answer, and the cards with the one asked for."""
    n, time = int(env.num_cards), int(state.time)
    cards = np.asarray(state.cards)
    canvas.text((0.28, 0.1), "watch" if time < n - 1 else "play", 0.05, MUTED)
    _card(canvas, (0.28, 0.33), 0.36, int(cards[time]) if time < n else None)
    _answer(canvas, last)
    canvas.line([(0.04, 0.565), (0.96, 0.565)], FAINT, 0.006)
    asked = 2 * (n - 1) - time
    canvas.text((0.5, 0.62), "asked for: the outlined one, backwards" if asked < n else "seen", 0.042, MUTED)
    for card in range(n):
        row, column = divmod(card, 26)
        rows = -(-n // 26)
        height = min(0.05, 0.3 / rows)
        center = (0.5 + (column - 12.5) * 0.036, 0.68 + 0.5 * height + row * height * 1.05)
        seen, here = card <= time and (asked >= n or card <= asked), card == asked
        edge, width = (ACCENT, 0.01) if here else (MUTED, 0.003)
        _card(canvas, center, height, int(cards[card]) if seen else None, edge, width)


def _count_recall(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """The two cards on the table, the agent's last answer, and how often each kind was seen."""
    kinds = int(env.kinds)
    for x, word, card in ((0.17, "card", state.value), (0.43, "how many?", state.query)):
        canvas.text((x, 0.1), word, 0.05, MUTED)
        _card(canvas, (x, 0.3), 0.3, int(card), kinds=kinds)
    _answer(canvas, last, ())
    counts = int(env.num_cards) // kinds - np.asarray(state.values)
    _tally(canvas, counts, int(env.num_cards) // kinds, int(state.query), f"seen: {int(counts.sum())}")


def _higher_lower(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """The card on the table, the agent's last guess, and how many of each rank are left."""
    canvas.text((0.28, 0.1), "card", 0.05, MUTED)
    _card(canvas, (0.28, 0.33), 0.36, int(state.current), kinds=13)
    _answer(canvas, last, ("higher", "lower"))
    remaining = np.asarray(state.remaining)
    _tally(canvas, remaining, 4 * int(env.num_decks), int(state.current), f"left: {int(remaining.sum())}")


def _tally(canvas: Canvas, counts: np.ndarray, most: int, asked: int, title: str) -> None:
    """A bar a kind in the lower half, the one asked for in the loud colour."""
    canvas.line([(0.04, 0.565), (0.96, 0.565)], FAINT, 0.006)
    canvas.text((0.5, 0.62), title, 0.042, MUTED)
    pitch = 0.9 / len(counts)
    for kind, count in enumerate(counts):
        left, tall = 0.05 + (kind + 0.15) * pitch, 0.25 * float(count) / most
        canvas.box((left, 0.94 - tall), (0.7 * pitch, max(tall, 0.004)), ACCENT if kind == asked else INK)


def _concentration(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """All cards, face up where found or just turned; the turned ones are outlined."""
    cards, face_up = np.asarray(state.cards), np.asarray(state.face_up)
    turned = (int(state.first), int(state.second))
    columns = 13
    rows = -(-len(cards) // columns)
    height = min(0.9 / rows, 0.1)
    for place, kind in enumerate(cards):
        row, column = divmod(place, columns)
        center = (0.5 + (column - (columns - 1) / 2) * 0.074, 0.5 + (row - (rows - 1) / 2) * height * 1.1)
        seen = int(kind) if face_up[place] or place in turned else None
        edge, width = (ACCENT, 0.012) if place in turned else (GOAL if face_up[place] else MUTED, 0.004)
        _card(canvas, center, 0.92 * height, seen, edge, width, int(env.kinds))


DRAWINGS = {
    "RepeatPrevious": _repeat_previous,
    "RepeatFirst": _repeat_first,
    "Autoencode": _autoencode,
    "CountRecall": _count_recall,
    "HigherLower": _higher_lower,
    "Concentration": _concentration,
}
