"""What the kernels for NVIDIA's GPUs share: where they can run, their call, and the interpreter for tests."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

_interpreted = False


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
    """Run kernels in Pallas' interpreter, on any backend: slow, and for tests."""
    global _interpreted
    before, _interpreted = _interpreted, True
    try:
        yield
    finally:
        _interpreted = before


def obstacle() -> str | None:
    """Why kernels cannot run here; None where they can."""
    if _interpreted:
        return None
    device = jax.config.jax_default_device or jax.devices()[0]  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(device, str):
        device = jax.devices(device)[0]
    if device.platform != "gpu":
        return f"it is written for NVIDIA's GPUs and this is {device.platform}"
    capability = str(getattr(device, "compute_capability", "0"))
    if "gfx" in capability or float(capability) < 8.0:
        return f"it needs an NVIDIA GPU of compute capability 8.0 or more and this one has {capability}"
    return None


def kernel_call(kernel: Any, family: str, *, warps: int, stages: int, **options: Any) -> Callable[..., Any]:
    """`pl.pallas_call`; profiles show the kernel under its family's name and that of its function."""
    name = getattr(kernel, "func", kernel).__name__.strip("_").removesuffix("_kernel")
    parameters = plgpu.CompilerParams(num_warps=warps, num_stages=stages)
    return pl.pallas_call(
        kernel, compiler_params=parameters, interpret=_interpreted, name=f"{family}_{name}", **options
    )
