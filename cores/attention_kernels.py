"""Attention over the ring and a chunk as GPU kernels (Pallas, lowered to Triton), forwards and backwards.

No scores are ever written: a program holds a block of queries, walks along the blocks of keys, and keeps the
sums of a softmax that grows with every block (FlashAttention, arXiv 2205.14135; FlashAttention-2, arXiv
2307.08691). What is kept for the backward pass, beside inputs and output, is one number a query and head,
the logarithm of its sum. From it one kernel, of programs that hold queries, finds the gradient of the
queries, and one, of programs that hold keys, those of keys and values.

Who sees whom is told by two integers. Key s stands at `time[s]`, `_NEVER` if nobody may see it; query t sees
the times from `low[t]` to t. `low` is the window's edge or the last reset, whichever is later, so that it
never falls along the chunk: its value at a block's first query says which blocks of keys lie before all that
the block sees, and those are not walked.

Sums are float32, and products those of the dtype of the queries, at JAX's default precision of products.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from . import gpu_kernels

Pair = tuple[Array, Array]

_LEAST = 16  # rows, columns and terms that a product of tiles has at least
_MOST = 128  # channels of a head that a program's registers hold
_NEVER = -(2**30)  # before all times
_NOTHING = 2**30  # the `low` of a query that sees nothing
_MASKED = -1e30  # a score that no other is below
_LOG2E = 1.4426950408889634  # kernels know powers of 2


class Blocks(NamedTuple):
    """A program's `queries` and `keys` (powers of 2), its warps, and loads under way."""

    queries: int
    keys: int
    warps: int
    stages: int


class Tiling(NamedTuple):
    """The blocks of the forward pass, of the queries' gradient, and of that of keys and values."""

    forward: Blocks
    queries: Blocks
    keys: Blocks


def default_tiling(channels: int) -> Tiling:
    """Blocks whose tiles of so many channels a multiprocessor's registers and shared memory hold."""
    if channels > 64:
        return Tiling(Blocks(64, 32, 4, 2), Blocks(64, 32, 4, 2), Blocks(32, 64, 4, 2))
    return Tiling(Blocks(64, 64, 4, 2), Blocks(64, 64, 4, 2), Blocks(64, 64, 4, 2))


def obstacle(channels: int) -> str | None:
    """Why the kernels cannot run here with heads of so many channels; None where they can."""
    if channels > _MOST:
        return f"it is written for heads of up to {_MOST} channels and these have {channels}"
    return gpu_kernels.obstacle()


def attend(
    q: Float[Array, "B T H D"],
    k: Float[Array, "B S H D"],
    v: Float[Array, "B S H D"],
    query: Any,
    key: Any,
    window: int,
    tiling: Tiling | None = None,
) -> Float[Array, "B T H D"]:
    """`attention.attend` where query t stands at time t; memory linear in T.

    `query` and `key` are `attention.Places`. The keys are `window` entries of the past (in any order, of
    segment 0 or of none), and then the T of the chunk.
    """
    _, length, _, channels = q.shape
    tiling = tiling or default_tiling(channels)
    wide, most = _power_of_2(channels), _power_of_2(length)

    def fit(blocks: Blocks) -> Blocks:
        return blocks._replace(queries=min(blocks.queries, most), keys=min(blocks.keys, most))

    tiling = Tiling(*(fit(blocks) for blocks in tiling))
    unit = max(max(blocks.queries, blocks.keys) for blocks in tiling)
    past_unit = min(max(blocks.keys for blocks in tiling), _power_of_2(window))
    plan = _Plan(tiling, channels, length, window, past_unit)

    # Selected away before the products: 0 * NaN would bring a masked NaN back, here or in the gradient.
    finite = jnp.isfinite(k).all((2, 3)) & jnp.isfinite(v).all((2, 3))
    k, v = (jnp.where(finite[..., None, None], a, 0).astype(q.dtype) for a in (k, v))
    q = jnp.where(jnp.isfinite(q).all((2, 3), keepdims=True), q, 0)
    time = jnp.where(finite & (key.segment >= 0), key.time, _NEVER)
    at = jnp.arange(length)
    before = jnp.pad(query.segment[:, :-1], ((0, 0), (1, 0)))
    began = lax.cummax(jnp.where(query.segment != before, at, _NEVER), axis=1)
    low = jnp.maximum(at - (window - 1), began)

    def padded(a: Array, unit: int, value: int = 0) -> Array:
        channel = [(0, 0), (0, wide - channels)] if a.ndim > 2 else []
        widths = [(0, 0), (0, -a.shape[1] % unit), *channel]
        return jnp.pad(a, widths, constant_values=value)

    places = _Places(
        padded(low, unit, _NOTHING),
        padded(time[:, :window], past_unit, _NEVER),
        padded(time[:, window:], unit, _NEVER),
    )
    past = padded(k[:, :window], past_unit), padded(v[:, :window], past_unit)
    chunk = padded(k[:, window:], unit), padded(v[:, window:], unit)
    y: Any = _attend(plan, padded(q, unit), past, chunk, places)
    return y[:, :length, :, :channels]


