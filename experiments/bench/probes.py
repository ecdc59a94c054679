"""resetta bench probes: what cores remember, probe by probe, against what is known of each."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..build import settings
from ..listing import core_classes
from ..plots import save_png
from ..probes.answers import answer
from ..probes.questions import read_questions
from ..probes.summary import (
    FEWEST_CORES,
    FEWEST_PAIRS,
    FLOOR,
    KEEPS,
    by_distance,
    correlations,
    effective_lengths,
    interval,
    is_learnt,
    normalized,
    not_learnt,
    of_categories,
    of_classes,
    of_lengths,
    of_outputs,
    of_quadrants,
    of_retrieval,
    predictions,
    probes_of,
    ranking,
    win_rates,
)
from .probe_figures import PICTURES, labels_of, scores
from .probes_page import write_page
from .results import Table, describe, save, short

if TYPE_CHECKING:
    from ..plots import Figure


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Train what is not kept already and write `<out>/probes.json`."""
    own, questions = read_questions(configs)
    with settings(own):
        rows = answer(own, questions)
        for row in rows:
            middle = interval(row)
            row["normalized"] = {
                **dataclasses.asdict(middle),
                "values": normalized(row, row["scores"]).tolist(),
            }
            row["learnt"] = is_learnt(row)
        result = describe(
            "probes",
            {**dataclasses.asdict(own), "core": None},
            command=configs[0]["command"],
            seeds=sorted({seed for question in questions for seed in question.seeds}),
            configs={q.case.label: {"name": q.case.name, **q.case.options} for q in questions},
            rows=rows,
        )
    result |= {
        "not_learnt": not_learnt(rows),
        "ranking": ranking(rows),
        "win_rates": win_rates(rows),
        "categories": of_categories(rows),
        "quadrants": of_quadrants(rows),
        "classes": of_classes(rows, core_classes),
        "by_distance": by_distance(rows),
        "retrieval": of_retrieval(rows),
        "outputs": of_outputs(rows),
        "outputs_of_lengths": of_lengths(rows),
        "effective_lengths": effective_lengths(rows),
        "correlations": correlations(rows),
        "predictions": predictions(rows),
    }
    save(result, own.folder, table(result), figure(result))
    further(result, own.folder)


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result: a row per question, a column per core."""
    labels, asked = labels_of(result["rows"]), probes_of(result["rows"])
    header = ["probe", *labels, "random", "blind", "reference"]
    rows = []
    for name, of in asked.items():
        cells = {row["label"]: _cell(row) for row in of}
        figures = [f"{of[0][which]['value']:.3g}" for which in ("random", "blind", "reference")]
        rows.append([name, *(cells.get(label, "") for label in labels), *figures])
    return Table("Probes: what each core remembers", header, rows, _notes(result))


def _cell(row: Mapping[str, Any]) -> str:
    middle = row["normalized"]
    return f"{middle['value']:.2f} ({middle['low']:.2f}–{middle['high']:.2f})"


def _notes(result: Mapping[str, Any]) -> list[str]:
    own, rows = result["settings"], result["rows"]
    notes = [
        "normalised score, 0: the best answer without memory (blind), 1: the reference; mean and 95 % "
        f"bootstrap interval over seeds and {own['episodes']} fresh episodes each; the last three columns "
        "are raw scores",
        f"mode {own['mode']}; up to {short(own['tokens'])} tokens per seed, fewer where a seed was done; "
        "@ is the length of an episode",
        "cores: " + "; ".join(_core_text(result, label) for label in labels_of(result["rows"])),
    ]
    if result["not_learnt"]:
        text = ", ".join(result["not_learnt"])
        notes.append(f"not learnt at this budget by any core, and left out of the ranking: {text}")
    if result["ranking"]:
        notes.append(f"ranking by the mean over probes that some core learnt: {_ranked(result['ranking'])}")
    ranks = [each["label"] for each in result["ranking"]]
    for each in result.get("win_rates", ()):
        if ranks.index(each["other"]) == ranks.index(each["label"]) + 1:
            notes.append(
                f"in the same episodes {each['label']} beats {each['other']} at a rate of {each['rate']:.2f}"
                f"{_spread(each)}, ties being half"
            )
    for kinds in ("categories", "quadrants"):
        found = result.get(kinds, {})  # earlier results have no quadrants
        if len(found) > 1:
            notes += [f"of these, {name}: {_ranked(of)}" for name, of in found.items()]
    if len(result.get("classes", ())) > 1:
        told = [f"{of['class']} {of['mean']:.2f} (best: {of['best']})" for of in result["classes"]]
        notes.append(f"by class of core, the mean over its cores: {', '.join(told)}")
    for each in result["effective_lengths"]:
        text = each["effective"] or f"undefined, below {FLOOR} at {each['lengths'][0]}"
        notes.append(
            f"effective length of {each['label']} on {each['probe']} (≥ {KEEPS} of its first value): {text}"
        )
    notes += _measured(rows)
    for name, of in _grouped(result.get("by_distance", ())).items():
        told = "; ".join(f"{label} {', '.join(cells)}" for label, cells in of.items())
        notes.append(f"right in {name} by how many steps back lies what is needed: {told}")
    notes += [_retrieval(each) for each in result.get("retrieval", ())]
    shares: dict[str, list[str]] = {}
    for each in result.get("outputs", ()):
        asked = (
            f"the first {each['outputs']} outputs of {each['question']}, as many as every answer of the "
            f"probe has here, are all {each.get('all', 'right')}"
        )
        shares.setdefault(asked, []).append(f"{each['label']} {each['right']:.2f}{_spread(each)}")
    notes += [f"{asked}: {', '.join(cells)}" for asked, cells in shares.items()]
    for each in result.get("outputs_of_lengths", ()):
        notes.append(f"{each['one']} and {each['other']} rank cores alike by these outputs: {_rho(each)}")
    if result["correlations"] is None:
        notes.append(f"rank correlations between probes need {FEWEST_CORES} cores or sizes; not given")
    for kinds in ("categories", "quadrants"):
        for each in (result["correlations"] or {}).get(f"intervals_of_{kinds}", ()):
            notes.append(f"{each['one']} and {each['other']} rank cores alike: {_rho(each)}")
    for each in result.get("predictions", ()):
        notes.append(f"{each['question']} ranks cores as projected control does: {_rho(each)}")
    seconds = sum(sum(row["seconds"]) for row in rows if row["length"] == row["trained_length"])
    notes.append(f"training took {short(seconds)} seconds in all, every seed's share of its dispatches")
    devices = sorted({device for row in rows for device in row["devices"]})
    return [*notes, f"trained on {', '.join(devices)}"]


def _ranked(ranking: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{r['label']} {r['mean']:.2f}{_spread(r)}" for r in ranking)


def _rho(each: Mapping[str, Any]) -> str:
    chance = each["shuffled"]
    return (
        f"Spearman's rho {each['rho']:.2f} ({each['low']:.2f} to {each['high']:.2f}); with shuffled labels "
        f"{chance['low']:.2f} to {chance['high']:.2f}"
    )


def _spread(found: Mapping[str, Any]) -> str:
    """An interval over seeds; of one seed there is none."""
    return f" ({found['low']:.2f}–{found['high']:.2f})" if found.get("seeds") != 1 else " (one seed)"


def _grouped(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Shares of right answers in words, by question and core."""
    of: dict[str, dict[str, list[str]]] = {}
    for each in found:
        cell = f"{each['steps']}–{2 * each['steps'] - 1}: {each['right']:.2f}"
        of.setdefault(each["question"], {}).setdefault(each["label"], []).append(cell)
    return of


