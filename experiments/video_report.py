"""`report.html` of a video run: how well it predicts, frame by frame, and its films."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..video.scores import higher_is_better
from . import plots
from .atomic import atomic
from .report import code, command_line, duration, films, footer, short_device, training_seconds, words
from .report_page import facts, figure, missing, page, plain_table, section, text
from .run_record import Run, read_metrics
from .video_plots import FACTS, UNITS, WHO, horizon_curve, loss_curve

_CAPTIONS = {
    "prediction_test": "Clips that were never trained on, the true one beside what it draws: framed in "
    "grey while it is given true frames, in orange once it goes on alone.",
    "prediction_train": "Training clips, the true one beside what it draws: framed in grey while it is "
    "given true frames, in orange once it goes on alone.",
    "strip": "The context's last frame, and so many frames after it; the true clip above the predicted one.",
    "sample": "What the model draws after a context, framed in grey while it is given true frames, in orange "
    "once it goes on alone.",
}
_TABLE = (1, 2, 5, 10, 20, 50, 100, 200, 400, 800, 1200)
_FIRST = ("position_error", "identity", "psnr", "ssim", "revisit_psnr", "new_psnr", "iou", "diversity")


def write_video_report(run: Run) -> Path:
    """Writes `report.html` of a video run, replacing it at once or not at all; returns its path."""
    name = " · ".join(str((run.config.get(group) or {}).get("name", "")) for group in ("data", "model"))
    content = page(
        f"{name} · Resetta",
        [
            _header(run, name),
            _curves(run),
            _by_fact(run),
            films(run, "video-sample", _CAPTIONS),
            _learning(run),
            _table(run),
            _protocol(run),
            _how(run),
            footer(run),
        ],
    )
    with atomic(run.path / "report.html") as temporary:
        temporary.write_text(content, encoding="utf-8")
    return run.path / "report.html"


def headline(metrics: Mapping[str, Any]) -> tuple[str, list[str]]:
    """One sentence on what eval.json's measures say, and further ones."""
    psnr = metrics.get("psnr")
    if not isinstance(psnr, Mapping) or not psnr.get("model"):
        return "Not evaluated yet.", []
    model = psnr["model"]
    first = f"The first predicted frame has a PSNR of {_tenths(model[0])} dB" + (
        f", the {ordinal(len(model))} {_tenths(model[-1])} dB." if len(model) > 1 else "."
    )
    more = [
        _ahead("PSNR", psnr, "copy_last", "showing the last frame again", higher=True),
        _ahead("PSNR", psnr, "mean_frame", "the mean of the context", higher=True),
    ]
    several = metrics.get("diversity")
    differ = several.get("model") if isinstance(several, Mapping) else None
    if differ and not any(differ):
        more.append("All futures drawn of a clip are the same: the model leaves nothing to chance.")
    position = metrics.get("position_error")
    if isinstance(position, Mapping) and any(value is not None for value in position.get("model") or ()):
        known = [(k, value) for k, value in enumerate(position["model"], 1) if value is not None]
        more.append(_off(known, len(position["model"])))
        more.append(
            _ahead("position error", position, "copy_last", "showing the last frame again", higher=False)
        )
        more.append(_ahead("position error", position, "constant", "guessing the centre", higher=False))
    return first, [line for line in more if line]


def _off(known: Sequence[tuple[int, float]], horizon: int) -> str:
    """Where objects are, of the frames `(number, pixels)` at which that is known."""
    (first, near), (last, far) = known[0], known[-1]
    begins = "first" if first == 1 else ordinal(first)
    ends = "last" if last == horizon else ordinal(last)
    later = f" and {far:.1f} in the {ends}" if last > first else ""
    return f"Objects are {near:.1f} pixels off in the {begins} frame{later}."