def _power_of_2(size: int) -> int:
    """The least that a tile may have to hold `size`."""
    return max(_LEAST, 1 << (size - 1).bit_length())


class _Places(NamedTuple):
    """`low` of the queries, and the `time` of the past's keys and of the chunk's; int32 `[B, S]`."""

    low: Array
    past: Array
    chunk: Array


class _Plan(NamedTuple):
    """What is known when a program is traced: sizes before padding, and what the past's is padded to."""

    tiling: Tiling
    channels: int
    length: int
    window: int
    past_unit: int

    @property
    def scale(self) -> float:
        """Of a query's product with a key."""
        return self.channels**-0.5

    def past_keys(self, blocks: Blocks) -> int:
        """Keys in a block of the past."""
        return min(blocks.keys, self.past_unit)

    def call(self, kernel: Any, blocks: Blocks, count: int, q: Array, out: list[Any], products: int) -> Any:
        """A program for each of `count` blocks, of every row and head; so many products a pair."""
        batch, _, heads, _ = q.shape
        full = min(self.window, self.length)  # the queries after these see a whole window
        pairs = batch * heads * (full * (full + 1) // 2 + (self.length - full) * self.window)
        return gpu_kernels.kernel_call(
            partial(kernel, self, blocks),
            "attention",
            warps=blocks.warps,
            stages=blocks.stages,
            grid=(count, batch, heads),
            out_shape=out,
            # Of a chunk without resets, whose past is empty.
            cost_estimate=pl.CostEstimate(
                flops=2 * products * self.channels * pairs,
                transcendentals=pairs if products else 0,
                bytes_accessed=sum(a.size * a.dtype.itemsize for a in (q, q, q, *out)),
            ),
        )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan: _Plan, q: Array, past: Pair, chunk: Pair, places: _Places) -> Array:
    """All padded to whole blocks, `past` and `chunk` keys and values."""
    return _forward(plan, q, past, chunk, places)[0]


