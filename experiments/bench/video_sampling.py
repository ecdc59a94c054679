"""What a predicted frame costs early and late in a video: time and the bytes of the memory."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ...cores import make_core
from ...video.clip import ActionSpace, Clip
from ...video.models import make_model
from ...video.rollout import condition, steps
from ..errors import InputError
from ..logs import phase
from .results import Table, short, spread, spread_text
from .turns import in_turns

if TYPE_CHECKING:
    from .video import VideoSettings

# 64 x 64 pixels to 8 x 8 places: 64 tokens a frame. The same encoder and decoder for all that predict pixels.
_ENCODER = {"widths": (64, 128), "patch": 4}
_WHAT = {
    "conv_s5": ("recurrent, 64 places", {"name": "conv_s5", **_ENCODER}),
    "conv_lstm": ("recurrent, 64 places", {"name": "conv_lstm", **_ENCODER}),
    "transformer": ("cached, 1 token a frame", {"name": "transformer", "tokens": "pooled", **_ENCODER}),
    "transformer_64": (
        "cached, 64 tokens a frame",
        {"name": "transformer", "core": "frame_attention", **_ENCODER},
    ),
    "recompute": ("all frames again, 1 token a frame", None),
    "recompute_64": ("all frames again, 64 tokens a frame", None),
    "far": ("cached window, 64 tokens a frame", {"name": "far"}),
    "far_long": ("cached window and coarse past", {"name": "far_long"}),
}
_FLOWS = ("far", "far_long")


def measure(own: "VideoSettings") -> list[dict[str, Any]]:
    """A row per model: milliseconds a frame at the early and at the late frame, measured in turns."""
    o = own.sampling
    rows = []
    for name in o["models"]:
        if name not in _WHAT:
            raise InputError(f"unknown model {name!r}; choose from {', '.join(_WHAT)}")
        ends = ("flow_near", "flow_far") if name in _FLOWS else ("near", "far")
        places = [o[end] for end in ends]
        with phase(f"{name}: compiling, and on to frame {places[1]}"):
            calls, per_call, facts = (
                _recompute(name, o, places, own.seed)
                if _WHAT[name][1] is None
                else _cached(name, o, places, own.seed)
            )
        row = {"label": name, "what": _WHAT[name][0], "near": places[0], "far": places[1], **facts}
        taken = in_turns(calls, own.blocks, f"{name}: ")
        times = {end: [s * 1e3 / per_call for s in turns["wall"]] for end, turns in taken.items()}
        rows.append(row | {f"{end}_ms": spread(values) for end, values in times.items()})
    return rows


def _cached(name: str, o: Mapping[str, Any], places: list[int], seed: int) -> Any:
    """`model.step`, from memories that hold as many frames as lie before the two places."""
    options = dict(_WHAT[name][1])
    if name.startswith("transformer"):
        options["core_options"] = {"window": places[1] + 10 * o["frames"]}
    if name == "transformer_64":  # the Transformer's own width and depth
        options |= {"features": 384, "num_layers": 8, "tokens": "grid"}
    model = make_model(
        {"size": o["scale"], **options}, size=64, channels=1, actions=ActionSpace(), dtype=jnp.float32
    )
    key = jax.random.key(seed)
    variables = {"params": jax.jit(model.init)(key), "frozen": ()}
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (10, o["batch"], 64, 64, 1)).astype(np.uint8)
    if name in _FLOWS:
        coder: Any = model.autoencoder  # pyright: ignore[reportAttributeAccessIssue]
        real = jnp.asarray(frames, jnp.float32) / 127.5 - 1.0
        variables["frozen"] = jax.jit(coder.freeze)(jax.jit(coder.init)(key), real)
    reset = np.zeros(frames.shape[:2], bool)
    reset[0] = True
    memory = condition(model)(variables, Clip(frames, None, reset))
    at, count = len(frames), o["frames"]

    def forwards(state: dict[str, Any]) -> Any:
        state["memory"], drawn = steps(model)(variables, state["memory"], None, key, np.int32(0), count)
        return drawn

    state: dict[str, Any] = {"memory": memory}
    calls = {}
    for end, place in zip(("near", "far"), places, strict=True):
        while at + count <= place:
            forwards(state)
            at += count
        # what a step is given it may write over; turns go on from here
        calls[end] = functools.partial(forwards, jax.tree.map(jnp.copy, state))
    facts = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "memory_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
    }
    return calls, count, facts


def _recompute(name: str, o: Mapping[str, Any], places: list[int], seed: int) -> Any:
    """The Transformer without a cache: its core alone, over all frames so far, for the last one's sake."""
    longest = places[1]
    own = {"features": 384, "num_layers": 8, "num_heads": 8, "window": longest}
    whole = name == "recompute_64"
    core = make_core("frame_attention" if whole else "attention", **own)
    key, size = jax.random.key(seed), ((8, 8),) if whole else ()
    carry = core.initial_carry(o["batch"], *size)

    def inputs(length: int) -> Any:
        shape = (length, o["batch"], *((8, 8) if whole else ()), 384)
        return jax.random.normal(key, shape), jnp.zeros(shape[:2], bool)

    params = jax.jit(core.init)(key, carry, *inputs(1))

    @jax.jit
    def last(params: Any, x: Any, reset: Any) -> Any:
        _, y = cast("tuple[Any, Any]", core.apply(params, carry, x, reset))
        return y[-1]

    calls = {
        end: functools.partial(last, params, *inputs(place))
        for end, place in zip(("near", "far"), places, strict=True)
    }
    facts = {"parameters": sum(leaf.size for leaf in jax.tree.leaves(params)), "memory_bytes": None}
    return calls, 1, facts


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    header = ["model", "how", "parameters", "frames", "ms early", "ms late", "late / early", "memory, MB"]
    rows = []
    for row in result["rows"]:
        start = [row["label"], row["what"], short(row["parameters"]), f"{row['near']}, {row['far']}"]
        ends = [row.get(f"{end}_ms") for end in ("near", "far")]
        texts = ["out of memory" if end is None else spread_text(end) for end in ends]
        ratio = "" if None in ends else f"{ends[1]['median'] / ends[0]['median']:.2f}"
        size = row["memory_bytes"]
        rows.append([*start, *texts, ratio, "none" if size is None else f"{size / 1e6:.2f}"])
    o = result["settings"]["sampling"]
    notes = [
        f"one frame of 64 x 64 for {o['batch']} video(s), float32, {o['frames']} frames a call; flows take "
        "50 Euler steps a frame",
        "`recompute` is the core alone, encoder and decoder left out, as if nothing were remembered",
        f"median (lowest–highest) of {result['settings']['blocks']} turns",
    ]
    return Table("A predicted frame, early and late in a video", header, rows, notes)
