"""Drawings made of bars: bandits, and the generic picture of any observation."""

from typing import Any

import numpy as np

from .draw_canvas import ACCENT, FAINT, INK, MUTED, Canvas, Last


def _arms(canvas: Canvas, means: np.ndarray, last: Last) -> None:
    """One bar an arm, as high as its mean reward, which the agent does not see; the last pull stands out."""
    count = len(means)
    low, high = min(0.0, float(means.min())), max(1.0 if means.min() >= 0 else 0.0, float(means.max()))
    span = max(high - low, 1e-6)
    top, bottom = 0.16, 0.82
    zero = bottom - (0 - low) / span * (bottom - top)
    pitch = 0.88 / count
    for arm, mean in enumerate(means):
        left = 0.06 + arm * pitch + 0.14 * pitch
        pulled = arm == last.choice
        y = bottom - (float(mean) - low) / span * (bottom - top)
        canvas.box((left, top), (0.72 * pitch, bottom - top), "#f1efe9", radius=0.015)
        canvas.box(
            (left, min(y, zero)),
            (0.72 * pitch, max(abs(zero - y), 0.006)),
            ACCENT if pulled else INK,
            radius=0.012,
        )
        canvas.text(
            (left + 0.36 * pitch, 0.89), str(arm + 1), min(0.06, 0.5 * pitch), ACCENT if pulled else MUTED
        )
        if pulled and last.reward is not None:
            canvas.text(
                (left + 0.36 * pitch, 0.09), f"{last.reward:+.3g}", min(0.07, 0.45 * pitch + 0.02), ACCENT
            )
    canvas.line([(0.06, zero), (0.94, zero)], INK, 0.008)


def _bandit(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    if hasattr(params, "arm_probabilities"):
        means = np.ravel(params.arm_probabilities)
    elif hasattr(state, "reward_probs"):
        means = np.ravel(state.reward_probs)
    elif hasattr(state, "mu"):
        means = np.array([0.0, float(state.mu)])
    else:
        means = np.ravel(state.rewards)
    if float(state.time) > 0 and hasattr(state, "last_action"):
        last = Last(state.last_action, float(np.ravel(state.last_reward)[0]))
    _arms(canvas, means.astype(float), last)


def draw_bars(canvas: Canvas, name: str, values: np.ndarray, labels: list[str] | None = None) -> None:
    """Any vector as bars to either side of zero, on a scale that squashes what is large.

    The scale is x / (1 + |x|), so that no value leaves the frame and its meaning does not change from
    frame to frame. A vector longer than 64 becomes a square of cells.
    """
    values = np.nan_to_num(np.ravel(values).astype(float))
    canvas.text((0.05, 0.07), name, 0.055, INK, "lm")
    squashed = values / (1 + np.abs(values))
    if len(values) > 64:
        _cells(canvas, squashed)
        return
    count = max(len(values), 1)
    pitch = 0.84 / count
    labelled = count <= 16
    middle, reach = (0.48, 0.33) if labelled else (0.5, 0.44)
    for k, (value, bar) in enumerate(zip(values, squashed, strict=True)):
        y = 0.13 + k * pitch
        thick = min(0.7 * pitch, 0.07)
        corner = y + (pitch - thick) / 2
        canvas.box((middle - reach, corner), (2 * reach, thick), "#f1efe9", radius=0.01)
        canvas.box((middle + min(0.0, bar) * reach, corner), (abs(bar) * reach, thick), ACCENT, radius=0.006)
        if labelled:
            size = min(0.5 * pitch + 0.012, 0.042)
            canvas.text((0.12, y + pitch / 2), labels[k] if labels else str(k), size, MUTED, "rm")
            canvas.text((0.97, y + pitch / 2), f"{value:.2f}", size, INK, "rm")
    canvas.line([(middle, 0.12), (middle, 0.98)], INK, 0.006)


def _cells(canvas: Canvas, squashed: np.ndarray) -> None:
    side = int(np.ceil(np.sqrt(len(squashed))))
    cell = 0.84 / side
    for k, value in enumerate(squashed):
        row, column = divmod(k, side)
        corner = (0.08 + column * cell, 0.13 + row * cell)
        color = FAINT if value == 0 else _blend(ACCENT if value > 0 else INK, abs(value))
        canvas.box(corner, (0.9 * cell, 0.9 * cell), color)


def _blend(color: str, amount: float) -> str:
    base = (226, 229, 234)
    target = tuple(int(color[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * amount):02x}" for a, b in zip(base, target, strict=True))


DRAWINGS = {
    "BernoulliBandit": _bandit,
    "GaussianBandit": _bandit,
    "SimpleBandit": _bandit,
    "MultiarmedBandit": _bandit,
}
