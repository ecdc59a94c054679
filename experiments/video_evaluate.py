"""resetta video-evaluate: predictions on held-out clips, frame by frame, beside what needs no model."""

import contextlib
import dataclasses
import datetime
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..video import measures, rfvd
from ..video.clip import Clip
from ..video.data import VideoData
from ..video.model import FrameModel
from ..video.protocol import METRIC_VERSIONS, PRESETS, Protocol, protocol_from
from ..video.rollout import rollout
from ..video.scores import Scores
from ..video.stream import read_windows
from .build import settings
from .checkpoint import Checkpoints
from .devices import device_name
from .errors import InputError, input_errors
from .logs import Show, phase
from .report import write_report
from .run_dir import RunDir, plain, write_json, write_npz
from .video_config import VideoConfig
from .video_restore import restore_video_run

_NEED_WEIGHTS = {
    "lpips": "needs a network's weights, which only you can supply: metrics.lpips=module:Name",
    "fvd": "needs a network's weights, which only you can supply: metrics.fvd=module:Name",
}
_OURS = {*METRIC_VERSIONS, "diversity"}
_SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 400, 800, 1200)  # horizons of the table on the screen
_SUMMED_UP = (
    *("psnr", "psnr_best", "ssim", "ssim_best", "position_error", "position_error_best"),
    *("identity", "revisit_psnr", "diversity"),
)
Phase = Callable[[str], contextlib.AbstractContextManager[Show]]


class Evaluation(NamedTuple):
    """What `eval.json` and `eval.npz` hold."""

    summary: dict[str, Any]
    arrays: dict[str, np.ndarray]


def run(raw: Mapping[str, Any]) -> None:
    """Evaluate the model of a run directory and renew its report."""
    run_dir, config, model, data, variables = restore_video_run(raw)
    with settings(config):
        with input_errors():
            given = {name: raw[name] for name in ("context", "frames", "clips", "samples", "seed", "split")}
            protocol = protocol_of(config, data, raw["protocol"], given)
            metrics = {name: measures.load_metric(target) for name, target in raw["metrics"].items()}
        batch = config.batch if raw["batch"] is None else raw["batch"]
        options, chosen = dict(raw["model"]), None
        if raw["choose"]:
            from .video_choose import choose

            picked, model, chosen = choose(config, model, data, variables, protocol, raw)
            options |= picked
        result = evaluate_model(model, data, variables, protocol, batch, phase, metrics)
    if options:
        result.summary["model_options"] = plain(options)  # that differ from the run's config.yaml
    if chosen:
        result.summary["chosen"] = chosen
    out = Path(raw["out"]) if raw["out"] else None
    write_evaluation(run_dir, config, result, out, _restored_step(run_dir, raw["step"]))
    print(summary_text(result.summary))
    print((out or run_dir.path) / "eval.json")
    if out is None:
        print(write_report(run_dir.path))


def _restored_step(run_dir: RunDir, step: int | None) -> int | None:
    """The step of the checkpoint that was evaluated: the newest by default."""
    if step is not None:
        return step
    with contextlib.closing(Checkpoints(run_dir.checkpoints)) as checkpoints:
        return checkpoints.latest()


def protocol_of(config: VideoConfig, data: VideoData, name: str | None, given: Mapping[str, Any]) -> Protocol:
    """The protocol `name`, or the run's own, with what was given instead.

    As many futures as the run says; else as the data asks for, which is one where the future is determined.
    """
    samples = getattr(data, "samples", 1) if config.samples is None else config.samples
    given = {"samples": samples} | {key: value for key, value in given.items() if value is not None}
    if name is None:
        own = {"context": config.context, "frames": config.frames, "clips": config.eval_clips or 64}
        given = own | given
    elif name not in PRESETS:
        raise InputError(f"unknown protocol {name!r}; choose from {', '.join(PRESETS)}")
    return protocol_from(name, **given, data=plain(config.data, digits=None))


def own_protocol(config: VideoConfig, data: VideoData) -> Protocol:
    """The protocol of a run's evaluation when its training ends."""
    return protocol_of(config, data, None, {})


