"""Which pixels of which earlier frames a decision rests on: the pictures of `resetta bench recall`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from ...envs.draw_canvas import CATEGORIES, PAPER
from ..plots import COLORS, INK, MUTED, new_figure, styled
from .recall_gradients import WHICH, Traced

if TYPE_CHECKING:
    from ..plots import Figure

SHOWN = 7  # earlier frames beside a decision
_SAID = {"value": "its value", "action": "the action taken"}


def choose(decisions: int, pictures: int) -> Int[np.ndarray, " P"]:
    """Which decisions are shown as pictures: evenly spaced, as traced rows are among all tasks."""
    return np.unique(np.linspace(0, decisions - 1, min(pictures, decisions)).astype(int))


def pictures(
    traced: Traced, watched: Any, rows: Int[np.ndarray, " R"], pictured: Int[np.ndarray, " P"]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The row that says which frames are shown, and what they show, of the first seed's agent.

    A decision's own frame comes first, then the `SHOWN` earlier ones with the largest gradients, in order
    (fewer where there were not so many); `share` is a frame's part of all gradients' norms. The arrays are
    `frames` uint8 `[P, which, 1 + SHOWN, H, W, 3]`, `maps` float32 alike without colours, and the norms of
    every step, `[P, which, T]`, NaN after the decision.
    """
    assert traced.maps is not None
    steps, (height, width) = traced.value.shape[1], traced.maps.shape[-2:]
    size = len(pictured), len(WHICH)
    frames = np.zeros((*size, 1 + SHOWN, height, width, 3), np.uint8)
    maps = np.zeros((*size, 1 + SHOWN, height, width), np.float32)
    norms = np.full((*size, steps), np.nan, np.float32)
    decisions = []
    for p, number in enumerate(pictured):
        at = int(traced.at[0, number])
        film = in_colour(watched.inputs.observation[0, : at + 1, number])
        trial = watched.trial[0, : at + 1, number]
        starts = np.flatnonzero(watched.inputs.episode_start[0, : at + 1, number])
        begun = starts[np.searchsorted(starts, np.arange(at + 1), side="right") - 1]
        said: dict[str, Any] = {"task": int(rows[number]), "starts": starts.tolist()}
        for w, name in enumerate(WHICH):
            found = getattr(traced, name)[0, : at + 1, number]
            most = np.sort(np.argsort(found[:at])[::-1][:SHOWN])
            shown = np.concatenate([[at], most]).astype(int)
            frames[p, w, : len(shown)] = film[shown]
            maps[p, w, : len(shown)] = traced.maps[w, 0, shown, p]
            norms[p, w, : at + 1] = found
            share = found / max(float(found.sum()), 1e-30)
            said[name] = [
                {
                    "at": int(t),
                    "trial": int(trial[t]) + 1,
                    "step": int(t - begun[t]) + 1,
                    "share": float(share[t]),
                }
                for t in shown
            ]
        decisions.append(said)
    return {"part": "pictures", "decisions": decisions}, {"frames": frames, "maps": maps, "norms": norms}


def in_colour(film: Float[np.ndarray, "T H W C"]) -> UInt8[np.ndarray, "T H W 3"]:
    """What an agent saw as pictures: grey, RGB, or a colour a channel where there are more, the first on top.

    Values are taken from 0 to 1, or to the largest where that is more.
    """
    film = np.clip(film, 0, None) / max(1.0, float(film.max(initial=0)))
    channels = film.shape[-1]
    if channels in (1, 3):
        return np.round(255 * np.broadcast_to(film, (*film.shape[:-1], 3))).astype(np.uint8)
    picture = np.ones((*film.shape[:-1], 3)) * _rgb(PAPER)
    for channel in reversed(range(channels)):
        colour = _rgb(CATEGORIES[1 + channel % (len(CATEGORIES) - 1)])  # the first is that of the gradient
        picture += film[..., channel, None] * (colour - picture)
    return np.round(picture).astype(np.uint8)


def overlaid(
    frames: UInt8[np.ndarray, "*N H W 3"], maps: Float[np.ndarray, "*N H W"]
) -> UInt8[np.ndarray, "*N H W 3"]:
    """Paled frames with what a decision rests on in red, their strongest pixel at full strength."""
    pale = 0.5 * frames + 0.5 * _rgb(PAPER)
    strength = (maps / max(float(maps.max(initial=0)), 1e-30))[..., None]
    return np.round(pale + 0.9 * strength * (_rgb(COLORS[0]) - pale)).astype(np.uint8)


def _rgb(colour: str) -> Float[np.ndarray, " 3"]:
    return np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)], float)


@styled
def figure(row: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Figure":
    """For each decision a strip of frames for its value and its action, and the gradients of all steps."""
    decisions: Sequence[Mapping[str, Any]] = row["decisions"]
    made, axes = new_figure("", (1.45 * (1 + SHOWN), 4.6 * len(decisions)))
    axes.remove()
    grid = made.add_gridspec(3 * len(decisions), 1 + SHOWN, height_ratios=[1, 1, 0.75] * len(decisions))
    for p, said in enumerate(decisions):
        for w, name in enumerate(WHICH):
            own, earlier = (  # a scale each: beside the present's gradients earlier ones may be faint
                overlaid(arrays["frames"][p, w, part], arrays["maps"][p, w, part])
                for part in (slice(1), slice(1, None))
            )
            pictures = np.concatenate([own, earlier])
            for k, shown in enumerate(said[name]):
                panel = made.add_subplot(grid[3 * p + w, k])
                panel.imshow(pictures[k], interpolation="nearest")
                panel.set(xticks=[], yticks=[])
                ago = said[name][0]["at"] - shown["at"]
                where = f"trial {shown['trial']}, step {shown['step']}"
                title = f"{where}\n{ago} before · {shown['share']:.0%}"
                if k == 0:
                    title = f"task {said['task']}: {where}\n{_SAID[name]} · {shown['share']:.0%}"
                panel.set_title(title, fontsize=7.5, loc="left", pad=3, fontweight="normal", color=INK)
                for spine in panel.spines.values():
                    spine.set(
                        visible=True, color=COLORS[w] if k == 0 else MUTED, linewidth=2 if k == 0 else 0.8
                    )
        _draw_time(made.add_subplot(grid[3 * p + 2, :]), said, arrays["norms"][p])
    return made


def _draw_time(axes: Any, said: Mapping[str, Any], norms: Float[np.ndarray, "2 T"]) -> None:
    """Every step's part of a decision's gradients; dots are the frames shown, lines the starts of trials."""
    last = said[WHICH[0]][0]["at"]
    for w, name in enumerate(WHICH):
        share = norms[w, : last + 1] / max(float(np.nansum(norms[w])), 1e-30)
        axes.plot(np.arange(last + 1), share, color=COLORS[w], linewidth=1.2, label=_SAID[name])
        shown = [each["at"] for each in said[name]]
        axes.plot(shown, share[shown], color=COLORS[w], marker="o", markersize=3, linestyle="none")
    for start in said["starts"]:
        axes.axvline(start, color=INK, linewidth=0.8, linestyle=":")
    axes.set(xlabel="step of the meta-episode (dotted: a trial begins)", ylabel="share")
    axes.set_yscale("log")
    axes.set_xlim(-0.5, last + 0.5)
    axes.legend(loc="best", fontsize=7.5, frameon=True, framealpha=0.85, edgecolor="none")
