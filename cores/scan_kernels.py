"""The `chunked` engine of `scan`: the recurrence and its adjoint as GPU kernels (Pallas, lowered to Triton).

A program walks along time with the states of some lanes in registers, and has the loads of the next block of
steps under way while it works on one, so that the memory's latency hides behind its bandwidth. It reads each
input once and writes each state once. Where rows and lanes are too few to fill the chip, time is cut into
chunks: a first kernel finds what each chunk makes of an empty memory, and every program of the second folds
those of the chunks before its own, a few numbers each, into the state that its chunk begins with.

The adjoint, walking backwards, reads the cotangent and the states once and writes the inputs' gradient; a
gain that is the same at every step gets its gradient summed in registers.

Streams are `[T, R, lanes]`: R rows, a batch row's spatial lanes side by side. Complex ones are two arrays, or
one with the real parts of all lanes before the imaginary ones, which is what matrix products make.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array

from . import gpu_kernels
from .complex_parts import Parts, conj, conj_mul, mul


class Tiling(NamedTuple):
    """How work is cut: `lanes` a program, `unroll` steps a block, `buffers` of a block, `chunks` of time."""

    lanes: int
    unroll: int
    buffers: int
    chunks: int


class Adjoint(NamedTuple):
    """What the adjoint gives: gradients of the gain (float32), of the inputs and of the carry."""

    gain: Parts
    inputs: tuple[Array, ...]
    carry: Parts


_FILL = 2**16  # lanes that are walked along at a time before more of them bring nothing
_MIN_CHUNK = 128  # steps that a chunk has at least
LEAST_LANES = 16  # fewer would leave most of a warp idle


def obstacle(lanes: int) -> str | None:
    """Why the kernels cannot run here over so many lanes; None where they can."""
    if lanes % LEAST_LANES:
        return f"it needs a multiple of {LEAST_LANES} lanes and there are {lanes}"
    return gpu_kernels.obstacle()


def default_tiling(length: int, rows: int, lanes: int) -> Tiling:
    """The tiling that measured best on an H100.

    Longer blocks or more buffers gain a few per cent where rows are few, and take five to thirty times as
    long to compile.
    """
    width = next(n for n in (64, 32, LEAST_LANES) if lanes % n == 0)
    chunks = max(1, min(_FILL // (rows * lanes), length // _MIN_CHUNK))
    return Tiling(width, unroll=4, buffers=2, chunks=chunks)


def states(
    gain: Parts,
    inputs: Sequence[Array],
    reset: Array,
    carry: Parts,
    tiling: Tiling | None = None,
) -> tuple[Parts, tuple[Array, ...]]:
    """The last state, float32, and all states, laid out and typed as the inputs.

    `inputs` are the streams: a real one, two for the parts of a complex one, or one with both; `gain` is
    `[G, lanes]` a part, row r having that of r mod G, or `[T, R, lanes]`; `reset` `[T, B]`, and R / B rows
    have each of its columns; `carry` `[R, lanes]` a part.
    """
    plan = _Plan(gain, inputs, reset, carry, tiling)
    words = plan.words(reset, reverse=False)
    start = plan.start(gain, inputs, reset, carry, reverse=False)
    out = [*plan.per_row(1), *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs)]
    kernel = partial(_states_kernel, plan)
    results = plan.call(kernel, plan.chunks, out, *gain, *inputs, words, *carry, *start)
    last, all_states = results[: plan.parts], results[plan.parts :]
    return tuple(x[0] for x in last), tuple(all_states)


def adjoint(
    gain: Parts,
    reset: Array,
    carry: Parts,
    all_states: Sequence[Array],
    last_bar: Parts,
    states_bar: Sequence[Array],
    tiling: Tiling | None = None,
) -> Adjoint:
    """Gradients from those of `states`' results: `last_bar` `[R, lanes]` a part, `states_bar` as states."""
    plan = _Plan(gain, states_bar, reset, carry, tiling)
    words = plan.words(reset, reverse=True)
    start = plan.start(gain, states_bar, reset, last_bar, reverse=True)
    count = len(gain)
    if plan.varying:
        shape = (plan.length, plan.rows, plan.lanes)
        gains = [jax.ShapeDtypeStruct(shape, jnp.float32)] * count
    else:
        gains = plan.per_row(plan.chunks)[:count]
    out = [*plan.per_row(1), *gains, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in states_bar)]
    kernel = partial(_adjoint_kernel, plan)
    results = plan.call(
        kernel, plan.chunks, out, *gain, *states_bar, words, *last_bar, *start, *all_states, *carry
    )
    carry_bar, gain_bar, inputs_bar = (
        results[: plan.parts],
        results[plan.parts : plan.parts + count],
        results[plan.parts + count :],
    )
    if not plan.varying:
        # over chunks, and over the rows that share a gain
        shape = (plan.chunks, -1, *gain[0].shape)
        gain_bar = [x.reshape(shape).sum((0, 1)) for x in gain_bar]
    return Adjoint(tuple(gain_bar), tuple(inputs_bar), tuple(x[0] for x in carry_bar))


