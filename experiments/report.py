"""`report.html` of a run: one self-contained page from whatever the run's directory holds.

It opens offline: styles, figures (SVG) and films (base64) are inside, and nothing is fetched. What is not
there yet is said, with the command that would make it; nothing missing is an error.
"""

import base64
import dataclasses
import datetime
import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import plots
from .media import atomic
from .report_page import facts, figure, missing, page, plain_table, section, text
from .stats import Curve, Interval, adaptation_curve, improvement

SPLITS = {"held_out": "held-out tasks", "train": "training tasks", "validation": "validation tasks"}
_LARGEST_FILM = 12_000_000  # bytes; base64 adds a third, and a report should still go by mail
_FILM_BUDGET = 30_000_000


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run's directory holds, as far as it could be read. `notes` says what could not."""

    path: Path
    config: dict[str, Any]
    config_text: str
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    arrays: dict[str, np.ndarray]
    notes: list[str]

    @property
    def trained_trials(self) -> int:
        """How many trials a meta-episode had in training."""
        return int(self.summary.get("trained_trials") or self.config.get("trials") or 1)


def write_report(run_dir: str | os.PathLike[str]) -> Path:
    """Writes `report.html` into a run's directory, replacing it at once or not at all; returns its path.

    Raises `ValueError` where `run_dir` is no directory or cannot be written to.
    """
    directory = Path(run_dir)
    if not directory.is_dir():
        raise ValueError(f"run_dir={directory} is not a directory; give the directory of a run")
    run = read_run(directory)
    curves = _curves(run)
    name = _name(run)
    content = page(
        f"{name} · Resetta",
        [
            _header(run, name, curves),
            _adaptation(run, curves),
            _films(run),
            _learning(run),
            _memory(run),
            _table(run, curves),
            _how(run),
            _footer(run),
        ],
    )
    with atomic(directory / "report.html") as temporary:
        temporary.write_text(content, encoding="utf-8")
    return directory / "report.html"


def read_run(directory: Path) -> Run:
    """Reads config.yaml, metrics.jsonl, eval.json and eval.npz, each as far as it is there and whole."""
    notes: list[str] = []
    config_text = _read_text(directory / "config.yaml", notes)
    config: Any = {}
    if config_text:
        import yaml

        try:
            config = yaml.safe_load(config_text)
        except yaml.YAMLError:
            notes.append("config.yaml is not valid YAML")
    summary: Any = {}
    summary_text = _read_text(directory / "eval.json", notes)
    if summary_text:
        try:
            summary = json.loads(summary_text)
        except ValueError:
            notes.append("eval.json is not valid JSON")
    arrays: dict[str, np.ndarray] = {}
    if (directory / "eval.npz").exists():
        try:
            with np.load(directory / "eval.npz", allow_pickle=False) as stored:
                arrays = {key: stored[key] for key in stored.files}
        except Exception:  # a torn archive raises what zipfile, zlib or numpy please
            notes.append("eval.npz could not be read")
    return Run(
        directory,
        config if isinstance(config, dict) else {},
        config_text,
        read_metrics(directory / "metrics.jsonl", notes),
        summary if isinstance(summary, dict) else {},
        arrays,
        notes,
    )


