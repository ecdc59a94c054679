"""resetta video-sample: a model goes on from a context, at a constant cost a frame, and is filmed."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, UInt8

from ..video.clip import Clip
from ..video.data import VideoData
from ..video.model import FrameModel
from ..video.protocol import Protocol
from ..video.rollout import rollout
from ..video.stream import read_windows
from .build import settings
from .errors import InputError, input_errors
from .logs import Show, phase
from .report import write_report
from .run_dir import write_npz
from .video_actions import choose_actions
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
    if not 8 <= raw["size"] <= 2048:
        raise InputError(f"size={raw['size']} must lie between 8 and 2048 pixels")
    with settings(config):
        with input_errors():
            protocol = Protocol(
                context=context, frames=frames, clips=raw["clips"], seed=raw["seed"], split=raw["split"]
            )
            ids = clips_to_continue(data, protocol)
            true = [_whole_clip(data, protocol, clip) for clip in ids]
            shortest = min(len(clip.frames) for clip in true)
            known = jax.tree.map(
                lambda *leaves: np.concatenate([leaf[:shortest] for leaf in leaves], axis=1), *true
            )
            recorded = None if known.actions is None else known.actions[context - 1 : -1]
            choices = [raw["actions"], *([raw["compare"]] if raw["compare"] else [])]
            scripts = [
                choose_actions(choice, data.actions, recorded, protocol.horizon, len(ids), protocol.seed)
                for choice in choices
            ]
        given = jax.tree.map(lambda leaf: leaf[:context], known)
        films = []
        for choice, script in zip(choices, scripts, strict=True):
            with phase(f"drawing {protocol.horizon} frames of {len(ids)} clips") as show:
                drawn = _drawn(model, variables, given, script, protocol, show)
            title = "predicted" if data.actions.kind == "none" else f"predicted, {Path(choice).name} actions"
            films.append((title, drawn))
    rows = [
        [
            (f"clip {int(i)}, true", true[k].frames[:, 0]),
            *((title, film[:, k]) for title, film in films),
        ]
        for k, i in enumerate(ids)
    ]
    stem = Path(raw["out"]) if raw["out"] else run_dir.media / "sample"
    stem.parent.mkdir(parents=True, exist_ok=True)
    options = {name: raw[name] for name in ("fps", "size", "lossless")}
    with phase(f"filming {protocol.frames} frames") as show:
        written = write_film(stem, rows, context, **options, show=show)
    if raw["arrays"]:
        written.append(stem.with_name(stem.name + ".npz"))
        write_npz(written[-1], **{f"frames_{k}": film for k, (_, film) in enumerate(films)}, clip_ids=ids)
    if not raw["out"]:
        written.append(write_report(run_dir.path))
    for path in written:
        print(path)


def clips_to_continue(data: VideoData, protocol: Protocol) -> Int[np.ndarray, " B"]:
    """The protocol's clips; where too few are that long, the longest: sampling may go on beyond a clip's end.

    Raises `ValueError` where no clip has the context.
    """
    count = data.count(protocol.split)
    if count is None:
        return clip_ids(data, protocol)
    lengths = data.lengths(protocol.split, np.arange(count))
    if (lengths >= protocol.frames).sum() >= protocol.clips:
        return clip_ids(data, protocol)
    longest = np.argsort(-lengths, kind="stable")[: protocol.clips]
    longest = longest[lengths[longest] >= protocol.context]
    if not len(longest):
        raise InputError(
            f"no {protocol.split} clip has the {protocol.context} frames of the context (the longest has "
            f"{lengths.max(initial=0)}); use a smaller context"
        )
    return np.sort(longest)


def _whole_clip(data: VideoData, protocol: Protocol, clip: int) -> Clip:
    """One clip `[T, 1]`, up to as many frames as are sampled."""
    ids = np.array([clip])
    length = min(int(data.lengths(protocol.split, ids)[0]), protocol.frames)
    return read_windows(data, protocol.split, ids, np.zeros_like(ids), length)


def _drawn(
    model: FrameModel, variables: Any, given: Clip, script: Any, protocol: Protocol, show: Show
) -> UInt8[np.ndarray, "T B H W C"]:
    """The context and what follows it; on disk, so that memory doesn't grow with the film."""
    shape = (protocol.frames, *given.frames.shape[1:])
    with tempfile.TemporaryFile() as file:
        film: Any = np.memmap(file, np.uint8, "w+", shape=shape)
    film[: protocol.context] = given.frames
    at, key = protocol.context, jax.random.key(protocol.seed)
    for piece in rollout(model, variables, given, script, protocol.horizon, key):
        film[at : at + len(piece)] = piece
        at += len(piece)
        show(at - protocol.context, protocol.horizon)
    return film