def _tenths(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _ahead(measure: str, entry: Mapping[str, Any], who: str, words: str, higher: bool) -> str:
    """Up to which frame the model is better than a baseline without a break.

    Frames at which one of the two is undefined count neither way; empty where nothing can be compared.
    """
    horizon = len(entry["model"])
    pairs = list(enumerate(zip(entry["model"], entry.get(who) or (), strict=False), 1))
    frames = [(k, a > b if higher else a < b) for k, (a, b) in pairs if a is not None and b is not None]
    if not frames:
        return ""
    defined = " where it is defined" if len(frames) < horizon else ""
    won = 0
    for frame, better in frames:
        if not better:
            break
        won = frame
    else:
        count = f"every one of the {len(frames)} frames" if len(frames) > 1 else "the only frame"
        return f"By {measure} it beats {words} at {count}{defined}."
    if not won:
        return f"By {measure} it does not beat {words} even at the first frame{defined}."
    return f"By {measure} it beats {words} up to the {ordinal(won)} of {horizon} frames."


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`, …"""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _header(run: Run, name: str) -> str:
    sentence, more = headline(run.summary.get("metrics") or {})
    shown: list[tuple[str, object]] = []
    steps = next((row["step"] for row in reversed(run.rows) if "step" in row), None)
    if steps is not None:
        shown.append(("optimiser steps", f"{steps:,}"))
    evaluated = run.summary.get("step")
    if evaluated is not None and evaluated != steps:
        shown.append(("evaluated at step", f"{evaluated:,}"))
    if _measured(run) and isinstance(run.summary.get("protocol"), Mapping):
        protocol = run.summary["protocol"]
        shown.append((f"{protocol.get('split', 'test')} clips", f"{protocol.get('clips', '–')}"))
    if run.summary.get("parameters"):
        shown.append(("parameters", f"{run.summary['parameters']:,}"))
    if run.summary.get("memory_bytes"):
        shown.append(("memory of a clip", f"{run.summary['memory_bytes'] / 1e3:,.0f} kB"))
    seconds = training_seconds(run)
    if seconds:
        shown.append(("training time", duration(seconds)))
    if device := short_device(run):
        shown.append(("device", device))
    parts = "".join(f'<p class="lead">{text(line)}</p>' for line in more)
    notes = "".join(missing(text(f"{note[0].upper()}{note[1:]}.")) for note in run.notes)
    return (
        f'<header><p class="run"><b>Resetta</b> · {text(name)}</p>\n<h1>{text(sentence)}</h1>\n{parts}'
        f"{facts(shown) if shown else ''}{notes}</header>"
    )


def _measured(run: Run) -> dict[str, Mapping[str, Any]]:
    """The measures that have values, the telling ones first."""
    metrics = run.summary.get("metrics") or {}
    names = [name for name in _FIRST if name in metrics] + [name for name in metrics if name not in _FIRST]
    return {
        name: metrics[name] for name in names if isinstance(metrics[name], Mapping) and _whos(metrics[name])
    }


def _whos(entry: Mapping[str, Any]) -> list[str]:
    """Everybody that a measure has values of."""
    return [who for who in entry if f"{who}_low" in entry]


def _curves(run: Run) -> str:
    measured = _measured(run)
    if not measured:
        return section(
            "Frame by frame", missing(f"Not evaluated yet: {code(run, 'video-evaluate')} measures it.")
        )
    parts = []
    for name, entry in measured.items():
        if name.endswith("_best") or name == "mse" or name in run.summary.get("by", {}):
            continue
        better = {True: "; higher is better", False: "; lower is better", None: ""}[higher_is_better(name)]
        caption = f"{UNITS.get(name, name)}, mean over clips{better}."
        if name == "diversity":
            caption = "How much the futures drawn of one clip differ from each other."
        drawn = plots.to_svg(horizon_curve(entry, name), f"{name} against the predicted frame")
        parts.append(figure(drawn, text(caption)))
    note = '<p class="lead">Bands are 95 % bootstrap intervals over clips.</p>'
    return section("Frame by frame", note, *parts)


def _by_fact(run: Run) -> str:
    """Measures summed up by what is true of clips; empty of data that has none."""
    parts = []
    for name, entry in (run.summary.get("by") or {}).items():
        fact = FACTS.get(entry["fact"]) or str(entry["fact"])
        clips = ", ".join(str(count) for count in entry["clips"])
        better = {True: "; higher is better", False: "; lower is better", None: ""}[higher_is_better(name)]
        drawn = plots.to_svg(horizon_curve(entry, name), f"{name} against {fact}")
        caption = f"{UNITS.get(name, name)} against {fact}{better}. Of {clips} clips, in order."
        parts.append(figure(drawn, text(caption)))
        parts.append(_values(entry, fact, {str(value): k for k, value in enumerate(entry["values"])}))
    return section("Clip by clip", *parts) if parts else ""


def _learning(run: Run) -> str:
    if not run.rows:
        return section("Learning", missing(f"No metrics.jsonl yet: {code(run, 'video-train')} writes one."))
    parts = [
        figure(plots.to_svg(loss_curve(run.rows), "Training loss against the step."), "The model's loss."),
        *_reading(run),
    ]
    rows = read_metrics(run.path / "autoencoder" / "metrics.jsonl")
    if rows:
        drawn = plots.to_svg(loss_curve(rows), "The autoencoder's training loss against the step.")
        parts.append(figure(drawn, "The autoencoder's loss; it was trained first and is frozen since."))
    return section("Learning", *parts)


def _reading(run: Run) -> list[str]:
    """How well clips were made ready ahead; nothing for a run that is older than the measure."""
    fills = [row["perf_queue_fill"] for row in run.rows if row.get("perf_queue_fill") is not None]
    if not fills:
        return []
    words = f"{sum(fills) / len(fills):.0%} on average, {min(fills):.0%} at its emptiest"
    return [plain_table([("queue of clips, full to", words)], "At 100 % training never waits for data")]


def _table(run: Run) -> str:
    measured = _measured(run)
    if not measured:
        return ""
    parts = []
    for name, entry in measured.items():
        horizon = len(entry[_whos(entry)[0]])
        shown = {f"+{k}": k - 1 for k in [k for k in _TABLE if k < horizon] + [horizon]}
        parts.append(
            f"<p>{text(UNITS.get(name, name.replace('_', ' ')))}</p>{_values(entry, 'frame', shown)}"
        )
    absent = [(name, reason) for name, reason in (run.summary.get("missing") or {}).items()]
    if absent:
        parts.append("<p>Unavailable</p>" + plain_table(absent, "Measures that are unavailable"))
    return section("Measures at some frames", *parts)


def _values(entry: Mapping[str, Any], first: str, rows: Mapping[str, int]) -> str:
    """A measure's values of everybody, at the places `rows` of its lists, with their names."""
    whos = _whos(entry)
    head = "".join(f'<th scope="col">{text(WHO.get(who, who))}</th>' for who in whos)
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th>'
        + "".join(f"<td>{_cell(entry, who, k)}</td>" for who in whos)
        + "</tr>"
        for name, k in rows.items()
    )
    return (
        f'<div class="scroll"><table><thead><tr><th scope="col">{text(first)}</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(entry: Mapping[str, Any], who: str, k: int) -> str:
    value = entry[who][k]
    if value is None:
        return "–"
    low, high = (entry.get(f"{who}_{end}") for end in ("low", "high"))
    if not low or not high or low[k] is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{low[k]:.3f}, {high[k]:.3f}]"


def _protocol(run: Run) -> str:
    protocol = run.summary.get("protocol")
    if not isinstance(protocol, Mapping):
        return ""
    pairs = [(key, words(value)) for key, value in protocol.items()]
    parts = [plain_table(pairs, "The protocol of the evaluation")]
    scores = run.summary.get("rfvd")
    if isinstance(scores, Mapping):
        rows = [
            (who, f"{value['mean']:.3f} ± {value['spread']:.3f} over five nets, {value['n']} windows")
            for who, value in scores.items()
            if isinstance(value, Mapping)
        ]
        if scores.get("floor") == "unavailable":
            rows.append(("floor", "unavailable: too few windows to set one half against the other"))
        parts.append(
            "<p>rfvd-v1, a Fréchet distance of untrained random features (not FVD); to be read beside its "
            "floor, real clips against other real ones, and never across data sets.</p>"
        )
        parts.append(plain_table(rows, "rfvd-v1"))
    elif scores:
        parts.append(f"<p>rfvd-v1: {text(scores)}.</p>")
    return section("What was measured", *parts)


def _how(run: Run) -> str:
    pairs: list[tuple[str, object]] = []
    for key, value in run.config.items():
        pairs.append((key, value.get("name", words(value)) if isinstance(value, dict) else words(value)))
    for key, name in (
        ("model_options", "evaluated with"),
        ("trained_on", "trained on"),
        ("device", "evaluated on"),
        ("versions", "versions"),
    ):
        if run.summary.get(key):
            pairs.append((name, words(run.summary[key])))
    commands: Sequence[tuple[str, str]] = (
        ("video-evaluate", "evaluate it again"),
        ("video-sample", "let it go on from a context"),
        ("video-train", "go on training where it stopped"),
        ("report", "write this page again"),
    )
    lines = "\n".join(f"# {why}\nuv run resetta {command_line(run, name)}" for name, why in commands)
    parts = [f"<pre>{text(lines)}</pre>", plain_table(pairs, "How the run was configured")]
    if run.config_text:
        parts.append(
            f"<details><summary>config.yaml in full</summary><pre>{text(run.config_text)}</pre></details>"
        )
    return section("How it was run", *parts)
