"""Videos of any length: the memory of training in chunks and of sampling, over very many frames."""

import functools
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ...video.data import make_data
from ...video.learner import Learner
from ...video.models import make_model
from ...video.rollout import rollout, steps
from ...video.stream import Streams
from ..logs import phase
from .figures import against
from .results import Table, short
from .timing import now

if TYPE_CHECKING:
    from ..plots import Figure
    from .video import VideoSettings

_LOOKS = 10  # how often memory is read
_MIB = 2**20


def units(own: "VideoSettings") -> dict[str, Callable[[], list[dict[str, Any]]]]:
    """Training and sampling of every model, each to be measured alone: one row."""
    o = own.streaming
    if o["frames"] < _LOOKS * o["chunk"]:
        raise ValueError(f"streaming.frames={o['frames']} must be {_LOOKS} chunks or more; use more frames")
    made: dict[str, Callable[[], list[dict[str, Any]]]] = {}
    for name in o["models"]:
        for what, measure in (("training", _training), ("sampling", _sampling)):
            made[f"{what}, {name}"] = functools.partial(_measure, own, name, what, measure)
    return made


def _measure(own: "VideoSettings", name: str, what: str, measure: Any) -> list[dict[str, Any]]:
    """Memory after each tenth of the frames."""
    o = own.streaming
    data = make_data("moving_digits", size=o["size"], seed=own.seed)
    model = make_model(
        {"name": name, **o["options"]}, size=data.size, channels=data.channels, actions=data.actions
    )
    if not model.streams:
        raise ValueError(f"streaming.models has {name}, which carries no memory from chunk to chunk")
    start = now()
    with phase(f"{what}, {name}: {o['frames']} frames"):
        looks, memory = measure(model, data, o, own.seed)
    row: dict[str, Any] = {"label": name, "what": what, "looks": looks, "memory_bytes": memory}
    return [row | {"seconds": (now() - start).wall}]


def _training(model: Any, data: Any, o: Mapping[str, Any], seed: int) -> tuple[list[dict[str, int]], int]:
    """Steps on chunks of a stream of clips of `length` frames, which is as long as one goes on."""
    streams = Streams(data, "train", 1, o["chunk"], seed, length=o["length"])
    total = math.ceil(o["frames"] / o["chunk"])
    learner = Learner(model, 1, total, seed=seed, stream=True)
    update = jax.jit(learner.update, donate_argnums=0)
    state, cursor = jax.jit(learner.init)(), streams.first()
    frozen, looks = _frozen(model, data, seed), []
    for step in range(1, total + 1):
        clip, cursor = streams.next(cursor)
        state, metrics = update(state, frozen, clip)
        if step * _LOOKS % total < _LOOKS:
            if not np.isfinite(metrics["loss"]):
                raise ValueError(f"the loss is not finite at step {step}; use another seed")
            looks.append(_look(step * o["chunk"], update))
    return looks, _bytes(state.memory)


def _sampling(model: Any, data: Any, o: Mapping[str, Any], seed: int) -> tuple[list[dict[str, int]], int]:
    """A video that goes on and on, its frames thrown away as they come."""
    context = data.read("test", np.array([0]), np.array([0]), 10)
    context.reset[0] = True
    key, looks, done = jax.random.key(seed), [], 0
    variables = {"params": jax.jit(model.init)(key), "frozen": _frozen(model, data, seed)}
    for frames in rollout(model, variables, context, None, o["frames"], key, o["chunk"]):
        done += len(frames)
        if done * _LOOKS // o["frames"] > len(looks):
            if frames.min() == frames.max():
                raise ValueError(f"frame {done} has one value only; use another seed")
            looks.append(_look(done, steps(model)))
    return looks, _bytes(model.initial_memory(1))


def _frozen(model: Any, data: Any, seed: int) -> Any:
    """An autoencoder as it is made: memory doesn't depend on what was learnt."""
    coder = getattr(model, "autoencoder", None)
    if coder is None:
        return ()
    frames = data.read("train", np.array([0]), np.array([0]), 10).frames.astype(np.float32) / 127.5 - 1.0
    return jax.jit(coder.freeze)(jax.jit(coder.init)(jax.random.key(seed)), frames)


def _look(frames: int, program: Any) -> dict[str, int]:
    """What the process holds, and what of it are arrays; and how many programs there are of the one step."""
    arrays = sum(array.nbytes for array in jax.live_arrays())
    return {
        "frames": frames,
        "resident_bytes": resident_bytes(),
        "array_bytes": arrays,
        "programs": program._cache_size(),
    }


def resident_bytes() -> int:
    """Bytes of this process in memory; 0 where the system doesn't say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    header = ["model", "what", "frames", "memory of the past, kB", "arrays, MiB: after a tenth", "after all"]
    header += ["resident, MiB: after a tenth", "after all", "programs", "seconds"]
    rows = []
    for row in result["rows"]:
        first, last = row["looks"][0], row["looks"][-1]
        held = [
            f"{look[f'{name}_bytes'] / _MIB:.1f}" for name in ("array", "resident") for look in (first, last)
        ]
        rows.append(
            [
                row["label"],
                row["what"],
                f"{last['frames']:,}",
                f"{row['memory_bytes'] / 1e3:.1f}",
                *held,
                str(last["programs"]),
                short(row["seconds"]),
            ]
        )
    o = result["settings"]["streaming"]
    notes = [
        f"one stream of moving digits of {o['size']} x {o['size']} pixels, chunks of {o['chunk']} frames, "
        f"training on clips of {o['length']} frames",
        "arrays: all that JAX holds; resident: the whole process, libraries and compiled programs with it",
        "parts are measured one after the other in one process, whose memory is not given back in between",
    ]
    if result.get("left"):
        notes.append(f"not measured: {', '.join(result['left'])}")
    return Table("Memory over a stream of frames", header, rows, notes)


def figure(result: Mapping[str, Any]) -> "Figure":
    """Resident memory against the frames so far."""
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for row in result["rows"]:
        points = lines.setdefault(f"{row['what']}, {row['label']}", [])
        for look in row["looks"]:
            value = look["resident_bytes"] / _MIB
            points.append((look["frames"], value, value, value))
    return against(lines, "Memory over a stream of frames", "frames so far", "MiB resident", from_zero=True)
