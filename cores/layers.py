"""Equal layers, one after the other, as one loop."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

# Layers are scanned, so that compile time does not grow with depth: on CPU, S5's gradient compiles in 2.8 s
# at 2 layers and in 3.1 s at 16 (10.6 s unrolled). But a scan copies weights and residuals in and out of
# stacked arrays: forward + backward at T=256, B=16, 64 features took 49 ms of CPU time scanned and 23 ms
# unrolled at 2 layers, 91 and 75 ms at 4. So up to this many are unrolled, for 0.5 s more of compiling at 4.
UNROLLED_LAYERS = 4


def stacked(layer: Callable[..., Any], num_layers: int, in_axes: tuple[Any, ...], remat: bool = False) -> Any:
    """`num_layers` copies of a module class, their weights stacked on axis 0, made and called as one.

    `layer` maps `(x, carry, ...)` to `(x, carry)`. `in_axes` says on which axis each input after x has the
    layers, `flax.linen.broadcast` for what all of them share; the carry's is the first, and the carry comes
    back on axis 1. `remat` recomputes each layer in the backward pass. That needs the loop: XLA is free to
    compute all of an unrolled program's layers again before it goes backwards through the first, or to find
    that they are there already, and saves nothing.
    """
    unroll = num_layers if num_layers <= UNROLLED_LAYERS and not remat else 1
    return nn.scan(
        nn.remat(layer, prevent_cse=False) if remat else layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=in_axes,  # pyright: ignore[reportArgumentType]
        out_axes=1,
        length=num_layers,
        unroll=unroll,
    )
