"""What `resetta bench probes` draws: scores, lengths and depths, options, memories, and mixing maps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plots import COLORS, INK, new_figure, nth_style, styled
from ..probes.summary import by_distance, normalized, probes_of, quadrant
from .figures import heat_maps

if TYPE_CHECKING:
    from ..plots import Figure

Rows = Sequence[Mapping[str, Any]]
Panel = tuple[str, str, dict[str, list[tuple[float, float, float, float]]]]
"""A title, what is on the x axis, and of each label its points: x, value, low, high."""


def labels_of(rows: Rows) -> list[str]:
    """Cores in the order asked."""
    return list(dict.fromkeys(row["label"] for row in rows))


def scores(rows: Rows) -> "Figure":
    """A map of cores and probes; below it, for what is hidden at depths, a map of length and depth a core."""
    asked, labels = probes_of(rows), labels_of(rows)
    values = np.full((len(asked), len(labels)), np.nan)
    for k, of in enumerate(asked.values()):
        for row in of:
            values[k, labels.index(row["label"])] = row["normalized"]["value"]
    maps = [("Normalised score", [*asked], labels, values)]
    for label in labels:
        for probe in dict.fromkeys(row["probe"] for row in rows if row["depth_scores"]):
            maps.append(_depths(rows, label, probe))
    return heat_maps(maps)


def _depths(rows: Rows, label: str, probe: str) -> Any:
    """Depth down, length to the right."""
    of = [row for row in rows if (row["label"], row["probe"]) == (label, probe)]
    columns = [np.mean(normalized(row, row["depth_scores"]), 0) for row in of]
    depths = [f"depth {depth:g}" for depth in (of[0]["depths"] if of else [])]
    lengths = [str(row["length"]) for row in of]
    return f"{label}: {probe}", depths, lengths, np.stack(columns, -1) if columns else np.zeros((0, 0))


def quadrants(rows: Rows) -> "Figure | None":
    """Mean scores by how many steps an answer needs and how far apart they lie; None where all are alike."""
    if any("diffusion" not in row for row in rows):  # measured before it was told
        return None
    cells: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        cells.setdefault(quadrant(row), {}).setdefault(row["label"], []).append(row["normalized"]["value"])
    if len(cells) < 2:
        return None
    labels = labels_of(rows)
    values = [[np.mean(of[label]) if label in of else np.nan for label in labels] for of in cells.values()]
    return heat_maps([("Normalised score, mean over probes", [*cells], labels, np.array(values))])


def options(rows: Rows) -> "Figure | None":
    """Scores against every option that varies in numbers, such as distractors; None where none does.

    A panel is of one probe, all its other options the same.
    """
    panels: dict[tuple[str, str], Panel] = {}
    for row in rows:
        for key, value in row["options"].items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            rest = {name: other for name, other in row["options"].items() if name != key}
            name = (key, f"{row['probe']} {rest} {row['trained_length'] if key == 'length' else ''}")
            words = [row["probe"], "" if key == "length" else f"@{row['length']}"]
            panel = panels.setdefault(name, (" ".join(filter(None, words)), key, {}))
            middle = row["normalized"]
            point = value, middle["value"], middle["low"], middle["high"]
            panel[2].setdefault(row["label"], []).append(point)
    kept = [panel for panel in panels.values() if len({p[0] for of in panel[2].values() for p in of}) > 1]
    return lines(kept, "normalised score") if kept else None


def distances(rows: Rows) -> "Figure | None":
    """Right answers against how far back lies what they depend on; None where no probe says it."""
    panels: dict[str, Panel] = {}
    for each in by_distance(rows):
        panel = panels.setdefault(
            each["question"], (each["question"], "steps back, from … to twice as many", {})
        )
        point = each["steps"], each["right"], each["low"], each["high"]
        panel[2].setdefault(each["label"], []).append(point)
    kept = [panel for panel in panels.values() if any(len(of) > 1 for of in panel[2].values())]
    return lines(kept, "share of right answers") if kept else None


def recall(rows: Rows) -> "Figure | None":
    """How well tokens can be read from the memory after the last step; None where nothing was looked into.

    Below all cores' whole memories comes a panel for each core of several layers, with a line for each.
    """
    panels: list[Panel] = []

    def panel(title: str, read: Mapping[str, tuple[list[float], list[float | None]]]) -> None:
        points = {
            label: [(d, r2, r2, r2) for d, r2 in zip(*each, strict=True) if r2 is not None]
            for label, each in read.items()
        }
        drawn = {label: of for label, of in points.items() if of}
        if drawn:
            panels.append((title, "steps before the last", drawn))

    for name, of in probes_of(rows).items():
        looked = {row["label"]: row["maps"] for row in of if (row.get("maps") or {}).get("recall")}
        panel(name, {label: (maps["delays"], maps["recall"]) for label, maps in looked.items()})
        for label, maps in looked.items():
            if maps.get("layer_recall"):  # earlier results have none
                parts = {f"layer {k}": part for k, part in enumerate(maps["layer_recall"], 1)}
                parts = {"all layers": maps["recall"], **parts}
                panel(f"{label}: {name}", {part: (maps["delays"], r2) for part, r2 in parts.items()})
    return lines(panels, "R² of a linear reading") if panels else None


@styled
def lines(panels: Sequence[Panel], ylabel: str) -> "Figure":
    """Panels one below the other, a line with error bars per label; x doubles where it begins above 0."""
    figure, _ = new_figure("", (7.2, 2.6 * len(panels)))
    figure.clear()
    for axes, (title, xlabel, of) in zip(
        figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True
    ):
        for k, (label, points) in enumerate(of.items()):
            x, value, low, high = np.array(sorted(points), float).T
            bars = np.abs(np.stack([value - low, high - value]))
            style: Any = nth_style(k) | {"markersize": 4}
            axes.errorbar(x, value, yerr=bars if bars.any() else None, capsize=2.5, label=label, **style)
        ticks = sorted({point[0] for points in of.values() for point in points})
        if ticks[0] >= 1 and ticks[-1] >= 8 * ticks[0]:
            axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(-0.1, 1.1)
        axes.axhline(0, color=INK, linewidth=0.7, linestyle=":")
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))  # lines fill a panel from 0 to 1
    return figure


@styled
def mixing(rows: Rows) -> "Figure | None":
    """Mixing maps, a row a probe and a column a core; None where nothing was looked into.

    Colours are the logarithm of how much an output depends on an input, over three powers of ten below the
    map's largest; on the right edge, dots mark the outputs that are answers.
    """
    asked = {name: of for name, of in probes_of(rows).items() if any(row.get("maps") for row in of)}
    if not asked:
        return None
    labels = labels_of([row for of in asked.values() for row in of])
    figure, _ = new_figure("", (1.2 + 2.3 * len(labels), 2.5 * len(asked)))
    figure.clear()
    cells = figure.subplots(len(asked), len(labels), squeeze=False)
    for down, (name, of) in enumerate(asked.items()):
        for across, label in enumerate(labels):
            axes = cells[down, across]
            axes.grid(visible=False)
            found = next((row["maps"] for row in of if row["label"] == label and row.get("maps")), None)
            if found is None:
                axes.set_axis_off()
                continue
            values = np.array(found["mixing"], float)
            largest = max(values.max(), 1e-30)
            shown = np.log10(np.maximum(values / largest, 1e-3))
            axes.imshow(shown, cmap="magma", vmin=-3, vmax=0, interpolation="nearest")
            answers = np.flatnonzero(found["asked"])
            edge = np.full(len(answers), values.shape[1] - 0.5)
            axes.plot(edge, answers, ".", color=COLORS[1], markersize=3, clip_on=False)
            axes.set_title(f"{label}\n{name}", fontsize=8)
            axes.set(xticks=[], yticks=[], xlabel="input" if down == len(asked) - 1 else "")
            axes.set_ylabel("output" if across == 0 else "")
    return figure


PICTURES = {
    "scores": ("Scores, and lengths by depths", scores),
    "quadrants": ("Scores by scope and diffusion", quadrants),
    "options": ("Scores against what makes a probe harder", options),
    "distances": ("Right answers by how far back lies what they depend on", distances),
    "recall": ("What can be read from the memory", recall),
    "mixing": ("What outputs depend on", mixing),
}
"""By name: a heading, and the figure of rows, None where they hold nothing for it."""
