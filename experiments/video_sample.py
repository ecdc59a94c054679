"""resetta video-sample: a model goes on from a context, at a constant cost a frame, and is filmed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..video.clip import ActionSpace, Clip
from ..video.protocol import Protocol
from ..video.rollout import rollout
from ..video.stream import read_windows
from .build import settings
from .errors import InputError, input_errors
from .logs import phase
from .report import write_report
from .run_dir import write_npz
from .video_evaluate import clip_ids
from .video_film import write_film
from .video_restore import restore_video_run


def run(raw: Mapping[str, Any]) -> None:
    """Sample from the model of a run directory, film it, and renew its report."""
    run_dir, config, model, data, variables = restore_video_run(raw)
    context, frames = (
        getattr(config, name) if raw[name] is None else raw[name] for name in ("context", "frames")
    )
    if not raw["fps"] > 0:
        raise InputError(f"fps={raw['fps']} must be positive; use 12, for example")
    with settings(config):
        with input_errors():
            protocol = Protocol(
                context=context, frames=frames, clips=raw["clips"], seed=raw["seed"], split=raw["split"]
            )
            known = _known_frames(data, protocol)
            ids = clip_ids(data, _with_frames(protocol, max(min(known, frames), context + 1)))
            shortest = int(data.lengths(protocol.split, ids).min())
            true = read_windows(data, protocol.split, ids, np.zeros_like(ids), min(shortest, frames))
            choices = [raw["actions"], *([raw["compare"]] if raw["compare"] else [])]
            actions = [_actions(choice, data.actions, true, protocol) for choice in choices]
        given = jax.tree.map(lambda leaf: leaf[:context], true)
        films = []
        for choice, chosen in zip(choices, actions, strict=True):
            with phase(f"drawing {protocol.horizon} frames of {len(ids)} clips"):
                key = jax.random.key(protocol.seed)
                drawn = [*rollout(model, variables, given, chosen, protocol.horizon, key)]
            title = "predicted" if data.actions.kind == "none" else f"predicted, {Path(choice).name} actions"
            films.append((title, np.concatenate([np.asarray(given.frames), *drawn])))
    rows = []
    for k, i in enumerate(ids):
        panels = [(title, film[:, k]) for title, film in films]
        rows.append([(f"clip {int(i)}, true", np.asarray(true.frames[:, k])), *panels])
    stem = Path(raw["out"]) if raw["out"] else run_dir.media / "sample"
    stem.parent.mkdir(parents=True, exist_ok=True)
    options = {name: raw[name] for name in ("fps", "size", "lossless")}
    for path in write_film(stem, rows, context, **options):
        print(path)
    if raw["arrays"]:
        target = stem.with_name(stem.name + ".npz")
        write_npz(target, **{f"frames_{k}": film for k, (_, film) in enumerate(films)}, clip_ids=ids)
        print(target)
    if not raw["out"]:
        print(write_report(run_dir.path))


def _known_frames(data: Any, protocol: Protocol) -> int:
    """The length of the longest clip: sampling may go on beyond it."""
    count = data.count(protocol.split)
    return protocol.frames if count is None else int(data.lengths(protocol.split, np.arange(count)).max())


def _with_frames(protocol: Protocol, frames: int) -> Protocol:
    return Protocol(
        context=protocol.context,
        frames=frames,
        clips=protocol.clips,
        seed=protocol.seed,
        split=protocol.split,
    )


def _actions(choice: str, space: ActionSpace, true: Clip, protocol: Protocol) -> np.ndarray | None:
    """`[K, B, ...]`: the action that leads to each predicted frame."""
    horizon, batch = protocol.horizon, true.reset.shape[1]
    if space.kind == "none":
        if choice not in ("recorded", "random"):
            raise InputError(f"actions={choice} is of no use to data without actions; leave it out")
        return None
    if choice == "recorded":
        known = np.asarray(true.actions)[protocol.context - 1 : -1]
        if len(known) < horizon:
            raise InputError(
                f"actions=recorded ends after {len(known) + protocol.context} frames; use frames="
                f"{len(known) + protocol.context} or fewer, actions=random, or a file"
            )
        return known[:horizon]
    if choice == "random":
        generator = np.random.default_rng(protocol.seed)
        if space.kind == "discrete":
            return generator.integers(space.size, size=(horizon, batch)).astype(np.int32)
        return generator.uniform(-1, 1, size=(horizon, batch, space.size)).astype(np.float32)
    return _from_file(Path(choice), space, horizon, batch)


def _from_file(path: Path, space: ActionSpace, horizon: int, batch: int) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"actions={path} is no file; use recorded, random, or a .npy or .npz file")
    try:
        loaded = np.load(path, allow_pickle=False)
        values = np.asarray(loaded["actions"] if hasattr(loaded, "files") else loaded)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"actions={path} cannot be read as .npy, or .npz with `actions`: {error}") from error
    discrete = space.kind == "discrete"
    wanted = "whole numbers [K]" if discrete else f"numbers [K, {space.size}]"
    fits = values.ndim == 1 if discrete else values.ndim == 2 and values.shape[1] == space.size
    if not fits or (discrete and values.dtype.kind not in "iu") or values.dtype.kind not in "iuf":
        raise InputError(f"actions={path} holds {values.dtype} {list(values.shape)}; give {wanted}")
    if len(values) < horizon:
        raise InputError(
            f"actions={path} has {len(values)} actions and {horizon} frames are to be predicted; "
            f"give {horizon} or more, or fewer frames"
        )
    if discrete and not ((values >= 0) & (values < space.size)).all():
        raise InputError(f"actions={path} must lie between 0 and {space.size - 1}")
    values = values[:horizon].astype(np.int32 if discrete else np.float32)
    return np.repeat(values[:, None], batch, axis=1)
