"""`report.html` of a run: one self-contained page from whatever the run's directory holds.

It opens offline: styles, figures (SVG) and films (base64) are inside, and nothing is fetched. What is not
there yet is said, with the command that would make it; nothing missing is an error.
"""

import base64
import datetime
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import plots
from .atomic import atomic
from .report_page import facts, figure, missing, page, plain_table, section, text
from .report_words import bounds, headline, number
from .run_record import SPLITS, Run, baselines, curves_of, read_run
from .stats import Curve

_LARGEST_FILM = 12_000_000  # bytes; base64 adds a third, and a report should still go by mail
_FILM_BUDGET = 30_000_000
_RECALL_PICTURES = (
    "The pixels that decisions rest on: red is the gradient of the value, or of the action taken."
)


def write_report(run_dir: str | os.PathLike[str]) -> Path:
    """Writes `report.html` into a run's directory, replacing it at once or not at all; returns its path.

    Raises `ValueError` where `run_dir` is no directory or cannot be written to.
    """
    directory = Path(run_dir)
    if not directory.is_dir():
        raise ValueError(f"run_dir={directory} is not a directory; give the directory of a run")
    run = read_run(directory)
    if "data" in run.config:
        from .video_report import write_video_report

        return write_video_report(run)
    curves = curves_of(run)
    name = _name(run)
    content = page(
        f"{name} · Resetta",
        [
            _header(run, name, curves),
            _adaptation(run, curves),
            films(run),
            _learning(run),
            _memory(run),
            _recall(run),
            _table(run, curves),
            _how(run),
            footer(run),
        ],
    )
    with atomic(directory / "report.html") as temporary:
        temporary.write_text(content, encoding="utf-8")
    return directory / "report.html"


def _header(run: Run, name: str, curves: Mapping[str, Curve]) -> str:
    sentence, more = headline(run, curves)
    steps = next(
        (row["env_steps"] for row in reversed(run.rows) if isinstance(row.get("env_steps"), int)), None
    )
    seconds = training_seconds(run)
    seeds = next(
        (len(row["episode_return"]) for row in run.rows if isinstance(row.get("episode_return"), list)), None
    )
    shown: list[tuple[str, object]] = []
    if steps is not None:
        shown.append(("steps per seed", f"{steps:,}"))
    if seeds:
        shown.append(("seeds", seeds))
    if run.trained_trials > 1:
        shown.append(("trials per task", run.trained_trials))
    if seconds:
        shown.append(("training time", duration(seconds)))
    if device := short_device(run):
        shown.append(("device", device))  # in full further down
    parts = "".join(f'<p class="lead">{text(line)}</p>' for line in more)
    notes = "".join(missing(text(f"{note[0].upper()}{note[1:]}.")) for note in run.notes)
    return (
        f'<header><p class="run"><b>Resetta</b> · {text(name)}</p>\n<h1>{text(sentence)}</h1>\n{parts}'
        f"{facts(shown) if shown else ''}{notes}</header>"
    )


def _adaptation(run: Run, curves: Mapping[str, Curve]) -> str:
    if not curves:
        return section(
            "Adaptation", missing(f"Not evaluated yet: {code(run, 'evaluate')} plays tasks it never saw.")
        )
    labelled = {
        SPLITS[split]: {"mean": curve.mean, "low": curve.mean_low, "high": curve.mean_high}
        for split, curve in curves.items()
    }
    best = next(iter(curves))
    alt = "Return against trial. " + " ".join(
        f"{SPLITS[split]}: {', '.join(number(value) for value in curve.mean)}."
        for split, curve in curves.items()
    )
    drawn = plots.adaptation_curve(labelled, run.trained_trials, baselines(run), title="")
    beyond = len(curves[best].iqm) > run.trained_trials
    caption = "Mean over seeds and tasks with 95 % bootstrap intervals."
    if beyond:
        caption += " Right of the dotted line are trials beyond the number it was trained for."
    return section("Adaptation", figure(plots.to_svg(drawn, alt), caption))