def _forward(plan: _Plan, q: Array, past: Pair, chunk: Pair, places: _Places) -> tuple[Array, Any]:
    batch, length, heads, _ = q.shape
    blocks = plan.tiling.forward
    out = [
        jax.ShapeDtypeStruct(q.shape, q.dtype),
        jax.ShapeDtypeStruct((batch, heads, length), jnp.float32),
    ]
    bounds = _past_bounds(places.past, plan.past_keys(blocks))
    call = plan.call(_forward_kernel, blocks, length // blocks.queries, q, out, products=2)
    y, total = call(q, *past, *chunk, *places, bounds)
    return y, (q, past, chunk, places, y, total)


def _backward(plan: _Plan, kept: Any, y_bar: Array) -> tuple[Array, Pair, Pair, None]:
    q, past, chunk, places, y, total = kept
    length = q.shape[1]
    # What a softmax takes off the gradient of each of its scores.
    mean = (y.astype(jnp.float32) * y_bar.astype(jnp.float32)).sum(-1).swapaxes(1, 2)

    blocks = plan.tiling.queries
    bounds = _past_bounds(places.past, plan.past_keys(blocks))
    like = jax.ShapeDtypeStruct(q.shape, q.dtype)
    call = plan.call(_queries_kernel, blocks, length // blocks.queries, q, [like], products=3)
    (q_bar,) = call(q, *past, *chunk, *places, bounds, y_bar, total, mean)

    # Apart, so that the past's is left out where nobody asks for it.
    blocks = plan.tiling.keys
    firsts = places.low[:, :: blocks.queries]

    def of_keys(pair: Pair, time: Array, size: int, is_past: bool) -> Pair:
        newest = time.reshape(len(time), -1, size).max(-1)
        ends = (firsts[:, None] <= newest[..., None]).sum(-1, dtype=jnp.int32)  # blocks of queries
        like = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in pair]
        kernel = partial(_keys_kernel, size, is_past)
        call = plan.call(kernel, blocks, ends.shape[1], q, like, products=0 if is_past else 4)
        k_bar, v_bar = call(*pair, time, ends, q, places.low, y_bar, total, mean)
        return k_bar, v_bar

    past_bar = of_keys(past, places.past, plan.past_keys(blocks), True)
    return q_bar, past_bar, of_keys(chunk, places.chunk, blocks.keys, False), None


_attend.defvjp(_forward, _backward)


def _past_bounds(time: Array, size: int) -> Array:
    """The newest time in each row's past, and how many blocks of it are to be walked; int32 `[B, 2]`."""
    some = time.reshape(len(time), -1, size).max(-1) > _NEVER
    blocks = jnp.where(some, jnp.arange(1, some.shape[1] + 1), 0).max(-1)
    return jnp.stack([time.max(-1), blocks], axis=-1).astype(jnp.int32)


# --- kernels ------------------------------------------------------------------------------------------------


def _dot(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _queries_of(blocks: Blocks, number: Array) -> tuple[Any, Array]:
    """A block's queries, and their times."""
    first = number * blocks.queries
    return pl.ds(first, blocks.queries), first + jnp.arange(blocks.queries, dtype=jnp.int32)


def _walked(plan: _Plan, blocks: Blocks, number: Array, refs: Any, add: Any, state: Any) -> Any:
    """`state = add(state, k, v, allowed)` over all blocks of keys that a block of queries may see."""
    past_k, past_v, k_ref, v_ref, low_ref, past_time, time_ref, bounds = refs
    row, head = pl.program_id(1), pl.program_id(2)
    at, here = _queries_of(blocks, number)
    low, first = low_ref[row, at], low_ref[row, number * blocks.queries]

    def over(k_ref: Any, v_ref: Any, time_ref: Any, size: int, begin: Any, end: Any, state: Any) -> Any:
        def body(j: Array, state: Any) -> Any:
            keys = pl.ds(j * size, size)
            time = time_ref[row, keys]
            allowed = (time[None] >= low[:, None]) & (time[None] <= here[:, None])
            return add(state, k_ref[row, keys, head, :], v_ref[row, keys, head, :], allowed)

        return lax.fori_loop(begin, end, body, state)

    seen = jnp.where(bounds[row, 0] >= first, bounds[row, 1], 0)
    state = over(past_k, past_v, past_time, plan.past_keys(blocks), jnp.int32(0), seen, state)
    begin = jnp.maximum(first, 0) // blocks.keys
    end = ((number + 1) * blocks.queries - 1) // blocks.keys + 1
    return over(k_ref, v_ref, time_ref, blocks.keys, begin, end, state)


def _forward_kernel(plan: _Plan, blocks: Blocks, q_ref: Any, *refs: Any) -> None:
    *inputs, y_ref, total_ref = refs
    # Those that see most begin first.
    number = pl.num_programs(0) - 1 - pl.program_id(0)
    row, head = pl.program_id(1), pl.program_id(2)
    at, _ = _queries_of(blocks, number)
    q = q_ref[row, at, head, :]

    def add(state: Any, k: Array, v: Array, allowed: Array) -> Any:
        top, total, y = state
        scores = jnp.where(allowed, _dot(q, k.T) * (plan.scale * _LOG2E), _MASKED)
        new_top = jnp.maximum(top, scores.max(1))
        weights = jnp.where(allowed, jnp.exp2(scores - new_top[:, None]), 0.0)
        less = jnp.exp2(top - new_top)
        y = y * less[:, None] + _dot(weights.astype(v.dtype), v)
        return new_top, total * less + weights.sum(1), y

    shape = (blocks.queries, q.shape[1])
    state = (jnp.full(shape[:1], _MASKED), jnp.zeros(shape[:1]), jnp.zeros(shape))
    top, total, y = _walked(plan, blocks, number, inputs, add, state)
    some = jnp.where(total > 0, total, 1.0)
    y_ref[row, at, head, :] = (y / some[:, None]).astype(y_ref.dtype)
    total_ref[row, head, at] = top + jnp.log(some) * _LOG2E


def _queries_kernel(plan: _Plan, blocks: Blocks, q_ref: Any, *refs: Any) -> None:
    *inputs, y_bar_ref, total_ref, mean_ref, q_bar_ref = refs
    number = pl.num_programs(0) - 1 - pl.program_id(0)
    row, head = pl.program_id(1), pl.program_id(2)
    at, _ = _queries_of(blocks, number)
    q, y_bar = q_ref[row, at, head, :], y_bar_ref[row, at, head, :]
    total, mean = total_ref[row, head, at], mean_ref[row, head, at]

    def add(q_bar: Array, k: Array, v: Array, allowed: Array) -> Array:
        scores = _dot(q, k.T) * (plan.scale * _LOG2E) - total[:, None]
        weights = jnp.exp2(jnp.where(allowed, scores, _MASKED))
        scores_bar = weights * (_dot(y_bar, v.T) - mean[:, None])
        return q_bar + _dot(scores_bar.astype(k.dtype), k)

    zero = jnp.zeros((blocks.queries, q.shape[1]))
    q_bar = _walked(plan, blocks, number, inputs, add, zero)
    q_bar_ref[row, at, head, :] = (q_bar * plan.scale).astype(q_bar_ref.dtype)


def _keys_kernel(
    size: int,
    is_past: bool,
    plan: _Plan,
    blocks: Blocks,
    k_ref: Any,
    v_ref: Any,
    time_ref: Any,
    ends: Any,
    q_ref: Any,
    low_ref: Any,
    y_bar_ref: Any,
    total_ref: Any,
    mean_ref: Any,
    k_bar_ref: Any,
    v_bar_ref: Any,
) -> None:
    """A block of `size` keys, over the blocks of queries that may see it. Tiles are `[keys, queries]`."""
    number, row, head = (pl.program_id(i) for i in range(3))
    keys = pl.ds(number * size, size)
    k, v, time = k_ref[row, keys, head, :], v_ref[row, keys, head, :], time_ref[row, keys]

    def body(i: Array, state: Any) -> Any:
        k_bar, v_bar = state
        at, here = _queries_of(blocks, i)
        q, y_bar = q_ref[row, at, head, :], y_bar_ref[row, at, head, :]
        low, total, mean = low_ref[row, at], total_ref[row, head, at], mean_ref[row, head, at]
        allowed = (time[:, None] >= low[None]) & (time[:, None] <= here[None])
        scores = _dot(k, q.T) * (plan.scale * _LOG2E) - total[None]
        weights = jnp.exp2(jnp.where(allowed, scores, _MASKED))
        v_bar += _dot(weights.astype(q.dtype), y_bar)
        scores_bar = weights * (_dot(v, y_bar.T) - mean[None])
        return k_bar + _dot(scores_bar.astype(q.dtype), q), v_bar

    begin = jnp.int32(0) if is_past else number * size // blocks.queries
    zero = jnp.zeros((size, k.shape[1]))
    k_bar, v_bar = lax.fori_loop(begin, ends[row, number], body, (zero, zero))
    k_bar_ref[row, keys, head, :] = (k_bar * plan.scale).astype(k_bar_ref.dtype)
    v_bar_ref[row, keys, head, :] = v_bar.astype(v_bar_ref.dtype)
