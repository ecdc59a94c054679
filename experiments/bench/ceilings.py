"""What the machine can do at best, measured in the run that is compared with it: copying and multiplying."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_TURNS = 5
_QUEUED = 8  # calls of a turn: what starting a call takes hides behind the call before


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """Bytes a second, read and written, of a plain copy; operations a second of a large matrix product.

    On a CPU the latter are operations a CPU-second, so those of one core.
    """

    bytes_per_second: float
    flops_per_second: float
    bfloat16_flops_per_second: float | None = None  # where it was measured
    cpu: bool = False

    def multiplied(self, dtype: Any) -> float:
        """Operations a second of a product of that dtype."""
        return self.flops_per_second if dtype != jnp.bfloat16 else self.bfloat16_flops_per_second or math.inf

    def text(self) -> str:
        """All, for a note under a table."""
        half = self.bfloat16_flops_per_second
        also = f" ({half / 1e12:.3g} in bfloat16)" if half else ""
        multiplied = f"{self.flops_per_second / 1e12:.3g} TFLOP/s"
        if self.cpu:
            multiplied = f"{self.flops_per_second / 1e9:.3g} GFLOP a CPU-second"
        return (
            f"{self.bytes_per_second / 1e9:.0f} GB/s copied (x + 1 on a large array) and "
            f"{multiplied} multiplied{also}, measured in the same run"
        )


def measure_ceilings(bfloat16: bool = False) -> Ceilings:
    """The best of several turns of each: a ceiling, so that nothing else the machine does lowers it."""
    small = jax.default_backend() == "cpu"
    values = jnp.zeros(2**24 if small else 2**28, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    n = 1024 if small else 8192
    matrix = jax.random.normal(jax.random.key(0), (n, n), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    bytes_per_second = 2 * values.nbytes / _fastest(copy, values)
    clock = time.process_time if small else time.perf_counter
    half = 2 * n**3 / _fastest(product, matrix.astype(jnp.bfloat16), clock) if bfloat16 else None
    return Ceilings(bytes_per_second, 2 * n**3 / _fastest(product, matrix, clock), half, small)


def _fastest(function: Any, x: Any, clock: Callable[[], float] = time.perf_counter) -> float:
    jax.block_until_ready(function(x))
    taken = []
    for _ in range(_TURNS):
        start = clock()
        for _ in range(_QUEUED):
            out = function(x)
        jax.block_until_ready(out)
        taken.append((clock() - start) / _QUEUED)
    return min(taken)
