"""The core without a memory: what every memory has to beat."""

import flax.linen as nn
from jaxtyping import Array, Bool, Shaped

from .base import Carry, Core
from .dense import Dense
from .mlp import ResidualMLP


class Memoryless(Core):
    """`num_layers` residual MLP blocks, each step on its own; the carry is `()` and a reset changes nothing.

    The blocks are the per-step halves of the other cores, so that what a memory adds can be read off
    against this baseline at the same depth and width. `mlp_ratio` and `glu` are `ResidualMLP`'s.
    """

    num_layers: int = 2
    mlp_ratio: float = 2.0
    glu: bool = True

    def initial_carry(self, batch: int, size: tuple[int, int] | None = None) -> Carry:
        """Nothing: `()`."""
        return ()

    @nn.compact
    def __call__(
        self, carry: Carry, x: Shaped[Array, "T B F"], reset: Bool[Array, "T B"]
    ) -> tuple[Carry, Shaped[Array, "T B D"]]:
        """Consume `T` inputs; see `Core`."""
        y = x
        if x.shape[-1] != self.features:
            y = Dense(self.features, dtype=x.dtype, name="input")(y)
        for layer in range(self.num_layers):
            y = ResidualMLP(self.mlp_ratio, self.glu, name=f"block_{layer}")(y)
        return carry, y
