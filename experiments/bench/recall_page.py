"""The table and the figure of `resetta bench recall`, made from its record alone."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plots import COLORS, INK, MUTED, new_figure, styled

if TYPE_CHECKING:
    from ..plots import Figure

from .results import Table, short

_NOTHING = "this core has no eigenvalues"


def of_part(result: Mapping[str, Any], part: str) -> list[Mapping[str, Any]]:
    """The rows of one part."""
    return [row for row in result["rows"] if row["part"] == part]


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result: readings and returns at some trials; the notes say the rest."""
    wipes, own = of_part(result, "wipe"), result["settings"]
    trials, trained = len(wipes[0]["kept"]), own["trained_trials"]
    emptied = [row["trial"] for row in wipes]
    shown = sorted({k for k in (1, 2, *emptied, emptied[-1] + 1, trained, trials) if k <= trials})
    rows = []
    for row in of_part(result, "reading"):
        if len(row["memory"]) == trials and not row["of"]:
            for source in ("memory", "input"):
                cells = [_text(row[source][k - 1]) for k in shown]
                rows.append([f"{row['label']}, {row['measure']} from the {source}", *cells])
    rows.append(["return", *(_text(wipes[0]["kept"][k - 1]) for k in shown)])
    for row in wipes:
        cells = [_text(row["emptied"][k - 1]) for k in shown]
        rows.append([f"return, memory emptied before trial {row['trial']}", *cells])
    (config,) = result["configs"].values()
    name = config["core"]["name"]
    seeds = len(result["seeds"])
    notes = [
        f"{config['env']['name']} with {name}: {own['tasks']} held-out tasks x {seeds} seed(s), trained on "
        f"{trained} trials of a task; mean [95 % bootstrap interval]",
        "readings are ridge regressions fitted to as many training tasks, each trial alone, from the memory "
        "after one step drawn from the trial, and from that step's input, which is what an agent without a "
        "memory would know; 0 is no better than the mean (R²)",
        *_progress(result, trials),
        *_columns(result, min(trained, trials)),
        *_over_time(result),
        *(_wipe_note(row, trials) for row in wipes),
        *_midway_notes(result, trials),
        *_timescale_notes(result),
        *_gradient_notes(result),
        *_picture_notes(result),
    ]
    return Table("What the memory knows", ["", *(f"trial {k}" for k in shown)], rows, notes)


def _progress(result: Mapping[str, Any], trials: int) -> list[str]:
    return [
        f"{row['label']}, read over all trials at once: {row['measure']} {_text(row['memory'][0])} from the "
        f"memory, {_text(row['input'][0])} from the input"
        for row in of_part(result, "reading")
        if len(row["memory"]) != trials
    ]


def _columns(result: Mapping[str, Any], trial: int) -> list[str]:
    by_whole: dict[str, list[str]] = {}
    for row in of_part(result, "reading"):
        if row["of"]:
            said = f"{row['label']} {_text(row['memory'][trial - 1])}"
            by_whole.setdefault(row["of"], []).append(said)
    return [
        f"{whole}, a column for each number of the base environment's observation, R² from the memory in "
        f"trial {trial}: {', '.join(columns)}"
        for whole, columns in by_whole.items()
    ]


def _over_time(result: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['label']}, {row['measure']} from the memory after so many steps: "
        + ", ".join(
            f"{step}: {_text(found)}" for step, found in zip(row["steps"], row["memory"], strict=True)
        )
        for row in of_part(result, "over time")
    ]


def _wipe_note(row: Mapping[str, Any], trials: int) -> str:
    k = row["trial"]
    following = f", of trial {k + 1} by {_text(row['next'], '+')}" if "next" in row else ""
    return (
        f"emptying the memory before trial {k} changes the return of trial {k} by {_text(row['lost'], '+')}"
        f"{following}, and of trials {k} to {trials} together by {_text(row['total'], '+')}; trial {k} is "
        f"then {_text(row['against_first'], '+')} against the first trial (paired within each task)"
    )


