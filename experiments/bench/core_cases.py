"""A core measured alone: which ones are asked for, made, sized and stepped."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from ...cores import Core, make_core
from ..config import DEVICES, PRECISIONS, build_dataclass, check_choice
from ..errors import InputError, input_errors
from .cases import plain_settings

_UNIT = 32  # widths are multiples: heads of even width, lanes of a warp


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoreSettings:
    """Keys that the benchmarks of cores alone share."""

    cores: list[str]
    core: dict[str, Any]
    device: str
    precision: str
    seed: int
    out: str

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)
        check_choice("precision", self.precision, PRECISIONS)

    @property
    def folder(self) -> Path:
        """Where results go."""
        return Path(self.out)

    @property
    def dtype(self) -> Any:
        """That of a core's inputs, and so of its activations."""
        return jnp.bfloat16 if self.precision == "bfloat16" else jnp.float32


@dataclasses.dataclass(frozen=True)
class CoreCase:
    """A core by its label, and the options it is made with."""

    label: str
    name: str
    options: dict[str, Any]

    def make(self, **changed: Any) -> Core:
        """The core, some options replaced."""
        return make_core(self.name, **{**self.options, **changed})


S = TypeVar("S", bound=CoreSettings)


def read_core_cases(configs: Sequence[Mapping[str, Any]], settings: type[S]) -> tuple[S, list[CoreCase]]:
    """The benchmark's settings, the same for all, and a case a configuration; `InputError` for a mistake."""
    found: list[S] = []
    cases = []
    with input_errors():
        for config in configs:
            raw = plain_settings(config)
            found.append(build_dataclass(settings, raw, ""))
            options = {key: value for key, value in raw["core"].items() if key not in ("name", "target")}
            case = CoreCase(config["label"], str(raw["core"]["name"]), options)
            if case.make().spatial:
                raise InputError(f"core={case.name} is spatial; `resetta bench video` measures those")
            cases.append(case)
    for field in dataclasses.fields(settings):
        values = [getattr(each, field.name) for each in found]
        if field.name != "core" and any(value != values[0] for value in values):
            raise InputError(f"{field.name} takes one value, not {values[0]} and others")
    return found[0], cases


def of_width(
    case: CoreCase, amount: int, measure: Callable[[Core], int] | None = None, unit: int = _UNIT
) -> int:
    """The multiple of `unit` at which the core has as nearly as possible `amount` of what is measured.

    Without a `measure`, parameters. Raises `ValueError` where it does not grow with the width.
    """
    of = measure or count_core

    @functools.cache
    def size(width: int) -> int:
        return of(case.make(features=width))

    best, width = unit, unit
    while True:
        count = size(width)
        if abs(count - amount) < abs(size(best) - amount):
            best = width
        if count > amount:
            return best
        if width > unit and count <= size(width - unit):
            raise ValueError(f"{case.name} does not grow with its width; leave it out, or compare otherwise")
        width += unit


def count_core(core: Core) -> int:
    """Parameters of a core whose inputs have its own width; nothing is computed."""
    shapes = jax.eval_shape(core.init, jax.random.key(0), core.initial_carry(1), *inputs(core, 1, 1))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def inputs(
    core: Core, length: int, batch: int, seed: int | None = None, dtype: Any = jnp.float32
) -> tuple[Any, Any]:
    """Inputs and resets (the first one's), `[T, B, ...]`; shapes alone without a seed."""
    shape = (length, batch, core.features)
    if seed is None:
        return jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(shape[:2], jnp.bool_)
    x = jax.random.normal(jax.random.key(seed), shape).astype(dtype)
    return x, jnp.zeros(shape[:2], bool).at[0].set(True)


def init_core(core: Core, seed: int) -> Any:
    """Parameters."""
    return jax.jit(core.init)(jax.random.key(seed), core.initial_carry(1), *inputs(core, 1, 1, seed))


def stepping(core: Core, lanes: int, steps: int) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """`(params, carry, x [B, D])` to those of `steps` steps later, outputs fed back as inputs."""
    no = jnp.zeros((1, lanes), bool)

    def run(params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        def step(loop: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
            carry, x = loop
            out: Any = core.apply(params, carry, x[None], no)
            return (out[0], out[1][0]), None

        return jax.lax.scan(step, (carry, x), None, length=steps)[0]

    return run


def bytes_of(tree: Any) -> int:
    """Bytes of a tree's arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