def evaluate_model(
    model: FrameModel,
    data: VideoData,
    variables: Any,
    protocol: Protocol,
    batch: int,
    phase: Phase,
    metrics: Mapping[str, measures.Measure] | None = None,
) -> Evaluation:
    """Every measure at every horizon on the protocol's clips, `batch` of them at a time.

    Predictions are uint8, as truth is. Several samples of a clip are measured one by one. The protocol in the
    result has the number of clips that there were. Raises `InputError` where no clip is long enough, and for
    a measure of the user's that has the name of another one.
    """
    if batch < 1:
        raise InputError(f"batch={batch} must be at least 1")
    for name in metrics or {}:
        if name in _OURS:
            raise InputError(_taken(name))
    with input_errors():
        ids = clip_ids(data, protocol)
    protocol = dataclasses.replace(protocol, clips=len(ids))
    batch = min(batch, len(ids))
    scores = Scores(protocol.horizon)
    features: dict[str, list[np.ndarray]] = {}
    kinds = {"mse": measures.mse, "psnr": measures.psnr, **(metrics or {})}
    if data.size >= measures.WINDOW:
        kinds["ssim"] = measures.ssim
    else:
        scores.unavailable("ssim", f"needs frames of {measures.WINDOW} pixels or more")
    for name, reason in _NEED_WEIGHTS.items():
        if name not in kinds:
            scores.unavailable(name, reason)
    text = f"predicting {protocol.horizon} frames of {len(ids)} {protocol.split} clips"
    with phase(text) as show:
        for start in range(0, len(ids), batch):
            chosen = np.resize(ids[start : start + batch], batch)  # the last batch is filled up: one program
            count = min(batch, len(ids) - start)
            _one_batch(model, data, variables, protocol, chosen, count, start, kinds, scores, features)
            show(start + count, len(ids))
    metrics_by_frame = scores.summary()
    summary = {
        "protocol": protocol.to_dict(),
        "metrics": metrics_by_frame,
        "by": {
            measure: {"fact": fact, **scores.by_fact(measure, fact)}
            for measure, fact in _groups(data).items()
            if measure in metrics_by_frame
        },
        "missing": dict(scores.missing),
        "rfvd": _rfvd(features),
        "model": type(model).__name__,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables)),
        "memory_bytes": _bytes(model.initial_memory(1)),
        "device": device_name(),
        "date": datetime.date.today().isoformat(),
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
    }
    return Evaluation(summary, scores.arrays() | {"clip_ids": ids})


def clip_ids(data: VideoData, protocol: Protocol) -> np.ndarray:
    """The clips that a protocol looks at: all that are long enough, or `clips` of them drawn by its seed."""
    count = data.count(protocol.split)
    if count is None:
        return protocol.seed * protocol.clips + np.arange(protocol.clips)
    ids = np.arange(count)
    lengths = data.lengths(protocol.split, ids)
    ids = ids[lengths >= protocol.frames]
    if not len(ids):
        raise ValueError(
            f"no {protocol.split} clip has the {protocol.frames} frames of the protocol "
            f"(the longest has {lengths.max(initial=0)}); use frames={lengths.max(initial=0)} or fewer"
        )
    if len(ids) > protocol.clips:
        ids = np.sort(np.random.default_rng(protocol.seed).permutation(ids)[: protocol.clips])
    return ids


def predictions(
    model: FrameModel,
    variables: Any,
    clip: Clip,
    protocol: Protocol,
    key: jax.Array,
) -> np.ndarray:
    """uint8 `[K, B, H, W, C]`: what the model makes of the first `context` frames of a clip."""
    context = jax.tree.map(lambda leaf: leaf[: protocol.context], clip)
    actions = jax.tree.map(lambda leaf: leaf[protocol.context - 1 : -1], clip.actions)
    if actions is not None and protocol.actions == "none":
        actions = model.actions.nothing(*actions.shape[:2])
        context = context._replace(actions=model.actions.nothing(*context.reset.shape))
    return np.concatenate([*rollout(model, variables, context, actions, protocol.horizon, key)])


def _one_batch(
    model: FrameModel,
    data: VideoData,
    variables: Any,
    protocol: Protocol,
    ids: np.ndarray,
    count: int,
    start: int,
    kinds: Mapping[str, measures.Measure],
    scores: Scores,
    features: dict[str, list[np.ndarray]],
) -> None:
    starts = np.zeros_like(ids)
    clip = read_windows(data, protocol.split, ids, starts, protocol.frames)
    facts = data.truth(protocol.split, ids, starts, protocol.frames)
    before, after = ({k: v[part] for k, v in facts.items()} for part in _parts(protocol.context))
    truth = clip.frames[protocol.context :]
    key = jax.random.fold_in(jax.random.key(protocol.seed), start)
    samples: list[np.ndarray] = []
    for k in range(protocol.samples):
        if k == 2 and np.array_equal(samples[0], samples[1]):  # a model that draws nothing: all are the same
            samples += samples[:1] * (protocol.samples - k)
            break
        samples.append(predictions(model, variables, clip, protocol, jax.random.fold_in(key, k)))
    context = clip.frames[: protocol.context]
    others = {
        "copy_last": measures.copy_last(context, protocol.horizon),
        "mean_frame": measures.mean_frame(context, protocol.horizon),
    }

    def facts_of(predicted: np.ndarray) -> dict[str, np.ndarray]:
        return data.measures(predicted, after, before)

    for name, measure in kinds.items():
        values = np.stack([np.asarray(measure(p, truth))[:, :count] for p in samples])
        scores.add_samples(name, values, higher=getattr(measure, "higher_is_better", None))
        for who, frames in others.items():
            scores.add(name, who, np.asarray(measure(frames, truth))[:, :count])
    if facts:
        of_model = [facts_of(predicted) for predicted in samples]
        of_others = {who: facts_of(frames) for who, frames in others.items()}
        for name in of_model[0]:
            if name in kinds:
                raise InputError(_taken(name))
            scores.add_samples(name, np.stack([found[name][:, :count] for found in of_model]))
            for who, found in of_others.items():
                scores.add(name, who, found[name][:, :count])
        if "position_error" in of_model[0]:  # an empty frame's objects count as lying at the canvas's centre
            nothing = facts_of(np.zeros_like(truth))["position_error"]
            scores.add("position_error", "constant", nothing[:, :count])
        for fact in {*_groups(data).values()}:
            scores.add_fact(fact, facts[fact][0, :count])
    if protocol.samples > 1:
        scores.add("diversity", "model", measures.diversity(jnp.stack(samples))[:, :count])
    if protocol.horizon >= rfvd.FRAMES:
        shown = {"real": truth, "model": samples[0], "shuffled": rfvd.shuffled(truth, protocol.seed)}
        for who, frames in {**shown, "copy_last": others["copy_last"]}.items():
            features.setdefault(who, []).append(rfvd.features(np.asarray(frames[:, :count])))