def _measured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was measured beside scores: a note for each probe and measure, a mean over seeds for each core."""
    notes = []
    for name, of in probes_of(rows).items():
        for measure in of[0].get("measures", ()):  # which earlier results do not have
            cells = [f"{row['label']} {np.mean(row['measures'][measure]):.3g}" for row in of]
            notes.append(f"{measure} of {name}: {', '.join(cells)}")
    return notes


def _retrieval(each: Mapping[str, Any]) -> str:
    """Whom retrieval helps, in words."""
    few = f"too few pairs for a sign test, which needs {FEWEST_PAIRS} that are no ties"
    told = few if each["p"] is None else f"sign test, two-sided: p = {each['p']:.2g}"
    return (
        f"retrieval of {each['keep']} steps helps answers whose need lies near more than those whose need "
        f"lies far in {each['short']} pairs of the same core, question and seed with and without it, less "
        f"in {each['long']}, equally in {each['ties']}; {told}"
    )


def _core_text(result: Mapping[str, Any], label: str) -> str:
    row = next(row for row in result["rows"] if row["label"] == label)
    return f"{label} {short(row['parameters'])} parameters, {short(row['state_bytes'])} B of state a row"


def figure(result: Mapping[str, Any]) -> "Figure":
    """The map of scores, and of lengths and depths."""
    return scores(result["rows"])


def further(result: Mapping[str, Any], out: Path) -> None:
    """Write `<out>/probes_<picture>.png` of what the rows hold, and `<out>/probes.html` with all of it."""
    made = {}
    for name, (heading, draw) in PICTURES.items():
        drawn = draw(result["rows"])
        if drawn is not None:
            made[name] = heading, drawn
    for name, (_, drawn) in made.items():
        if name != "scores":
            save_png(drawn, out / f"probes_{name}.png")
    write_page(result, table(result), made, out / "probes.html")
    others = [f"probes_{name}.png" for name in made if name != "scores"]
    print(f"written: {', '.join(str(out / name) for name in ['probes.html', *others])}")