def _midway_notes(result: Mapping[str, Any], trials: int) -> list[str]:
    notes = []
    for row in of_part(result, "midway"):
        k = row["trial"]
        where = f"step {row['step'] + 1} of trial {k}"
        if not row["tasks"]:
            notes.append(f"no task's trial {k} lasted until step {row['step'] + 1}, to be emptied there")
            continue
        following = f", of trial {k + 1} by {_text(row['next'], '+')}" if "next" in row else ""
        notes.append(
            f"emptying the memory before {where}, in the {row['tasks']} tasks whose trial lasted until then, "
            f"changes the return of trial {k} by {_text(row['lost'], '+')}{following}, and of trials {k} to "
            f"{trials} together by {_text(row['total'], '+')}"
        )
    return notes


def _picture_notes(result: Mapping[str, Any]) -> list[str]:
    return [
        f"recall_frames.png shows the pixels that {len(row['decisions'])} decisions rest on: each decision's "
        "frame, the earlier frames with the largest gradients (a scale of their own), and every step's share"
        for row in of_part(result, "pictures")
    ]


def _timescale_notes(result: Mapping[str, Any]) -> list[str]:
    rows = of_part(result, "timescales")
    if not rows:
        return [f"timescales: {_NOTHING}"]
    notes = []
    for row in rows:
        cells = [
            f"{name} {' / '.join(short(q) for q in _quantiles(row[name]))}" for name in ("before", "after")
        ]
        where = row["label"] if len(result["seeds"]) == 1 else f"{row['label']}, seed {row['seed']}"
        notes.append(
            f"steps to 1/e of the states of {where} (10 %, median, 90 %), training: {', '.join(cells)}"
        )
    return notes


def _quantiles(values: Sequence[Any]) -> np.ndarray:
    known = [math.inf if value is None else value for value in values]
    return np.quantile(known, [0.1, 0.5, 0.9], method="nearest")


def _gradient_notes(result: Mapping[str, Any]) -> list[str]:
    notes = []
    for row in of_part(result, "gradients"):
        for name, said in (("value", "the value"), ("action", "the action taken")):
            shares = ", ".join(f"{key} {_text(share)}" for key, share in row[name]["shares"].items())
            notes.append(
                f"{said} in trial {row['trial']} rests on observations, by share of the gradients' norms: "
                f"{shares} ({row['decisions']} decisions)"
            )
        notes.append(f"the largest gradient across a reset: {row['across_reset']:g}")
    return notes


def _text(interval: Mapping[str, Any], sign: str = "") -> str:
    value, low, high = (interval[name] for name in ("value", "low", "high"))
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


@styled
def figure(result: Mapping[str, Any]) -> "Figure":
    """Six panels: readings by trial and step, returns and rewards with a memory emptied, timescales, lags."""
    made, _ = new_figure("", (10.0, 11.0))
    made.clear()
    (reading, early), (wiping, midway), (scales, lags) = panels = made.subplots(3, 2)
    trained = result["settings"]["trained_trials"]
    _draw_readings(reading, of_part(result, "reading"))
    _draw_wipes(wiping, of_part(result, "wipe"))
    for axes in (reading, wiping):
        axes.axvline(trained + 0.5, color=INK, linewidth=1.0, linestyle=":")
        axes.set_xlabel("trial")
    _draw_over_time(early, of_part(result, "over time"))
    _draw_midway(midway, of_part(result, "midway"))
    _draw_timescales(scales, of_part(result, "timescales"))
    _draw_lags(lags, of_part(result, "gradients"))
    for axes in panels.ravel():
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best", fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")
    return made


def _nothing(axes: Any, why: str) -> None:
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", color=MUTED)
    axes.set(xticks=[], yticks=[])


def _line(axes: Any, x: Any, intervals: Sequence[Mapping[str, Any]], **style: Any) -> None:
    value, low, high = (np.array([each[k] for each in intervals], float) for k in ("value", "low", "high"))
    axes.fill_between(x, low, high, color=style["color"], alpha=0.14, linewidth=0)
    axes.plot(x, value, linewidth=1.8, **style)


