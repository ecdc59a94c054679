"""A core on several devices: a mesh with the axes `data` (rows) and `sequence` (time, or heads).

Under `jax.set_mesh(make_mesh(...))` the compiler shares out whatever works on every step alone, as dense
layers do, wherever the inputs lie sharded `P("sequence", "data")`. Two things it cannot share out by itself,
and those are here: a recurrence over time, and attention, whose heads take the place of time. Rows need no
exchange at all, and `by_rows` gives each device its own, so that what runs there may be a kernel that the
compiler cannot take apart. Without a mesh, or on one device, the functions of this file do nothing of their
own, so that cores and learners call them always.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool

from .scan import Value, linear_scan

DATA, SEQUENCE = "data", "sequence"


def make_mesh(data: int = 1, sequence: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of `data * sequence` devices, the first of `devices` (all by default), for `jax.set_mesh`.

    Neighbours in time are neighbours in the list. Raises `ValueError` where there are too few devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    if data * sequence > len(devices):
        raise ValueError(
            f"mesh.data={data} times mesh.sequence={sequence} needs {data * sequence} devices and "
            f"there are {len(devices)}; use fewer (on a CPU, "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={data * sequence} makes virtual ones)"
        )
    return jax.make_mesh(
        (data, sequence),
        (DATA, SEQUENCE),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices[: data * sequence],
    )


def axes_in_use() -> dict[str, int]:
    """The sizes of the axes `data` and `sequence` of the mesh that is set, those above 1."""
    mesh: AbstractMesh = jax.sharding.get_abstract_mesh()
    return {
        name: mesh.shape[name] for name in mesh.auto_axes if name in (DATA, SEQUENCE) and mesh.shape[name] > 1
    }


def sequence_scan(
    gain: Value,
    inputs: Value,
    reset: Bool[Array, "T B"],
    carry: Value,
    engine: str | None = None,
    unroll: int = 1,
) -> tuple[Value, Value]:
    """`linear_scan`, its rows shared out over `data` and its time over `sequence` where a mesh has them.

    Each device scans its stretch of time from an empty state, and multiplies the gains of its stretch. The
    ends are exchanged: D states of one step each, from which every device computes, by the same recurrence
    with one step per stretch, the state that enters its own; what that one adds to a step is its product with
    the gains so far, up to the first reset. So a reset selects here as it does within a device. Everything
    is differentiated by JAX; the memory of one device holds its own stretch.

    B that `data` doesn't divide is computed whole by every device. Raises `ValueError` where `sequence`
    doesn't divide T.
    """
    first = inputs[0] if isinstance(inputs, tuple) else inputs
    length, batch = first.shape[:2]
    axes = axes_in_use() if length > 1 else {}
    if not axes:
        return linear_scan(gain, inputs, reset, carry, engine, unroll)
    if batch % axes.get(DATA, 1):
        axes.pop(DATA)
    if engine == "paper":
        raise ValueError("the engine 'paper' is a yardstick for one device; choose another on a mesh")
    parts = axes.get(SEQUENCE, 1)
    if length % parts:
        low = length // parts * parts
        raise ValueError(
            f"{length} steps cannot be cut into mesh.sequence={parts} equal stretches; "
            f"use {low or parts} or {low + parts}"
        )
    time, rows = (name if name in axes else None for name in (SEQUENCE, DATA))
    gains = P()
    part = gain[0] if isinstance(gain, tuple) else gain
    if part.ndim == first.ndim:
        gains = P(time, rows if part.shape[1] > 1 else None)

    def stretch(gain: Value, inputs: Value, reset: Array, carry: Value) -> tuple[Value, Value]:
        scan = partial(linear_scan, engine=engine, unroll=unroll)
        if time is None:
            last, states = scan(gain, inputs, reset, carry)
        else:
            states = _one_of_many(scan, gain, inputs, reset, carry)
            last = jax.tree.map(lambda x: x[-1], states)
        return jax.tree.map(lambda x: x[None], last), states

    # Every device gives the state after its own stretch, and the last one's is the sequence's.
    lasts, states = jax.shard_map(
        stretch,
        in_specs=(gains, P(time, rows), P(time, rows), P(rows)),
        out_specs=(P(time, rows), P(time, rows)),
        axis_names=_automatic(),  # a kernel allows for no axis that is left to the compiler
        check_vma=False,  # kernels of the engines do not say over which axes they vary
    )(gain, inputs, reset, carry)
    return jax.tree.map(lambda x: x[-1], lasts), states


def by_rows(apply: Callable[..., tuple[Any, ...]], params: Any, carry: Any, inputs: Any) -> tuple[Any, ...]:
    """`apply(params, carry, inputs)`, each device its rows.

    `carry [B, ...]` and `inputs [T, B, ...]` become `(carry [B, ...], *outputs [T, B, ...])`. Rows don't
    depend on one another, so nothing is exchanged but, in a gradient, the sum of what the devices found for
    `params`. Called as it is without an axis `data`, and where that doesn't divide B.
    """
    parts = axes_in_use().get(DATA, 1)
    if parts == 1 or jax.tree.leaves(inputs)[0].shape[1] % parts:
        return apply(params, carry, inputs)

    def on_a_device(params: Any, carry: Any, inputs: Any) -> tuple[Any, tuple[Any, ...]]:
        carry, *outputs = apply(params, carry, inputs)
        return carry, tuple(outputs)

    carry, outputs = jax.shard_map(
        on_a_device,
        in_specs=(P(), P(DATA), P(None, DATA)),
        out_specs=(P(DATA), P(None, DATA)),
        # time, where it is shared out too, is left to what is called; an axis of one device is not
        axis_names=_automatic() - (axes_in_use().keys() - {DATA}),
        check_vma=False,  # kernels, as below
    )(params, carry, inputs)
    return carry, *outputs


def over_rows(x: Array, axis: int) -> Array:
    """`x` with its rows, on `axis`, shared out over `data`, where that divides them."""
    parts = axes_in_use().get(DATA, 1)
    return x if parts == 1 or x.shape[axis] % parts else _placed(x, axis, DATA)


def rows_everywhere(x: Array, axis: int) -> Array:
    """`x` with all its rows, on `axis`, on every device, for what takes rows from anywhere."""
    return _placed(x, axis, None) if DATA in axes_in_use() else x


def by_heads(over: Callable[..., Array], heads: tuple[Array, ...], places: tuple[Any, ...]) -> Array:
    """`over(*heads, *places)`, each device its rows, and its heads if `sequence` shares out time elsewhere.

    What attends needs all of time at once: `heads` are `[B, S, H, D]`, and so is the result; `places`, leaves
    `[B, S]`, have no heads. Each device holds all steps of its heads: between time and heads lies one
    all-to-all (arXiv 2309.14509, section 3). Rows that `data` doesn't divide are on every device. `over` may
    be a kernel. Raises `ValueError` where `sequence` doesn't divide the heads.
    """
    axes = axes_in_use()
    if not axes:
        return over(*heads, *places)
    parts, number = axes.get(SEQUENCE, 1), heads[0].shape[2]
    if number % parts:
        raise ValueError(
            f"num_heads={number} cannot be shared out over mesh.sequence={parts}; "
            f"use num_heads={-(-number // parts) * parts}"
        )
    rows = DATA if DATA in axes and heads[0].shape[0] % axes[DATA] == 0 else None
    its = P(rows, None, SEQUENCE if parts > 1 else None)
    return jax.shard_map(
        lambda heads, places: over(*heads, *places),
        in_specs=(its, P(rows)),
        out_specs=its,
        axis_names=_automatic(),  # a kernel allows for no axis that is left to the compiler
        check_vma=False,  # kernels do not say over which axes they vary
    )(heads, places)


def over_time(x: Array, axis: int) -> Array:
    """`x` with its time, on `axis`, shared out over `sequence` again, where that divides it."""
    parts = axes_in_use().get(SEQUENCE, 1)
    return x if parts == 1 or x.shape[axis] % parts else _placed(x, axis, SEQUENCE)


def _placed(x: Array, axis: int, name: str | None) -> Array:
    placed = P(*(name if k == axis else P.UNCONSTRAINED for k in range(x.ndim)))
    return lax.with_sharding_constraint(x, placed)


def _automatic() -> set[str]:
    """The axes of the mesh that is set which no `shard_map` around has taken."""
    return set(jax.sharding.get_abstract_mesh().auto_axes)


def _one_of_many(scan: Callable[..., Any], gain: Value, inputs: Value, reset: Array, carry: Value) -> Value:
    """The states of this device's stretch, inside `shard_map`; `carry` is that before the first device's."""
    _, own = scan(gain, inputs, reset, jax.tree.map(jnp.zeros_like, carry))
    gains = _products(scan, gain, jax.tree.leaves(inputs)[0])
    ends = jax.tree.map(lambda x: x[-1], (gains, own)), reset.any(0)
    (gain_ends, own_ends), cut = lax.all_gather(ends, SEQUENCE)  # [D, ...], a step for every stretch
    # Step by step, for a step is a stretch: jaxlib 0.11.2 crashes over an associative scan's empty slices.
    entering = [carry]
    for k in range(len(cut) - 1):
        g, u, reset_too = jax.tree.map(lambda x, k=k: x[k : k + 1], (gain_ends, own_ends, cut))
        entering.append(linear_scan(g, u, reset_too, entering[-1])[0])
    stretch = lax.axis_index(SEQUENCE)
    before = jax.tree.map(lambda *states: jnp.stack(states)[stretch], *entering)

    @jax.checkpoint  # nothing of the size of the states is kept for it
    def joined(own: Value, gains: Value, before: Value) -> Value:
        seen = jnp.cumsum(reset, axis=0) > 0
        seen = seen.reshape(seen.shape + (1,) * (jax.tree.leaves(own)[0].ndim - 2))
        # the select comes before the product: 0 * NaN is NaN, in the value and in the gradient
        kept = jax.tree.map(lambda x: jnp.where(seen, 0.0, x), before)
        return jax.tree.map(jnp.add, own, _product(gains, kept))

    return joined(own, gains, before)


def _products(scan: Callable[..., Any], gain: Value, like: Array) -> Value:
    """g_0, g_1 g_0, ... along time: the recurrence from 1 with nothing coming in, `[T, B or 1, *lanes]`."""
    parts = gain if isinstance(gain, tuple) else (gain,)
    if parts[0].ndim < like.ndim:  # the same at every step, and for every row
        parts = tuple(x.reshape((1,) * (like.ndim - 2 - x.ndim) + x.shape) for x in parts)
        shape = (like.shape[0], 1, *parts[0].shape)
    else:
        shape = parts[0].shape
    nothing = tuple(jnp.zeros(shape) for _ in parts)
    one = tuple(jnp.full(shape[1:], float(k == 0)) for k in range(len(parts)))
    pick = (lambda x: x) if isinstance(gain, tuple) else (lambda x: x[0])
    return scan(pick(parts), pick(nothing), jnp.zeros(shape[:2], bool), pick(one))[1]


def _product(a: Value, b: Value) -> Value:
    if not isinstance(a, tuple):
        return jax.tree.map(lambda x: a * x, b)
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]
