"""Figures of a video run: measures against the horizon, and the loss."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .plots import COLORS, MUTED, new_figure, styled, thousands

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHO = {
    "model": "the model",
    "copy_last": "the last frame again",
    "mean_frame": "the context's mean",
    "constant": "always the centre",
}
UNITS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "mse": "mean squared error",
    "position_error": "position error (pixels)",
    "identity": "identity recognised (fraction)",
    "recall": "identity at the first return (fraction)",
    "recall_error": "position error at the first return (pixels)",
    "iou": "intersection over union",
    "revisit_psnr": "PSNR at places seen before (dB)",
    "new_psnr": "PSNR at new places (dB)",
    "diversity": "difference between futures (MSE)",
}
FACTS = {"delay": "frames behind the wall"}
_LOG_FROM = 100  # horizons beyond this are drawn on a logarithmic axis


@styled
def horizon_curve(entry: Mapping[str, Any], measure: str) -> "Figure":
    """One measure of eval.json against the predicted frame, with 95 % intervals; null leaves a gap.

    An entry of `by` is drawn against what is true of the clips, its `fact`.
    """
    figure, axes = new_figure("")
    longest = 1
    for k, who in enumerate(who for who in entry if f"{who}_low" in entry):
        values = _floats(entry[who])
        frames = np.asarray(entry.get("values", np.arange(1, len(values) + 1)))
        longest = max(longest, *frames)
        model = who.startswith("model")
        color = COLORS[0] if model else (COLORS[1], COLORS[2], COLORS[3])[k % 3]
        low, high = (entry[f"{who}_{end}"] for end in ("low", "high"))
        if low is not None and high is not None:
            axes.fill_between(frames, _floats(low), _floats(high), color=color, alpha=0.15, linewidth=0)
        style: dict[str, Any] = {"linewidth": 1.6, "linestyle": (0, (5, 2))}
        if model:
            style = {"linewidth": 2.2}
        points = {"marker": "o", "markersize": 3.5, "markevery": _alone(values)}
        axes.plot(frames, values, color=color, label=WHO.get(who, who), **style, **points)
    if longest >= _LOG_FROM:
        axes.set_xscale("log")
    axes.set_xlabel(FACTS.get(entry["fact"]) or str(entry["fact"]) if "fact" in entry else "predicted frame")
    axes.set_ylabel(UNITS.get(measure, measure))
    axes.margins(x=0.01)
    axes.legend(loc="best")
    return figure


@styled
def loss_curve(rows: Iterable[Mapping[str, Any]]) -> "Figure":
    """The training loss of `metrics.jsonl` against the optimiser step, on a logarithmic axis."""
    pairs = [(row["step"], row["loss"]) for row in rows if row.get("loss") is not None and "step" in row]
    figure, axes = new_figure("")
    steps, losses = np.array(pairs, float).reshape(-1, 2).T
    axes.plot(steps, losses, color=COLORS[0], linewidth=1.8)
    if len(losses) and (losses > 0).all():
        axes.set_yscale("log")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("training loss")
    axes.xaxis.set_major_formatter(thousands)
    axes.grid(True, which="both", color=MUTED, alpha=0.12)
    axes.margins(x=0.01)
    return figure


def _alone(values: np.ndarray) -> list[int]:
    """The values between two gaps, of which a line shows nothing."""
    gaps = np.isnan(np.pad(values, 1, constant_values=np.nan))
    return np.flatnonzero(~gaps[1:-1] & gaps[:-2] & gaps[2:]).tolist()


def _floats(values: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)