def _draw_readings(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    for k, row in enumerate(row for row in rows if len(row["memory"]) > 1 and not row["of"]):
        x, color = np.arange(1, len(row["memory"]) + 1), COLORS[k % len(COLORS)]
        _line(axes, x, row["memory"], color=color, label=row["label"])
        _line(axes, x, row["input"], color=color, linestyle=(0, (2, 2)))
    axes.set_ylim(-0.15, 1.05)
    axes.axhline(0, color=INK, linewidth=0.7, linestyle=":")
    axes.set(title="Read by trial (dashed: the input alone)", ylabel="R², or right choices")


def _draw_over_time(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    axes.set_title("Read by step (dashed: the input alone)")
    if not rows:
        _nothing(axes, "tasks don't differ in anything that is read")
        return
    for k, row in enumerate(rows):
        color = COLORS[k % len(COLORS)]
        _line(axes, row["steps"], row["memory"], color=color, label=row["label"])
        _line(axes, row["steps"], row["input"], color=color, linestyle=(0, (2, 2)))
    axes.set_xscale("log", base=2)
    axes.set_ylim(-0.15, 1.05)
    axes.axhline(0, color=INK, linewidth=0.7, linestyle=":")
    axes.set(xlabel="step of the meta-episode", ylabel="R², or right choices")


def _draw_wipes(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    kept = rows[0]["kept"]
    _line(axes, np.arange(1, len(kept) + 1), kept, color=MUTED, label="memory kept")
    for k, row in enumerate(rows):
        since = slice(max(row["trial"] - 2, 0), None)
        x = np.arange(1, len(kept) + 1)[since]
        label = f"emptied before trial {row['trial']}"
        _line(
            axes,
            x,
            row["emptied"][since],
            color=COLORS[k % len(COLORS)],
            label=label,
            marker="o",
            markersize=3,
        )
    axes.set(title="Return with the memory emptied", ylabel="return of the trial")


def _draw_midway(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    rows = [row for row in rows if row["tasks"]]
    axes.set_title("Reward, memory emptied in mid-trial")
    if not rows:
        _nothing(axes, "no trial lasted until it was to be emptied")
        return
    for row in rows:
        lags = [(each["from"] + each["to"]) / 2 for each in row["bins"]]
        for name, color, said in (("kept", MUTED, "memory kept"), ("emptied", COLORS[0], "emptied at 0")):
            _line(axes, lags, [each[name] for each in row["bins"]], color=color, label=said)
        where = f"steps since step {row['step'] + 1} of trial {row['trial']} began"
        axes.set(xlabel=where, ylabel="reward a step of the trial")
    axes.axvline(-0.5, color=INK, linewidth=1.0, linestyle=":")


def _draw_timescales(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    axes.set_title("How long states last, before and after training")
    if not rows:
        _nothing(axes, _NOTHING)
        return
    labels = list(dict.fromkeys(row["label"] for row in rows))
    for row in rows:
        color, first = COLORS[labels.index(row["label"]) % len(COLORS)], row["seed"] == rows[0]["seed"]
        for name, style in (("before", (0, (2, 2))), ("after", "-")):
            values = np.array(row[name], float)  # None, for ever, is not drawn
            place = (np.arange(len(values)) + 0.5) / len(values)
            label = f"{row['label']}, {name}" if first else None
            axes.plot(place, values, color=color, linestyle=style, linewidth=1.6, label=label)
    axes.set_yscale("log")
    axes.set(xlabel="share of the layer's states, sorted", ylabel="steps to 1/e")


def _draw_lags(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        for k, (name, said) in enumerate((("value", "value"), ("action", "action taken"))):
            lags = row[name]["lags"]
            _line(axes, [each["lag"] for each in lags], lags, color=COLORS[k], label=said)
    axes.set_yscale("log")
    axes.set(
        title="What a decision rests on",
        xlabel="steps before the decision",
        ylabel="gradient of an observation",
    )
