"""The devices of a run: one mesh over them, and what lies where."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from ..agents import ENVIRONMENTS, AgentState
from ..cores.sharded import DATA, make_mesh
from .build import default_device
from .config import MeshConfig
from .errors import InputError

if TYPE_CHECKING:
    from ..video.learner import LearnerState


def run_mesh(config: MeshConfig, distributed: bool, check: Callable[[MeshConfig], None]) -> Mesh:
    """The mesh of a run; `check` raises `ValueError` for one that its batches don't fit.

    `mesh.data=null` is one device, or all that the processes have together. Raises `ValueError` where there
    are too few devices.
    """
    devices = jax.devices(default_device().platform)
    if not distributed:
        devices.sort(key=lambda device: device != default_device())  # the one that `device` chose comes first
        return make_mesh(config.data or 1, config.sequence, devices)
    data = config.data or max(len(devices) // config.sequence, 1)
    check(dataclasses.replace(config, data=data))
    if data * config.sequence != len(devices):
        raise InputError(
            f"mesh.data={data} times mesh.sequence={config.sequence} is not the {len(devices)} devices of "
            "all processes together; leave mesh.data=null"
        )
    return make_mesh(data, config.sequence, devices)


def device_name(device: Any = None) -> str:
    """What the figures of a device (the default one) were measured on, such as `cpu (AMD EPYC, 2 cores)`."""
    device = device or default_device()
    if device.platform != "cpu":
        return f"{device.platform} ({device.device_kind})"
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"cpu ({model}, {os.cpu_count()} cores)"


def mesh_name(mesh: Mesh) -> str:
    """The devices of a mesh, such as `2 x gpu (NVIDIA H100 80GB HBM3)`."""
    name = device_name(mesh.devices.flat[0])
    return f"{mesh.size} x {name}" if mesh.size > 1 else name


def whole(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, P())


def agent_shardings(mesh: Mesh, state: AgentState) -> AgentState:
    """Where a run's state `[S, ...]` lies: rows of environments over `data`, all else on every device."""

    def by_row(leaf: Any) -> NamedSharding:
        fits = leaf.ndim > 1 and leaf.shape[1] % mesh.shape[DATA] == 0
        return NamedSharding(mesh, P(None, DATA)) if fits else whole(mesh)

    rows = {name: jax.tree.map(by_row, getattr(state, name)) for name in ENVIRONMENTS}
    return jax.tree.map(lambda _: whole(mesh), state).replace(**rows)


def learner_shardings(mesh: Mesh, state: "LearnerState") -> "LearnerState":
    """Where a video learner's state lies: the rows of a stream's memory over `data`, all else everywhere."""
    memory = jax.tree.map(lambda _: NamedSharding(mesh, P(DATA)), state.memory)
    return jax.tree.map(lambda _: whole(mesh), state).replace(memory=memory)


def abstract(tree: Any, places: Any = None) -> Any:
    """The shapes and dtypes of `tree`, placed on the default device or where `places` says."""
    if places is None:
        alone = SingleDeviceSharding(default_device())
        places = jax.tree.map(lambda _: alone, tree)
    return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), tree, places)


def place(tree: Any, shardings: Any) -> Any:
    """`tree`, which every process has made alike on a device of its own, where `shardings` says."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def spread(leaf: Any, sharding: NamedSharding) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(spread(jax.random.key_data(leaf), sharding))
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])

    return jax.tree.map(spread, tree, shardings)


def on_one_device(tree: Any) -> Any:
    """Every leaf whole, on this process' own first device: what evaluation and films work on."""
    mesh = next(leaf.sharding.mesh for leaf in jax.tree.leaves(tree))
    if mesh.size == 1:
        return tree
    everywhere = jax.jit(lambda x: x, out_shardings=whole(mesh))(tree)
    return jax.tree.map(lambda leaf: jax.device_put(leaf.addressable_data(0), default_device()), everywhere)