class _Plan:
    """Sizes that are known when a program is traced, and the pieces that both directions share.

    Time in the order of the walk is cut into `blocks` blocks of `unroll` steps, a multiple of `buffers`,
    `chunk_blocks` of them to a chunk, and `tail` steps that the last chunk has beside them.
    """

    def __init__(
        self, gain: Parts, stream: Sequence[Array], reset: Array, carry: Parts, tiling: Tiling | None
    ):
        self.gain_parts, self.parts = len(gain), len(carry)
        self.length, self.rows = stream[0].shape[:2]
        self.lanes = carry[0].shape[-1]
        self.together = len(stream) < self.parts
        self.varying = gain[0].ndim == 3
        self.gains = gain[0].shape[-2]
        self.rows_per_reset = self.rows // reset.shape[1]
        tiling = tiling or default_tiling(self.length, self.rows, self.lanes)
        self.width = tiling.lanes
        self.unroll = min(tiling.unroll, 1 << (self.length.bit_length() - 1))
        self.buffers = min(tiling.buffers, self.length // self.unroll)
        rounds = self.length // (self.unroll * self.buffers)
        self.blocks = rounds * self.buffers
        self.tail = self.length - self.blocks * self.unroll
        self.chunk_blocks = -(-rounds // min(tiling.chunks, rounds)) * self.buffers
        self.chunks = -(-self.blocks // self.chunk_blocks)
        self.columns = self.lanes // self.width

    def words(self, reset: Array, reverse: bool) -> Array:
        """Bit j of `[k, B]` is the reset of step j of block k, in the order of the walk."""
        steps = jnp.flip(reset, 0) if reverse else reset
        padded = jnp.pad(steps, ((0, -self.length % self.unroll), (0, 0)))
        bits = padded.reshape(-1, self.unroll, reset.shape[1]).astype(jnp.int32)
        return (bits << jnp.arange(self.unroll, dtype=jnp.int32)[:, None]).sum(1, dtype=jnp.int32)

    def start(
        self, gain: Parts, stream: Sequence[Array], reset: Array, carry: Parts, reverse: bool
    ) -> tuple[Array, ...]:
        """What the chunks' first states are folded from; nothing where there is one chunk.

        What each chunk but the last makes of an empty memory, the product of its gains, and whether a reset
        cuts it.
        """
        if self.chunks == 1:
            return ()
        words = self.words(reset, reverse)
        steps = self.chunk_blocks * self.unroll
        inner = words[: (self.chunks - 1) * self.chunk_blocks]
        cut = (inner.reshape(self.chunks - 1, self.chunk_blocks, -1) != 0).any(1).astype(jnp.int32)
        g = conj(gain) if reverse else gain
        out = self.per_row(self.chunks - 1)
        kernel = partial(_ends_kernel, self, reverse)
        if self.varying:
            out = [*out, *self.per_row(self.chunks - 1)[: self.gain_parts]]
            ends = self.call(kernel, self.chunks - 1, out, *g, *stream, words)
            return (*ends, cut)
        ends = self.call(kernel, self.chunks - 1, out, *g, *stream, words)
        return (*ends, *_power(g, steps), cut)

    def per_row(self, count: int) -> list[jax.ShapeDtypeStruct]:
        """Float32 `[count, R, lanes]` a part."""
        return [jax.ShapeDtypeStruct((count, self.rows, self.lanes), jnp.float32)] * self.parts

    def call(self, kernel: Any, chunks: int, out: Sequence[jax.ShapeDtypeStruct], *arrays: Array) -> Any:
        """Run a program for each of the rows' columns and each chunk."""
        grid = (self.rows * self.columns, chunks)
        call = gpu_kernels.kernel_call(kernel, "scan", warps=1, stages=1, grid=grid, out_shape=list(out))
        return call(*arrays)

    # What follows is used inside kernels.

    def place(self) -> tuple[Array, Array, Array | int]:
        """This program's row, the first of its lanes, and its chunk."""
        number = pl.program_id(0)
        chunk = pl.program_id(1) if self.chunks > 1 else 0
        return number // self.columns, number % self.columns * self.width, chunk

    def at_the_end(self, chunk: Array | int, write: Callable[[], None]) -> None:
        """Do what only the last chunk does."""
        if self.chunks == 1:
            write()
        else:
            pl.when(chunk == self.chunks - 1)(write)

    def at(self, refs: Sequence[Any], index: Sequence[Any], first: Array) -> list[tuple[Any, Any]]:
        """For every part its array, and the index of this program's lanes in it."""
        if self.together:
            starts = [first + i * self.lanes for i in range(self.parts)]
            return [(refs[0], (*index, pl.ds(start, self.width))) for start in starts]
        return [(ref, (*index, pl.ds(first, self.width))) for ref in refs]

    def read(self, refs: Sequence[Any], index: Sequence[Any], first: Array) -> tuple[Array, ...]:
        """All parts at an index, in their own dtype."""
        return tuple(ref[where] for ref, where in self.at(refs, index, first))

    def write(self, refs: Sequence[Any], index: Sequence[Any], first: Array, values: Parts) -> None:
        """All parts, in the arrays' dtype."""
        for (ref, where), value in zip(self.at(refs, index, first), values, strict=True):
            ref[where] = value.astype(ref.dtype)

    def time(self, step: Array | int, reverse: bool) -> Array | int:
        """When the walk's step takes place."""
        return self.length - 1 - step if reverse else step

    def walk(
        self,
        chunk: Array | int,
        reverse: bool,
        word_ref: Any,
        batch: Array,
        load: Callable[[Array | int], Any],
        step: Callable[[Any, Any, Array, Array | int], Any],
        state: Any,
        with_tail: bool = True,
    ) -> Any:
        """`state = step(state, loaded, cut, time)` over the chunk's steps; `loaded = load(time)`."""
        first = chunk * self.chunk_blocks
        count = self.blocks if self.chunks == 1 else jnp.minimum(self.chunk_blocks, self.blocks - first)

        def fetch(block: Array) -> Any:
            block = jnp.minimum(block, self.blocks - 1)  # behind the last block comes the last again
            times = [self.time(block * self.unroll + j, reverse) for j in range(self.unroll)]
            return word_ref[block, batch], [load(time) for time in times]

        def body(k: Array, carried: Any) -> Any:
            buffers, state = list(carried[0]), carried[1]
            for i in range(self.buffers):
                block = first + k * self.buffers + i
                word, loaded = buffers[i]
                for j, values in enumerate(loaded):
                    cut = (word >> j) & 1 != 0
                    state = step(state, values, cut, self.time(block * self.unroll + j, reverse))
                # On its way while the other buffers are worked on. A buffer keeps its registers: moving what
                # is loaded to others would wait for the load.
                buffers[i] = fetch(block + self.buffers)
            return tuple(buffers), state

        buffers = tuple(fetch(jnp.int32(first + i)) for i in range(self.buffers))
        state = lax.fori_loop(0, count // self.buffers, body, (buffers, state))[1]
        if not (self.tail and with_tail):
            return state

        def end(state: Any) -> Any:
            begin = self.blocks * self.unroll
            loaded = [load(self.time(begin + j, reverse)) for j in range(self.tail)]
            for j, values in enumerate(loaded):
                cut = (word_ref[self.blocks + j // self.unroll, batch] >> j % self.unroll) & 1 != 0
                state = step(state, values, cut, self.time(begin + j, reverse))
            return state

        if self.chunks == 1:
            return end(state)
        return lax.cond(chunk == self.chunks - 1, end, lambda state: state, state)

    def fold(
        self, chunk: Array | int, row: Array, first: Array, batch: Array, start: Sequence[Any], state: Parts
    ) -> Parts:
        """The state that a chunk begins with, of the one that the first begins with."""
        if not start:
            return state
        *rest, cuts = start
        ends, products = rest[: self.parts], rest[self.parts :]

        def one(k: Array, state: Parts) -> Parts:
            end = self.rows_of(ends, k, row, first)
            index = (k, row) if self.varying else (row % self.gains,)
            product = tuple(ref[(*index, pl.ds(first, self.width))] for ref in products)
            return _next(product, cuts[k, batch] != 0, state, end)

        return lax.fori_loop(0, chunk, one, state)

    def rows_of(self, refs: Sequence[Any], k: Array | int, row: Array, first: Array) -> Parts:
        """A part each, out of `[k, R, lanes]`."""
        return tuple(ref[k, row, pl.ds(first, self.width)] for ref in refs)

    def fixed_gain(self, refs: Sequence[Any], row: Array, first: Array) -> Parts:
        """The gain of a row, the same at every step."""
        return tuple(ref[row % self.gains, pl.ds(first, self.width)] for ref in refs)

    def gain_at(self, refs: Sequence[Any], time: Array | int, row: Array, first: Array) -> Parts:
        """The gain of a row at a step, nothing where all steps have the same."""
        return tuple(ref[time, row, pl.ds(first, self.width)] for ref in refs) if self.varying else ()


def _next(gain: Parts, cut: Array, state: Parts, inputs: Parts) -> Parts:
    # A select, and after the product: neither a state nor a gain that is not finite passes a reset.
    return tuple(jnp.where(cut, 0.0, x) + y for x, y in zip(mul(gain, state), inputs, strict=True))


def _take(refs: list[Any], count: int) -> list[Any]:
    taken = refs[:count]
    del refs[:count]
    return taken


def _f32(values: Sequence[Array]) -> Parts:
    return tuple(x.astype(jnp.float32) for x in values)


def _ends_kernel(plan: _Plan, reverse: bool, *refs: Any) -> None:
    """What a chunk makes of an empty memory and, of gains that vary, their product."""
    left = list(refs)
    gain, stream = _take(left, plan.gain_parts), _take(left, 1 if plan.together else plan.parts)
    (word,), ends = _take(left, 1), _take(left, plan.parts)
    row, first, chunk = plan.place()
    fixed = () if plan.varying else plan.fixed_gain(gain, row, first)
    zero = jnp.zeros(plan.width, jnp.float32)
    one = (zero + 1, zero)[: plan.gain_parts] if plan.varying else ()

    def load(time: Any) -> Any:
        return plan.read(stream, (time, row), first), plan.gain_at(gain, time, row, first)

    def step(state: Any, loaded: Any, cut: Array, time: Any) -> Any:
        value, product = state
        inputs, varying = _f32(loaded[0]), loaded[1] or fixed
        if product:
            product = mul(varying, product)
        if not reverse:
            return _next(varying, cut, value, inputs), product
        value = tuple(jnp.where(cut, 0.0, x) for x in mul(varying, _add(value, inputs)))
        return value, product

    state = ((zero,) * plan.parts, one)
    batch = row // plan.rows_per_reset
    value, product = plan.walk(chunk, reverse, word, batch, load, step, state, with_tail=False)
    for ref, x in zip([*ends, *left], [*value, *product], strict=True):
        ref[chunk, row, pl.ds(first, plan.width)] = x


def _states_kernel(plan: _Plan, *refs: Any) -> None:
    left = list(refs)
    gain, stream = _take(left, plan.gain_parts), _take(left, 1 if plan.together else plan.parts)
    (word,), carry = _take(left, 1), _take(left, plan.parts)
    out = [left.pop() for _ in stream][::-1]
    last = [left.pop() for _ in carry][::-1]
    row, first, chunk = plan.place()
    batch = row // plan.rows_per_reset
    fixed = () if plan.varying else plan.fixed_gain(gain, row, first)

    def load(time: Any) -> Any:
        return plan.read(stream, (time, row), first), plan.gain_at(gain, time, row, first)

    def step(state: Parts, loaded: Any, cut: Array, time: Any) -> Parts:
        state = _next(loaded[1] or fixed, cut, state, _f32(loaded[0]))
        plan.write(out, (time, row), first, state)
        return state

    state = tuple(ref[row, pl.ds(first, plan.width)] for ref in carry)
    state = plan.fold(chunk, row, first, batch, left, state)
    state = plan.walk(chunk, False, word, batch, load, step, state)

    def end() -> None:
        for ref, x in zip(last, state, strict=True):
            ref[0, row, pl.ds(first, plan.width)] = x

    plan.at_the_end(chunk, end)


def _adjoint_kernel(plan: _Plan, *refs: Any) -> None:
    """Walks back with m, the later state's gradient δ where no reset lies between, and d = conj(g)·m.

    δ_t = ȳ_t + d is the gradient of u_t; conj(h_t)·m is that of the gain that led on from h_t.
    """
    left = list(refs)
    gain, stream = _take(left, plan.gain_parts), _take(left, 1 if plan.together else plan.parts)
    (word,), last_bar = _take(left, 1), _take(left, plan.parts)
    inputs_bar = [left.pop() for _ in stream][::-1]
    gain_bar = [left.pop() for _ in gain][::-1]
    carry_bar = [left.pop() for _ in last_bar][::-1]
    carry = [left.pop() for _ in last_bar][::-1]
    kept = [left.pop() for _ in stream][::-1]
    row, first, chunk = plan.place()
    batch = row // plan.rows_per_reset
    fixed = () if plan.varying else plan.fixed_gain(gain, row, first)
    zero = jnp.zeros(plan.width, jnp.float32)

    def load(time: Any) -> Any:
        before: Any = ()
        if plan.varying:
            # a gain's gradient is written at its own step, which needs the state before
            before = plan.read(kept, (jnp.maximum(time - 1, 0), row), first)
        else:
            before = plan.read(kept, (time, row), first)
        return plan.read(stream, (time, row), first), before, plan.gain_at(gain, time, row, first)

    def step(state: Any, loaded: Any, cut: Array, time: Any) -> Any:
        d, m, no_m, total = state
        g = loaded[2] or fixed
        delta = _add(d, _f32(loaded[0]))
        plan.write(inputs_bar, (time, row), first, delta)
        if plan.varying:
            at_first = time == 0
            before = tuple(
                jnp.where(at_first, c, x) for c, x in zip(first_state, _f32(loaded[1]), strict=True)
            )
            own = tuple(jnp.where(cut, 0.0, x) for x in conj_mul(before, delta, plan.gain_parts))
            for ref, x in zip(gain_bar, own, strict=True):
                ref[time, row, pl.ds(first, plan.width)] = x
        else:
            more = conj_mul(_f32(loaded[1]), m, plan.gain_parts)
            total = tuple(x + jnp.where(no_m, 0.0, y) for x, y in zip(total, more, strict=True))
        m = tuple(jnp.where(cut, 0.0, x) for x in delta)
        d = tuple(jnp.where(cut, 0.0, x) for x in mul(conj(g), delta))
        return d, m, cut, total

    start = list(left)
    first_state = tuple(ref[row, pl.ds(first, plan.width)] for ref in carry)
    d = tuple(ref[row, pl.ds(first, plan.width)] for ref in last_bar)
    d = plan.fold(chunk, row, first, batch, start, d)
    total = (zero,) * plan.gain_parts
    none = (zero,) * plan.parts
    # What a chunk's first step owes the gain needs m, which the chunk before has: it adds it at its end.
    d, m, no_m, total = plan.walk(chunk, True, word, batch, load, step, (d, none, jnp.bool_(True), total))
    if not plan.varying:
        behind = _state_behind(plan, chunk, kept, carry, row, first)
        more = conj_mul(behind, m, plan.gain_parts)
        total = tuple(x + jnp.where(no_m, 0.0, y) for x, y in zip(total, more, strict=True))
        for ref, x in zip(gain_bar, total, strict=True):
            ref[chunk, row, pl.ds(first, plan.width)] = x

    def end() -> None:
        for ref, x in zip(carry_bar, d, strict=True):
            ref[0, row, pl.ds(first, plan.width)] = x

    plan.at_the_end(chunk, end)


def _state_behind(
    plan: _Plan, chunk: Array | int, kept: Sequence[Any], carry: Sequence[Any], row: Array, first: Array
) -> Parts:
    """The state before the earliest step of an adjoint's chunk: the carry, for the last chunk of the walk."""
    begins = tuple(ref[row, pl.ds(first, plan.width)] for ref in carry)
    if plan.chunks == 1:
        return begins
    steps = (chunk + 1) * (plan.chunk_blocks * plan.unroll)
    time = jnp.maximum(plan.length - 1 - steps, 0)
    before = _f32(plan.read(kept, (time, row), first))
    at_end = chunk == plan.chunks - 1
    return tuple(jnp.where(at_end, c, x) for c, x in zip(begins, before, strict=True))


def _add(a: Parts, b: Parts) -> Parts:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _power(g: Parts, steps: int) -> Parts:
    """g to the power of a positive whole number, by squaring."""
    result: Parts | None = None
    while steps:
        if steps & 1:
            result = g if result is None else mul(result, g)
        steps >>= 1
        g = mul(g, g)
    assert result is not None
    return result
