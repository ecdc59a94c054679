"""What the kernels for NVIDIA's GPUs share: where they can run, their call, and the interpreter for tests."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
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
    return _failed_trial(device)


@functools.cache
def _failed_trial(device: Any) -> str | None:
    """What the smallest kernel failed with on `device`: an old driver says so only when one is loaded."""
    # in a thread of its own, which knows nothing of what is being traced, and over how many devices
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_try, device).result()


def _try(device: Any) -> str | None:
    number = jax.ShapeDtypeStruct((16,), np.float32)
    add_one = kernel_call(_add_one_kernel, "trial", warps=1, stages=1, out_shape=number)
    try:
        with jax.default_device(device):
            jax.block_until_ready(jax.jit(add_one)(np.zeros(16, np.float32)))
    except jax.errors.JaxRuntimeError as error:
        first = str(error).strip().partition("\n")[0]
        return f"{device.device_kind} refuses the smallest of such kernels ({first})"
    return None


def _add_one_kernel(x_ref: Any, y_ref: Any) -> None:
    y_ref[...] = x_ref[...] + 1.0


def kernel_call(kernel: Any, family: str, *, warps: int, stages: int, **options: Any) -> Callable[..., Any]:
    """`pl.pallas_call`; profiles show the kernel under its family's name and that of its function."""
    name = getattr(kernel, "func", kernel).__name__.strip("_").removesuffix("_kernel")
    parameters = plgpu.CompilerParams(num_warps=warps, num_stages=stages)
    return pl.pallas_call(
        kernel, compiler_params=parameters, interpret=_interpreted, name=f"{family}_{name}", **options
    )
