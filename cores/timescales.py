"""For how many steps each state of a core remembers, where its eigenvalues say so."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .base import Core
from .mamba import Mamba
from .ssm import DiscreteStates, StateSpaceCore
from .stack import Stack


def timescales(core: Core, params: Any) -> dict[str, Float[Array, "L P"]]:
    """Steps in which each state falls to 1/e, -1 / log |Ā|, `[layer, state]` by part; `{}`: there are none.

    `params` are the core's own (the dictionary below `"params"`). Mamba's step depends on its input: here it
    is the one of an input that says nothing, softplus of the bias. A state that doesn't decay is infinite.
    """
    if isinstance(core, StateSpaceCore):
        states: Any = DiscreteStates(core.space, core.num_layers)
        re, im = states.apply({"params": params["states"]})[0]
        rate = -jnp.log(re * re + im * im) / 2
    elif isinstance(core, Mamba):
        layers = params["layers"]
        step = jax.nn.softplus(layers["step_bias"])[:, None, :]
        rate = (step * jnp.exp(layers["log_decay"])).reshape(core.num_layers, -1)
    elif isinstance(core, Stack):
        found = {}
        for k, (name, part) in enumerate(zip(core.pattern.split(), core.make_parts(), strict=True)):
            own = timescales(part, params.get(f"parts_{k}", {}))
            found |= {f"{name} ({k + 1})": value for value in own.values()}
        return found
    else:
        return {}
    return {type(core).__name__: jnp.where(rate > 0, 1 / jnp.where(rate > 0, rate, 1.0), jnp.inf)}