def _groups(data: VideoData) -> Mapping[str, str]:
    """Measures that are summed up by a truth about clips, too, where the data has any; see `VideoData`."""
    return getattr(data, "groups", {})


def _taken(name: str) -> str:
    return f"metrics.{name} has the name of a measure that exists already; choose another name"


def _parts(context: int) -> tuple[slice, slice]:
    return slice(None, context), slice(context, None)


def _rfvd(features: Mapping[str, list[np.ndarray]]) -> dict[str, Any] | str:
    if not features:
        return "unavailable"
    whole = {who: np.concatenate(parts, axis=1) for who, parts in features.items()}
    real = whole.pop("real")
    try:
        return rfvd.table(real, whole)
    except ValueError as error:
        return f"unavailable: {error}"


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def write_evaluation(
    run_dir: RunDir,
    config: VideoConfig,
    result: Evaluation,
    target: Path | None = None,
    step: int | None = None,
) -> None:
    """eval.npz and eval.json of a run, each whole or not at all, in its directory or in `target`.

    `step` is the checkpoint's that was evaluated; by default the last row's of metrics.jsonl.
    """
    target = target or run_dir.path
    target.mkdir(parents=True, exist_ok=True)
    rows = [row for row in run_dir.rows() if step is None or row["step"] <= step]
    seconds = rows[-1]["wall_time"] if rows else None
    write_npz(target / "eval.npz", **result.arrays)
    if step is None and rows:
        step = rows[-1]["step"]
    trained = {"step": step, "train_seconds": seconds, "trained_on": run_dir.trained_on() or None}
    write_json(target / "eval.json", {**result.summary, **trained})


def summary_text(summary: Mapping[str, Any]) -> str:
    """The main measures at a few horizons as a small table."""
    protocol, metrics = summary["protocol"], summary["metrics"]
    horizon = protocol["frames"] - protocol["context"]
    shown = [k for k in _SHOWN if k < horizon] + [horizon]
    lines = [
        f"{protocol['clips']} {protocol['split']} clips, {protocol['context']} frames of context; "
        "mean at each predicted frame (model: 95 % interval)"
    ]
    if protocol.get("samples", 1) > 1:
        lines.append(
            f"{protocol['samples']} futures of each clip: their mean, the best of them (_best), and how far "
            "they differ from each other (diversity, an MSE)"
        )
    for name in _SUMMED_UP:
        entry = metrics.get(name)
        if isinstance(entry, Mapping):
            lines += _rows(entry, name, {f"frame +{k}": k - 1 for k in shown})
    for name, entry in summary.get("by", {}).items():
        rows = {f"{entry['fact']} {value}": k for k, value in enumerate(entry["values"])}
        lines += _rows(entry, f"{name} by {entry['fact']}", rows)
    return "\n".join(lines)


def _rows(entry: Mapping[str, Any], title: str, places: Mapping[str, int]) -> list[str]:
    """A measure's values of everybody, at places of its lists that have names."""
    whos = [who for who in ("model", "copy_last", "mean_frame", "constant") if who in entry]
    width = max(16, len(title) + 2)
    head = "".join(f"{who:<26}" if who == "model" else f"{who:<12}" for who in whos)
    lines = [f"{title:<{width}}{head}"]
    for name, k in places.items():
        lines.append(f"  {name:<{width - 2}}" + "".join(_cell(entry, who, k) for who in whos))
    return lines


def _cell(entry: Mapping[str, Any], who: str, k: int) -> str:
    value = entry[who][k]
    if value is None:
        return "–".ljust(26 if who == "model" else 12)
    low, high = (entry.get(f"{who}_{end}") for end in ("low", "high"))
    if who != "model" or low is None or high is None or low[k] is None:
        return f"{value:.3f}".ljust(26 if who == "model" else 12)
    return f"{value:.3f} [{low[k]:.3f}, {high[k]:.3f}]".ljust(26)
