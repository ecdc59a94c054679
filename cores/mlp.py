"""The per-step half of a residual block: a pre-normed MLP that looks at one step only."""

import flax.linen as nn
import jax
from jaxtyping import Array, Shaped

from .dense import Dense


class ResidualMLP(nn.Module):
    """`x + W_out(silu(W_gate n) * W_in n)` with `n = LayerNorm(x)`: a gated linear unit (arXiv 2002.05202).

    Without `glu`, `x + W_out gelu(W_in n)`. The hidden width is `ratio` times that of `x`, and the output
    has the shape and dtype of `x` (parameters are float32).
    """

    ratio: float = 2.0
    glu: bool = True

    @nn.compact
    def __call__(self, x: Shaped[Array, "*N D"]) -> Shaped[Array, "*N D"]:
        """Every row on its own."""
        features, dtype = x.shape[-1], x.dtype
        hidden = round(self.ratio * features)
        n = nn.LayerNorm(dtype=dtype, name="norm")(x)
        if self.glu:
            # One product for both halves.
            a, gate = jax.numpy.split(Dense(2 * hidden, dtype=dtype, name="in")(n), 2, axis=-1)
            a = a * jax.nn.silu(gate)
        else:
            a = jax.nn.gelu(Dense(hidden, dtype=dtype, name="in")(n))
        return x + Dense(features, dtype=dtype, name="out")(a)