def read_metrics(path: Path, notes: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`. A torn last line, left by a run that was killed, is skipped in silence;
    any other line that is no JSON object is skipped and counted in `notes`.
    """
    notes = [] if notes is None else notes
    rows, bad = [], 0
    lines = _read_text(path, notes).splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            bad += number < len(lines)
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            bad += 1
    if bad:
        notes.append(f"{bad} line{'s' if bad > 1 else ''} of {path.name} could not be read")
    return rows


def _read_text(path: Path, notes: list[str]) -> str:
    if not path.is_file():
        return ""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        notes.append(f"{path.name} could not be read ({error.strerror})")
        return ""


# Numbers


def _kinds(run: Run) -> tuple[str, str]:
    """Which arrays to show, best first: returns of several environments compare only once normalised."""
    group = run.config.get("env")
    lanes = [group.get(name) or {} for name in ("lanes", "held_out_lanes")] if isinstance(group, dict) else []
    return ("normalized", "returns") if sum(map(len, lanes)) > 1 else ("returns", "normalized")


def _returns(run: Run, split: str) -> np.ndarray | None:
    """The finite [seed, task, trial] of a split."""
    for kind in _kinds(run):
        values = run.arrays.get(f"{split}_{kind}")
        if values is not None and values.ndim == 3 and values.size and np.isfinite(values).all():
            return values
    return None


def _curves(run: Run) -> dict[str, Curve]:
    found = {split: _returns(run, split) for split in SPLITS}
    return {split: adaptation_curve(values) for split, values in found.items() if values is not None}


def _baselines(run: Run) -> dict[str, Any]:
    """Mean raw returns of others on the held-out tasks: `held_out_random` and whatever eval.json adds."""
    found: dict[str, Any] = {}
    if _kinds(run)[0] != "returns":
        return found
    random = run.arrays.get("held_out_random")
    if random is not None and random.ndim == 2 and random.size and np.isfinite(random).all():
        found["random actions"] = random.mean(axis=0)
    given = run.summary.get("baselines")
    for label, curve in given.items() if isinstance(given, dict) else ():
        if isinstance(curve, Mapping):
            curve = curve.get("held_out", curve)
        if isinstance(curve, Mapping):
            curve = curve.get("mean", curve.get("iqm"))
        values = np.asarray(curve, float) if isinstance(curve, list | int | float) else np.array(np.nan)
        if values.size and values.ndim < 2 and np.isfinite(values).all():
            found[str(label)] = float(values) if values.ndim == 0 else values
    return found


def headline(run: Run, curves: Mapping[str, Curve]) -> tuple[str, list[str]]:
    """The result in one plain sentence, and the sentences that qualify it; text, not HTML."""
    split = next((name for name in SPLITS if name in curves), None)
    if split is None:
        return _untested(run)
    curve, returns = curves[split], _returns(run, split)
    assert returns is not None
    seeds, tasks, trials = returns.shape
    where = {"held_out": f"On {tasks:,} tasks it never trained on"}.get(
        split, f"On {tasks:,} {SPLITS[split]}"
    )
    agents = "one seed" if seeds == 1 else f"{seeds} seeds"
    last = min(run.trained_trials, trials) - 1
    if last == 0:
        sentence = f"{where}, the agent earns a return of {_number(curve.mean[0])}."
        more = [f"The mean over {agents} and all tasks, 95 % interval {_range(curve, 0)}."]
    else:
        gain = improvement(returns, 0, last)
        verb = _verb(gain, "rises from", "falls from", "does not clearly change: it is")
        sentence = (
            f"{where}, the agent’s return {verb} {_number(curve.mean[0])} in its first trial "
            f"{'to' if 'from' in verb else 'and'} {_number(curve.mean[last])} in its {_ordinal(last + 1)}."
        )
        more = [
            f"Means over {agents} and all tasks, 95 % intervals {_range(curve, 0)} and "
            f"{_range(curve, last)}. Paired within each task, the gain is {_interval(gain)}."
        ]
    if trials > last + 1:
        drift = improvement(returns, last, trials - 1)
        verb = _verb(drift, "gains a further", "loses", "keeps its level:")
        amount = _interval(
            drift if "loses" not in verb else Interval(-drift.value, -drift.high, -drift.low), sign=False
        )
        tail = f"a change of {_interval(drift)}" if "keeps" in verb else amount
        more.append(
            f"Beyond the {last + 1} trial{'s' if last else ''} it was trained for it {verb} {tail} "
            f"by trial {trials}, where the return is {_number(curve.mean[-1])} {_range(curve, trials - 1)}."
        )
    if seeds == 1:
        more.append(
            "With one seed, the intervals speak of the tasks and not of how training might have gone."
        )
    return sentence, more


def _untested(run: Run) -> tuple[str, list[str]]:
    if not run.rows:
        return "Nothing has been trained in this directory yet.", []
    steps = run.rows[-1].get("env_steps")
    recent = [row["episode_return"] for row in run.rows[-20:] if isinstance(row.get("episode_return"), list)]
    values = [float(value) for row in recent for value in row if value is not None]
    told = f", with a return of {_number(np.mean(values))} in its latest training trials" if values else ""
    return f"Trained for {steps:,} steps{told}; not evaluated yet." if isinstance(
        steps, int
    ) else "Not evaluated yet.", []


def _verb(change: Interval, up: str, down: str, same: str) -> str:
    return up if change.low > 0 else down if change.high < 0 else same


def _number(value: Any) -> str:
    told = f"{float(value):.2f}" if abs(value) < 100 else f"{float(value):,.0f}"
    return told.replace("-0.00", "0.00").replace("-", "−")


def _range(curve: Curve, trial: int) -> str:
    return f"[{_number(curve.mean_low[trial])}, {_number(curve.mean_high[trial])}]"


def _interval(found: Interval, sign: bool = True) -> str:
    plus = "+" if sign and found.value >= 0 else ""
    return f"{plus}{_number(found.value)} [{_number(found.low)}, {_number(found.high)}]"


def _ordinal(n: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
    if n <= len(words):
        return words[n - 1]
    suffix = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


# Sections


def _header(run: Run, name: str, curves: Mapping[str, Curve]) -> str:
    sentence, more = headline(run, curves)
    steps = next(
        (row["env_steps"] for row in reversed(run.rows) if isinstance(row.get("env_steps"), int)), None
    )
    seconds = _seconds(run)
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
        shown.append(("training time", _duration(seconds)))
    if run.summary.get("device"):
        shown.append(("device", str(run.summary["device"]).partition(" (")[0]))  # in full further down
    parts = "".join(f'<p class="lead">{text(line)}</p>' for line in more)
    notes = "".join(missing(text(f"{note[0].upper()}{note[1:]}.")) for note in run.notes)
    return (
        f'<header><p class="run"><b>Resetta</b> · {text(name)}</p>\n<h1>{text(sentence)}</h1>\n{parts}'
        f"{facts(shown) if shown else ''}{notes}</header>"
    )


def _adaptation(run: Run, curves: Mapping[str, Curve]) -> str:
    if not curves:
        return section(
            "Adaptation", missing(f"Not evaluated yet: {_code(run, 'evaluate')} plays tasks it never saw.")
        )
    labelled = {
        SPLITS[split]: {"mean": curve.mean, "low": curve.mean_low, "high": curve.mean_high}
        for split, curve in curves.items()
    }
    best = next(iter(curves))
    alt = "Return against trial. " + " ".join(
        f"{SPLITS[split]}: {', '.join(_number(value) for value in curve.mean)}."
        for split, curve in curves.items()
    )
    drawn = plots.adaptation_curve(labelled, run.trained_trials, _baselines(run), title="")
    beyond = len(curves[best].iqm) > run.trained_trials
    caption = "Mean over seeds and tasks with 95 % bootstrap intervals."
    if beyond:
        caption += " Right of the dotted line are trials beyond the number it was trained for."
    return section("Adaptation", figure(plots.to_svg(drawn, alt), caption))


def _films(run: Run) -> str:
    films = _media(run, ".mp4", ".webm")
    stems = {film.with_suffix("").name for film in films}
    films += [path for path in _media(run, ".gif") if path.stem not in stems]
    pictures = [
        path
        for path in _media(run, ".png", ".jpg", ".jpeg")
        if not _is_memory(path) and path.stem not in stems
    ]
    if not films and not pictures:
        return section("Film", missing(f"No film yet: {_code(run, 'render')} makes one."))
    parts, spent = [], 0
    for path in [*films, *pictures]:
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
        parts.append(figure(_embed(path, label), text(label)))
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
        return section("Learning", missing(f"No metrics.jsonl yet: {_code(run, 'train')} writes one."))
    alt = "Return of training trials against environment steps, one line a seed."
    caption = (
        "Trials that finished in training, under the sampled policy: one thin line a seed, and their mean."
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
        "Memory", missing(f"Nothing recorded: {_code(run, 'render')} draws what the memory holds over time.")
    )


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
                cells += (
                    f"<td>{_number(curve.mean[k])} {_range(curve, k)}</td><td>{_number(curve.iqm[k])}</td>"
                )
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
    for key, name in (("device", "evaluated on"), ("versions", "versions")):
        value = run.summary.get(key)
        if isinstance(value, dict):
            value = ", ".join(f"{package} {version}" for package, version in value.items())
        if value:
            pairs.append((name, value))
    seconds = _seconds(run)
    if seconds:
        pairs.append(("training seconds", f"{seconds:,.0f}"))
    commands = "\n".join(
        f"# {why}\nuv run resetta {_command(run, name)}"
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


def _footer(run: Run) -> str:
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


def _seconds(run: Run) -> float | None:
    told = run.summary.get("train_seconds")
    if isinstance(told, int | float):
        return float(told)
    return next(
        (float(r["wall_time"]) for r in reversed(run.rows) if isinstance(r.get("wall_time"), int | float)),
        None,
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _command(run: Run, command: str) -> str:
    return f"{command} {shlex.quote(f'run_dir={run.path}')}"


def _code(run: Run, command: str) -> str:
    return f"<code>resetta {text(_command(run, command))}</code>"
