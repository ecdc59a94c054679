"""resetta bench sharding: one long sequence on several devices against the same on one."""

import dataclasses
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ...cores import make_core
from ...cores.sharded import DATA, SEQUENCE, sequence_scan
from ..build import default_device, settings
from ..config import DEVICES, MeshConfig, check_choice
from ..devices import run_mesh
from ..errors import input_errors
from ..logs import phase
from .cases import plain_settings, read_one
from .results import Table, describe, save, spread, spread_text
from .timing import prepare
from .turns import in_turns

PARTS = ("scan", "s5", "attention")
_VIRTUAL = "--xla_force_host_platform_device_count"
_MIB = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardingSettings:
    """configs/bench/sharding.yaml says what each key means."""

    parts: list[str]
    devices: int
    length: int
    attention_length: int
    batch: int
    features: int
    window: int
    repeats: int
    out: str
    device: str
    seed: int
    precision: str = "highest"

    def __post_init__(self) -> None:
        for part in self.parts:
            check_choice("parts", part, PARTS)
        for name in ("devices", "length", "attention_length", "batch", "features", "window", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        check_choice("device", self.device, DEVICES)
        for name in ("length", "attention_length"):
            if getattr(self, name) % self.devices:
                low = getattr(self, name) // self.devices * self.devices
                raise ValueError(
                    f"{name}={getattr(self, name)} is not divisible by devices={self.devices}; "
                    f"use {low or self.devices} or {low + self.devices}"
                )


def run(configs: Sequence[Mapping[str, Any]]) -> None:
    """Measure the parts that are asked for and write `<out>/sharding.json`."""
    own = read_one(configs, ShardingSettings, "run it again with another out=")
    with settings(own):
        if _again_with_virtual_devices(own, configs[0]["command"]):
            return
        with input_errors():
            mesh = run_mesh(MeshConfig(1, own.devices), False, lambda mesh: None)
        prepare()
        rows = [_measure(part, own, mesh) for part in own.parts]
        result = describe(
            "sharding",
            dataclasses.asdict(own),
            command=configs[0]["command"],
            seeds=[own.seed],
            configs=dict.fromkeys(own.parts, plain_settings(configs[0])),
            rows=rows,
        )
    save(result, Path(own.out), table(result), None)


def _again_with_virtual_devices(own: ShardingSettings, command: str) -> bool:
    """Whether this command ran in a process of its own: a processor's devices are counted when JAX starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    platform = default_device().platform
    if platform != "cpu" or len(jax.devices(platform)) >= own.devices or _VIRTUAL in flags:
        return False
    again = [sys.executable, "-m", "resetta.experiments.cli", *shlex.split(command)[1:]]
    done = subprocess.run(again, env=os.environ | {"XLA_FLAGS": f"{flags} {_VIRTUAL}={own.devices}".strip()})
    if done.returncode:
        raise SystemExit(done.returncode)
    return True


def _measure(part: str, own: ShardingSettings, mesh: Mesh) -> dict[str, Any]:
    length = own.attention_length if part == "attention" else own.length
    with phase(f"{part}, {length} steps: making inputs"):
        function, arguments = jax.block_until_ready((_scan if part == "scan" else _core)(part, length, own))
    with phase(f"{part}, {length} steps: compiling for one device"):
        alone = jax.jit(function).lower(*arguments).compile()
    with phase(f"{part}, {length} steps: compiling for {own.devices}"), jax.set_mesh(mesh):
        shared_arguments = jax.tree.map(lambda x: jax.device_put(x, _place(mesh, x, length)), arguments)
        shared = jax.jit(function).lower(*shared_arguments).compile()
        shared_arguments = jax.device_put(shared_arguments, shared.input_shardings[0])
    with phase(f"{part}, {length} steps: values and gradients"):
        (_, states), gradients = alone(*arguments)
        (_, shared_states), shared_gradients = shared(*shared_arguments)
        value_error = _error(states, shared_states)
        gradient_error = _error(gradients, shared_gradients)
        del states, shared_states, gradients, shared_gradients
    calls = {"alone": lambda: alone(*arguments), "shared": lambda: shared(*shared_arguments)}
    taken = in_turns(calls, own.repeats, f"{part}: ")
    return {
        "label": part,
        "length": length,
        "batch": own.batch,
        "devices": own.devices,
        "value_error": value_error,
        "gradient_error": gradient_error,
        "alone_bytes": _planned(alone),
        "shared_bytes": _planned(shared),
        "alone_seconds": spread(taken["alone"]["wall"]),
        "shared_seconds": spread(taken["shared"]["wall"]),
    }


def _scan(part: str, length: int, own: ShardingSettings) -> tuple[Callable[..., Any], Any]:
    """The recurrence alone: complex gains that forget within hundreds of steps, a reset every 3,000 or so."""
    rng = np.random.default_rng(own.seed)
    radius, angle = rng.uniform(0.9, 0.999, own.features), rng.uniform(-np.pi, np.pi, own.features)
    gain = tuple(jnp.asarray(radius * f(angle), jnp.float32) for f in (np.cos, np.sin))
    carry = tuple(jnp.asarray(rng.standard_normal((own.batch, own.features), np.float32)) for _ in gain)
    (*parts, reset) = _sequences(4, length, own.features, own)
    inputs, weights = tuple(parts[:2]), tuple(parts[2:])

    def loss(gain: Any, inputs: Any, carry: Any, reset: Any, weights: Any) -> tuple[Any, Any]:
        _, states = sequence_scan(gain, inputs, reset, carry)
        return sum(jnp.mean(jnp.sin(s) * w) for s, w in zip(states, weights, strict=True)), states

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True), (gain, inputs, carry, reset, weights)


def _core(part: str, length: int, own: ShardingSettings) -> tuple[Callable[..., Any], Any]:
    """A whole core of one layer."""
    if part == "s5":
        core = make_core("s5", features=own.features, num_layers=1)
    else:
        width = own.features * own.devices  # a head for every device
        core = make_core("attention", features=width, num_layers=1, num_heads=own.devices, window=own.window)
    x, weights, reset = _sequences(2, length, core.features, own)
    carry = core.initial_carry(own.batch)
    params = jax.jit(core.init)(jax.random.key(own.seed), carry, x[:1], reset[:1])

    def loss(params: Any, x: Any, carry: Any, reset: Any, weights: Any) -> tuple[Any, Any]:
        y: Any = core.apply(params, carry, x, reset)[1]
        return jnp.mean(jnp.sin(y) * weights), y

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), (params, x, carry, reset, weights)


def _sequences(count: int, length: int, width: int, own: ShardingSettings) -> list[jax.Array]:
    """So many sequences of normal numbers and the resets, made on the device: they can be gigabytes."""
    *keys, key_reset = jax.random.split(jax.random.key(own.seed), count + 1)
    normal = [jax.random.normal(key, (length, own.batch, width)) for key in keys]
    return [*normal, jax.random.uniform(key_reset, (length, own.batch)) < 1 / 3000]


def _place(mesh: Mesh, x: jax.Array, length: int) -> NamedSharding:
    """Sequences shared out over time, everything else on every device."""
    return NamedSharding(mesh, P(SEQUENCE, DATA) if x.ndim > 1 and x.shape[0] == length else P())


def _planned(compiled: Any) -> int:
    """Bytes that one device holds: XLA assigns every buffer when it compiles."""
    planned = compiled.memory_analysis()
    return sum(int(getattr(planned, f"{kind}_size_in_bytes")) for kind in ("temp", "argument", "output"))


def _error(a: Any, b: Any) -> float:
    """The largest difference of two trees, against the largest entry of each leaf; found on a's device."""

    def differs(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(x - jax.device_put(y, x.sharding))) / (1e-30 + jnp.max(jnp.abs(x)))

    return max(float(error) for error in jax.tree.leaves(jax.tree.map(differs, a, b)))


def table(result: Mapping[str, Any]) -> Table:
    """The table of a result."""
    devices = result["settings"]["devices"]
    header = [
        "what",
        "steps",
        "values differ",
        "gradients differ",
        "1 device, MiB",
        f"each of {devices}, MiB",
    ]
    header += ["1 device, s", f"{devices} devices, s"]
    rows = [
        [
            row["label"],
            str(row["length"]),
            f"{row['value_error']:.1e}",
            f"{row['gradient_error']:.1e}",
            *(f"{row[f'{name}_bytes'] / _MIB:.1f}" for name in ("alone", "shared")),
            *(spread_text(row[f"{name}_seconds"], 3) for name in ("alone", "shared")),
        ]
        for row in result["rows"]
    ]
    notes = [
        f"value and gradients of a loss, batch {result['settings']['batch']}; the scan and S5 share out "
        "time, attention its heads",
        "differences are the largest of an array, against its largest entry",
        "MiB are what XLA plans for a device: temporary, arguments and results",
        f"median (lowest–highest) of {result['settings']['repeats']} calls in turns; virtual devices of one "
        "processor share its cores, so that there seconds say nothing about scaling",
    ]
    return Table("A sequence on several devices", header, rows, notes)
