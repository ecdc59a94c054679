"""brax's environments as gymnax 1.0 environments. Nothing else imports brax, and this only when one is made.

brax's own wrappers restore one cached first state and drop the last observation of an episode; here trials
begin from hundreds of starts (`meta.MetaEnv`) and the observation that a step returns is the true one.
brax's `done` is `terminated`; the episode's limit of 1000 steps is `truncated`. The backend is `spring`
unless another is named: the fastest that every environment but swimmer supports. It is not brax's own
default (`generalized`), and returns are not comparable across backends.
"""

import contextlib
import inspect
import io
import types
import warnings
from typing import Any

import jax.numpy as jnp

from .simulation import SimulatedEnvironment

with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
    # brax's dependencies announce their own retirement and the optional packages that they do without.
    warnings.filterwarnings("ignore", message="JAXopt is no longer maintained", category=DeprecationWarning)
    import brax.envs
    import brax.fluid

BACKENDS = ("generalized", "mjx", "positional", "spring")


class BraxEnvironment(SimulatedEnvironment):
    """A brax environment by its brax name; `options` go to its constructor."""

    def __init__(self, brax_name: str, backend: str | None = None, **options: Any):
        supported = ("generalized",) if brax_name == "swimmer" else BACKENDS
        backend = backend or ("generalized" if brax_name == "swimmer" else "spring")
        if backend not in supported:
            raise ValueError(f"brax_{brax_name} has no backend {backend!r}; use {' or '.join(supported)}")
        if brax_name == "swimmer":
            _mend_fluid()
        with warnings.catch_warnings():
            # "not actively maintained", said at every load of a model: true, known, and no news to a user.
            warnings.filterwarnings("ignore", message="Brax System, piplines", category=UserWarning)
            self.brax_env = brax.envs.get_environment(brax_name, backend=backend, **options)
        action_size = 1 if brax_name == "fast" else self.brax_env.action_size
        super().__init__(f"brax_{brax_name}", self.brax_env, action_size)


def brax_arguments(brax_name: str) -> set[str]:
    """The constructor options that a brax environment takes."""
    signature = inspect.signature(brax.envs._envs[brax_name].__init__)
    named = {
        name for name, parameter in signature.parameters.items() if parameter.kind != parameter.VAR_KEYWORD
    }
    return (named | {"backend", "n_frames"}) - {"self"}


def _mend_fluid() -> None:
    """Lets `brax.fluid`, which only swimmer uses, call `clip(x, a_min=…)`, a keyword that JAX 0.10 removed.

    Replaces the name `jp` inside that one module by a view of jax.numpy; jax.numpy itself is untouched.
    """
    if "a_min" in inspect.signature(jnp.clip).parameters:
        return
    view = types.ModuleType("jax.numpy with the old clip")
    view.__dict__.update(vars(jnp))
    view.clip = lambda x, a_min=None, a_max=None: jnp.clip(x, a_min, a_max)  # pyright: ignore
    brax.fluid.jp = view  # pyright: ignore[reportAttributeAccessIssue]