def films(run: Run, maker: str = "render", captions: Mapping[str, str] | None = None) -> str:
    """Every film and picture in `media/` that is not too large; `maker` is the command that makes them.

    `captions` say more of files whose names begin so.
    """
    paths = _media(run, ".mp4", ".webm")
    stems = {film.with_suffix("").name for film in paths}
    paths += [path for path in _media(run, ".gif") if path.stem not in stems]
    pictures = [
        path
        for path in _media(run, ".png", ".jpg", ".jpeg")
        if not _is_memory(path) and path.stem not in stems
    ]
    if not paths and not pictures:
        return section("Film", missing(f"No film yet: {code(run, maker)} makes one."))
    parts, spent = [], 0
    for path in [*paths, *pictures]:
        size = path.stat().st_size
        if size > _LARGEST_FILM or spent + size > _FILM_BUDGET:
            where = path.relative_to(run.path).as_posix()
            parts.append(
                missing(
                    f"<code>{text(where)}</code> ({size / 1e6:.0f} MB) is too large to put into this page."
                )
            )
            continue
        spent += size
        label = path.stem.replace("_", " ").replace("-", " ")
        known = next((c for stem, c in (captions or {}).items() if path.stem.startswith(stem)), None)
        parts.append(figure(_embed(path, label), text(known or label)))
    return section("Film", *parts)


def _embed(path: Path, label: str) -> str:
    kinds = {".gif": "image/gif", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
    if path.suffix.lower() in kinds:
        return f'<img alt="{text(label)}" src="{_data(path, kinds[path.suffix.lower()])}">'
    gif = path.with_suffix(".gif")
    fallback = ""
    if gif.is_file() and gif.stat().st_size <= _LARGEST_FILM:
        fallback = f'<img alt="{text(label)}" src="{_data(gif, "image/gif")}">'
    kind = f"video/{path.suffix[1:].lower()}"
    source = f'<source src="{_data(path, kind)}" type="{kind}">'
    return (
        f'<video controls loop muted playsinline aria-label="Film: {text(label)}">{source}{fallback}</video>'
    )


def _data(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _media(run: Run, *suffixes: str) -> list[Path]:
    folder = run.path / "media"
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] != "."
    )


def _is_memory(path: Path) -> bool:
    return "carry" in path.stem or "memory" in path.stem


def _learning(run: Run) -> str:
    if not run.rows:
        return section("Learning", missing(f"No metrics.jsonl yet: {code(run, 'train')} writes one."))
    lines = "an environment" if any("episode_return/" in name for name in run.rows[-1]) else "a seed"
    alt = f"Return of training trials against environment steps, one line {lines}."
    caption = (
        f"Trials that finished in training, under the sampled policy: one thin line {lines}, and their mean."
    )
    return section("Learning", figure(plots.to_svg(plots.learning_curve(run.rows, title=""), alt), caption))


def _memory(run: Run) -> str:
    alt = "The norm of the memory over time, with the starts of trials and the resets marked."
    for path in _media(run, ".npz"):
        if _is_memory(path):
            try:
                with np.load(path, allow_pickle=False) as stored:
                    drawn = plots.carry_norm(
                        stored["norms"], stored.get("episode_starts"), stored.get("resets")
                    )
            except Exception:  # as for eval.npz
                continue
            return section(
                "Memory",
                figure(plots.to_svg(drawn, alt), "Ticks: a trial starts. Lines: the memory is reset."),
            )
    pictures = [figure(_embed(path, alt)) for path in _media(run, ".png") if _is_memory(path)]
    if pictures:
        return section("Memory", *pictures)
    return section(
        "Memory", missing(f"Nothing recorded: {code(run, 'render')} draws what the memory holds over time.")
    )


def _recall(run: Run) -> str:
    """What `resetta bench recall` found, where it was asked."""
    try:
        result = json.loads((run.path / "recall.json").read_text(encoding="utf-8"))
        from .bench import recall_page

        found = recall_page.table(result)
        drawn = plots.to_svg(recall_page.figure(result), f"{found.title}; every number is in recall.json")
    except FileNotFoundError:
        return ""
    except Exception:  # as for eval.npz
        return section("What the memory knows", missing("recall.json could not be read."))
    notes = "".join(f"<li>{text(note)}</li>" for note in found.notes)
    pictures = run.path / "recall_frames.png"
    shown = [figure(_embed(pictures, _RECALL_PICTURES), _RECALL_PICTURES)] if pictures.is_file() else []
    return section(found.title, figure(drawn), *shown, f"<ul>{notes}</ul>")


