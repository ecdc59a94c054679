"""What a predicted frame costs early and late in a video: time and the bytes of the memory."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

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
from .turns import in_turns, within_memory

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
_CONTEXT = 10  # frames that the models of pixels are given before they go on by themselves


def units(own: "VideoSettings") -> dict[str, Callable[[], list[dict[str, Any]]]]:
    """The models, each to be measured alone: one row."""
    o = own.sampling
    for name in o["models"]:
        if name not in _WHAT:
            raise InputError(f"unknown model {name!r}; choose from {', '.join(_WHAT)}")
    for near, far in (("near", "far"), ("flow_near", "flow_far")):
        if not _CONTEXT <= o[near] < o[far]:
            raise InputError(f"sampling.{near}={o[near]} must be from {_CONTEXT} to below {far}={o[far]}")
    return {name: functools.partial(_measure, own, name) for name in o["models"]}


def _measure(own: "VideoSettings", name: str) -> list[dict[str, Any]]:
    """Milliseconds a frame at the early and at the late frame, measured in turns."""
    o = own.sampling
    places = [o[end] for end in (("flow_near", "flow_far") if name in _FLOWS else ("near", "far"))]
    row: dict[str, Any] = {"label": name, "what": _WHAT[name][0], "near": places[0], "far": places[1]}
    make = _recompute if _WHAT[name][1] is None else _cached
    calls, per_call = {}, 1
    with phase(f"{name}: compiling, and on to frame {places[1]}"), within_memory(name):
        calls, per_call, facts = make(name, o, places, own.seed)
        row |= facts
    for end, turns in in_turns(calls, own.blocks, f"{name}: ", own.turn_seconds).items():
        row[f"{end}_ms"] = spread([s * 1e3 / per_call for s in turns["wall"]])
    return [row]


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
    frames = rng.integers(0, 256, (places[1], o["batch"], 64, 64, 1)).astype(np.uint8)
    if name in _FLOWS:
        coder: Any = model.autoencoder  # pyright: ignore[reportAttributeAccessIssue]
        real = jnp.asarray(frames[:_CONTEXT], jnp.float32) / 127.5 - 1.0
        variables["frozen"] = jax.jit(coder.freeze)(jax.jit(coder.init)(key), real)
    reset = np.zeros(frames.shape[:2], bool)
    reset[0] = True
    count = o["frames"]

    def after(length: int) -> dict[str, Any]:
        context = Clip(frames[:length], None, reset[:length])
        return {"memory": condition(model)(variables, context)}

    def forwards(state: dict[str, Any]) -> Any:
        state["memory"], drawn = steps(model)(variables, state["memory"], None, key, np.int32(0), count)
        return drawn

    at, state, calls = _CONTEXT, after(_CONTEXT), {}
    for end, place in zip(("near", "far"), places, strict=True):
        if name in _FLOWS:  # tens of passes a frame: a context is far sooner there than its frames one by one
            calls[end] = functools.partial(forwards, after(place))
            continue
        while at + count <= place:
            forwards(state)
            at += count
        # what a step is given it may write over; turns go on from here
        calls[end] = functools.partial(forwards, jax.tree.map(jnp.copy, state))
    facts = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        "memory_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
        "tokens": [_tokens(name, model, place) for place in places],
    }
    return calls, count, facts


def _tokens(name: str, model: Any, place: int) -> int | None:
    """How many tokens a frame at `place` attends to, its own among them; None: there is no attention."""
    if name == "far_long":
        coarse, fine = model.tokens
        older = max(place - model.window, 0)
        return min(place, model.window) * fine + min(older, model.capacity) * coarse
    if name == "far":
        return min(place, model.core.window) * model.autoencoder.grid**2
    return {"transformer": place, "transformer_64": 64 * place}.get(name)


def _recompute(name: str, o: Mapping[str, Any], places: list[int], seed: int) -> Any:
    """The Transformer without a cache: its core alone, over all frames so far, for the last one's sake."""
    whole = name == "recompute_64"
    shape, size = (o["batch"], *((8, 8) if whole else ()), 384), ((8, 8),) if whole else ()
    key, calls, count = jax.random.key(seed), {}, 0
    for end, place in zip(("near", "far"), places, strict=True):
        own = {"features": 384, "num_layers": 8, "num_heads": 8, "window": place}
        core = make_core("frame_attention" if whole else "attention", **own)

        def last(params: Any, x: Any, core: Any = core) -> Any:
            reset, carry = jnp.zeros(x.shape[:2], bool), core.initial_carry(o["batch"], *size)
            return core.apply(params, carry, x, reset)[1][-1]

        def init(x: Any, core: Any = core) -> Any:
            return core.init(key, core.initial_carry(o["batch"], *size), x, jnp.zeros(x.shape[:2], bool))

        params = jax.jit(init)(jnp.zeros((1, *shape)))
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        calls[end] = functools.partial(jax.jit(last), params, jax.random.normal(key, (place, *shape)))
    tokens = [place * (64 if whole else 1) for place in places]
    return calls, 1, {"parameters": count, "memory_bytes": None, "tokens": tokens}


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    header = ["model", "how", "parameters", "frames", "ms early", "ms late", "late / early", "memory, MB"]
    header.append("tokens")
    rows = []
    for row in result["rows"]:
        start = [row["label"], row["what"], short(row.get("parameters", 0)), f"{row['near']}, {row['far']}"]
        ends = [row.get(f"{end}_ms") for end in ("near", "far")]
        texts = ["out of memory" if end is None else spread_text(end) for end in ends]
        ratio = "" if None in ends else f"{ends[1]['median'] / ends[0]['median']:.2f}"
        size, tokens = row.get("memory_bytes"), row.get("tokens", [None])
        memory = "none" if size is None else f"{size / 1e6:.2f}"
        rows.append([*start, *texts, ratio, memory, "" if None in tokens else ", ".join(map(str, tokens))])
    o = result["settings"]["sampling"]
    notes = [
        f"one frame of 64 x 64 for {o['batch']} video(s), float32, {o['frames']} frames a call; flows take "
        "50 Euler steps a frame",
        "`recompute` is the core alone, without encoder and decoder, as if nothing were remembered; what its "
        "attention masks is computed too",
        "tokens: those that the early and the late frame attend to, their own among them",
        "float32 products are as exact as XLA's default for the device: TF32 on recent NVIDIA cards",
        f"median (lowest–highest) of at most {result['settings']['blocks']} turns",
    ]
    return Table("A predicted frame, early and late in a video", header, rows, notes)
