"""One step of S5 as GPU kernels (Pallas, lowered to Triton): three a layer, where the plain step has ten.

Of a layer's step little has to wait for all of a row: the norm for all channels of x, the product with C̃
for all states, the gate's for all of y. Between those waits lies one kernel each: norm, product with B̃ and
the new states; product with C̃, D and what the gate begins with; the gate's product and the sum. Each program
makes a tile of rows and columns of what comes out, walks along what is summed over, and keeps the rest in
registers: few rows, whose step costs what its kernels cost to start, start fewer, and many move less
between them. The states are written where they were read.

Statistics, states and gates are float32; products are those of the dtype of x, as in the plain step.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array

from . import gpu_kernels, scan_kernels

Pair = tuple[Array, Array]

_LEAST = 16  # rows, columns and terms that a product of tiles has at least
_EPSILON = 1e-6  # flax's, of a layer norm


class Blocks(NamedTuple):
    """A program's `rows` and `columns`, the terms it adds at a time, its warps, and loads under way."""

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int


def default_blocks(rows: int) -> Blocks:
    """What suits so many rows: tiles as large as leave every multiprocessor of an H100 something to do."""
    if rows >= 1024:
        return Blocks(64, 64, 32, 8, 4)
    return Blocks(32, 32, 32, 8, 4) if rows >= 256 else Blocks(16, 16, 64, 4, 4)


def obstacle(rows: int, features: int, lanes: int) -> str | None:
    """Why the kernels cannot step so many rows of such a size here; None where they can."""
    if rows % _LEAST:
        return f"it needs a multiple of {_LEAST} rows and there are {rows}"
    if features < _LEAST or features & (features - 1):
        return f"it needs a power of 2 as features, {_LEAST} or more, and there are {features}"
    return scan_kernels.obstacle(lanes)


def step(
    params: Any, discrete: tuple[Pair, Pair], carry: Pair, x: Array, reset: Array, gate: str, normed: bool
) -> tuple[Pair, Array]:
    """The next carry, float32 `[B, L, P]` a part, and what comes out for `x [B, D]`; `reset` is `[B]`.

    `params` are the layers', stacked, `discrete` (Ā, B̄ / B̃) `[L, P]` a part; `gate` one of `gates.GATES`.
    """
    re, im = carry
    (batch, features), lanes = x.shape, re.shape[-1]
    blocks = default_blocks(batch)
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    states_like = [jax.ShapeDtypeStruct(re.shape, re.dtype)] * 2
    shared: Any = {"D": params.get("D"), "norm": params["norm"] if normed else None}
    for layer in range(re.shape[1]):
        plan = _Plan(layer, gate, features, lanes, _fitting(blocks, batch, features, lanes))
        call = partial(plan.call, batch)
        weights = {"B": params["B"], "discrete": discrete, **shared}
        re, im = call(_states_kernel, lanes, states_like, weights, reset, x, re, im, aliases=2)
        y = call(_outputs_kernel, features, like, {"C": params["C"], **shared}, x, re, im)
        if gate in ("gelu", "none"):
            x = y
        else:
            weights = {name: params[name] for name in ("gate", "value") if name in params}
            x = call(_gate_kernel, features, like, {**weights, **shared}, x, y)
    return (re, im), x


def _fitting(blocks: Blocks, rows: int, features: int, lanes: int) -> Blocks:
    """Blocks no larger than these that divide what they cut."""

    def down(size: int, *wholes: int) -> int:
        while any(whole % size for whole in wholes):
            size //= 2
        return size

    return blocks._replace(
        rows=down(blocks.rows, rows),
        columns=down(blocks.columns, features, lanes),
        inner=down(blocks.inner, features, lanes),
    )