def _table(run: Run, curves: Mapping[str, Curve]) -> str:
    if not curves:
        return ""
    trained, trials = run.trained_trials, max(len(curve.iqm) for curve in curves.values())
    top = "".join(f'<th colspan="2" scope="colgroup">{text(SPLITS[split])}</th>' for split in curves)
    head = "".join('<th scope="col">mean [95 %]</th><th scope="col">IQM</th>' for _ in curves)
    rows = []
    for k in range(trials):
        cells = ""
        for curve in curves.values():
            if k < len(curve.iqm):
                cells += f"<td>{number(curve.mean[k])} {bounds(curve, k)}</td><td>{number(curve.iqm[k])}</td>"
            else:
                cells += "<td>–</td><td>–</td>"
        kind = "beyond" if k >= trained else "limit" if k == trained - 1 and trials > trained else ""
        rows.append(f'<tr class="{kind}"><th scope="row">{k + 1}</th>{cells}</tr>')
    table = (
        f'<div class="scroll"><table><thead><tr><th></th>{top}</tr>'
        f'<tr><th scope="col">trial</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    note = '<p class="lead">IQM: interquartile mean, the mean of the middle half of all seeds and tasks.'
    note += (
        " Trials below the dotted line are beyond the number it was trained for.</p>"
        if trials > trained
        else "</p>"
    )
    return section("Trial by trial", note, table)


def _how(run: Run) -> str:
    pairs: list[tuple[str, object]] = []
    for key, value in run.config.items():
        if not isinstance(value, dict):
            pairs.append((key, "–" if value is None else value))
        elif "name" in value:
            pairs.append((key, value["name"]))
    for key, name in (("trained_on", "trained on"), ("device", "evaluated on"), ("versions", "versions")):
        if run.summary.get(key):
            pairs.append((name, words(run.summary[key])))
    seconds = training_seconds(run)
    if seconds:
        pairs.append(("training seconds", f"{seconds:,.0f}"))
    commands = "\n".join(
        f"# {why}\nuv run resetta {command_line(run, name)}"
        for name, why in (
            ("evaluate", "evaluate it again"),
            ("render", "film it"),
            ("train", "go on training where it stopped"),
            ("report", "write this page again"),
        )
    )
    parts = [f"<pre>{text(commands)}</pre>"]
    if pairs:
        parts.append(plain_table(pairs, "How the run was configured"))
    if run.config_text:
        parts.append(
            f"<details><summary>config.yaml in full</summary><pre>{text(run.config_text)}</pre></details>"
        )
    else:
        parts.append(missing("There is no config.yaml in this directory."))
    return section("How it was run", *parts)


def footer(run: Run) -> str:
    """The last line: which version wrote the page, and when."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        name = f"Resetta {version('resetta')}"
    except PackageNotFoundError:
        name = "Resetta"
    day = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"<footer>Written by {text(name)} on {day}.</footer>"


def _name(run: Run) -> str:
    def named(group: Any) -> str:
        return str(group.get("name", "")) if isinstance(group, dict) else str(group or "")

    parts = [part for part in (named(run.config.get("env")), named(run.config.get("core"))) if part]
    return " · ".join(parts) or run.path.resolve().name


def words(value: Any) -> str:
    """A value of a configuration or a summary, as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)


def short_device(run: Run) -> str:
    """What it was trained on, in short; where nobody kept that, what it was evaluated on."""
    told = run.summary.get("trained_on") or run.summary.get("device") or ""
    names = told if isinstance(told, list) else [told]
    return ", ".join(str(name).partition(" (")[0] for name in names)


def training_seconds(run: Run) -> float | None:
    """Seconds of training, from eval.json or the last row of metrics; None where nobody knows."""
    told = run.summary.get("train_seconds")
    if isinstance(told, int | float):
        return float(told)
    return next(
        (float(r["wall_time"]) for r in reversed(run.rows) if isinstance(r.get("wall_time"), int | float)),
        None,
    )


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def command_line(run: Run, command: str) -> str:
    """A command on this run as one types it after `resetta`."""
    return f"{command} {shlex.quote(f'run_dir={run.path}')}"


def code(run: Run, command: str) -> str:
    """A command on this run, in HTML."""
    return f"<code>resetta {text(command_line(run, command))}</code>"