class _Plan(NamedTuple):
    """What is known when a program is traced, and the pieces that the kernels share."""

    layer: int
    gate: str
    features: int
    lanes: int
    blocks: Blocks

    def call(self, batch: int, kernel: Any, width: int, out: Any, *arrays: Any, aliases: int = 0) -> Any:
        """Run a program for each tile of `[batch, width]`; the last `aliases` arrays become the results."""
        count = len(jax.tree.leaves(arrays))
        call = gpu_kernels.kernel_call(
            partial(kernel, self),
            "step",
            warps=self.blocks.warps,
            stages=self.blocks.stages,
            grid=(batch // self.blocks.rows, width // self.blocks.columns),
            out_shape=out,
            input_output_aliases={count - aliases + k: k for k in range(aliases)},
        )
        return call(*arrays)

    # What follows is used inside kernels.

    def place(self) -> tuple[Any, Any]:
        """This program's rows and columns."""
        rows, columns = self.blocks.rows, self.blocks.columns
        return pl.ds(pl.program_id(0) * rows, rows), pl.ds(pl.program_id(1) * columns, columns)

    def inputs(self, weights: Any, x_ref: Any, rows: Any) -> Callable[[Any], Array]:
        """u = norm(x) of the rows, as a function of the columns."""
        norm, layer = weights["norm"], self.layer
        if norm is None:
            return lambda at: x_ref[rows, at]
        whole = x_ref[rows, :].astype(jnp.float32)
        mean = jnp.sum(whole, 1) / self.features
        variance = jnp.maximum(jnp.sum(whole * whole, 1) / self.features - mean * mean, 0.0)
        factor = lax.rsqrt(variance + _EPSILON)

        def u(at: Any) -> Array:
            x = (x_ref[rows, at].astype(jnp.float32) - mean[:, None]) * factor[:, None]
            return (x * norm["scale"][layer, at] + norm["bias"][layer, at]).astype(x_ref.dtype)

        return u

    def product(
        self, width: int, terms: Callable[[Any], Sequence[tuple[Array, Sequence[Array]]]], count: int
    ) -> tuple[Array, ...]:
        """`count` float32 tiles, each the sum over `width` of the products that `terms` names at a time.

        `terms` gives pairs of a left factor and right factors, one a tile.
        """
        inner = self.blocks.inner

        def add(k: Array | int, tiles: tuple[Array, ...]) -> tuple[Array, ...]:
            for left, rights in terms(pl.ds(k * inner, inner)):
                tiles = tuple(
                    tile + jnp.dot(left, right.astype(left.dtype), preferred_element_type=jnp.float32)
                    for tile, right in zip(tiles, rights, strict=True)
                )
            return tiles

        zero = jnp.zeros((self.blocks.rows, self.blocks.columns), jnp.float32)
        return lax.fori_loop(0, width // inner, add, (zero,) * count)


def _states_kernel(
    plan: _Plan, weights: Any, reset: Any, x: Any, old_re: Any, old_im: Any, re: Any, im: Any
) -> None:
    """s = Ā∘where(reset, 0, s) + B̄u."""
    rows, at = plan.place()
    layer = plan.layer
    # Read first, so that it is on its way while other things are waited for.
    gain, scale = (tuple(part[layer, at] for part in pair) for pair in weights["discrete"])
    cut, old = reset[rows][:, None], tuple(ref[rows, layer, at] for ref in (old_re, old_im))
    kept = tuple(jnp.where(cut, 0.0, part) for part in old)
    u, b = plan.inputs(weights, x, rows), weights["B"]
    at_im = pl.ds(at.start + plan.lanes, at.size)
    driven = plan.product(plan.features, lambda k: [(u(k), (b[layer, k, at], b[layer, k, at_im]))], count=2)
    re[rows, layer, at] = gain[0] * kept[0] - gain[1] * kept[1] + scale[0] * driven[0] - scale[1] * driven[1]
    im[rows, layer, at] = gain[0] * kept[1] + gain[1] * kept[0] + scale[0] * driven[1] + scale[1] * driven[0]


def _outputs_kernel(plan: _Plan, weights: Any, x: Any, re: Any, im: Any, out: Any) -> None:
    """y = 2 Re(C̃s) + D∘u, or what the gate makes of it before its own product."""
    rows, at = plan.place()
    layer, c = plan.layer, weights["C"]

    def terms(k: Any) -> Any:
        k_im = pl.ds(k.start + plan.lanes, k.size)
        return [
            (re[rows, layer, k].astype(x.dtype), (c[layer, k, at],)),
            (im[rows, layer, k].astype(x.dtype), (c[layer, k_im, at],)),
        ]

    beside: Any = 0.0  # read first, as above
    if weights["D"] is not None:
        beside = plan.inputs(weights, x, rows)(at).astype(jnp.float32) * weights["D"][layer, at]
    y = plan.product(plan.lanes, terms, count=1)[0] + beside
    if plan.gate in ("half_glu", "full_glu", "gelu"):
        y = jax.nn.gelu(y)
    if plan.gate in ("gelu", "none"):
        y += x[rows, at].astype(jnp.float32)
    out[rows, at] = y.astype(out.dtype)


def _gate_kernel(plan: _Plan, weights: Any, x: Any, y: Any, out: Any) -> None:
    """x + gate(y), where the gate has a product."""
    rows, at = plan.place()
    layer = plan.layer
    left = plan.inputs(weights, x, rows) if plan.gate == "input" else lambda k: y[rows, k]
    dense = [weights[name] for name in ("gate", "value") if name in weights]
    biases = [p["bias"][layer, at] for p in dense]  # read first, as above
    residual, value = x[rows, at].astype(jnp.float32), y[rows, at].astype(jnp.float32)
    tiles = plan.product(
        plan.features, lambda k: [(left(k), [p["kernel"][layer, k, at] for p in dense])], count=len(dense)
    )
    gate, *others = [tile + bias for tile, bias in zip(tiles, biases, strict=True)]
    if others:
        (value,) = others
    if plan.gate == "input":
        value *= gate
    out[rows, at] = (residual + value * jax.nn.sigmoid(gate)).astype(out.dtype)
