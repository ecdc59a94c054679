"""A picture of the state of any base environment, headless, with Pillow alone.

Each kind of environment has a drawing of its own (`draw_control`, `draw_grid`, `draw_boards`, `draw_cards`,
`draw_bars`, `draw_bodies`; `draw_brax` asks MuJoCo); whatever has none is shown as its observation, in bars.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

from . import draw_bars, draw_boards, draw_bodies, draw_cards, draw_control, draw_grid
from .draw_canvas import ACCENT, Canvas, Last

Drawing = Callable[[Canvas, Any, Any, Any, Last], None]

# By class name rather than by class: importing every environment to draw one would cost seconds, and
# environments that extend one of these (any class below it in its ancestry) are drawn like it.
_DRAWINGS: dict[str, Drawing] = {
    **draw_control.DRAWINGS,
    **draw_grid.DRAWINGS,
    **draw_boards.DRAWINGS,
    **draw_cards.DRAWINGS,
    **draw_bars.DRAWINGS,
}
# A stranger's class may share a name with one of ours and nothing else.
_HOMES = ("gymnax", __name__.partition(".")[0])


def draw(
    base_env: Any,
    state: Any,
    params: Any,
    size: tuple[int, int] = (256, 256),
    *,
    last_action: Any = None,
    last_reward: float | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """One state of a base environment as a picture.

    `base_env` is a `BaseEnv` (or the gymnax environment itself), `state` its state without batch axes, best
    as numpy arrays on the host, `params` the physics it was played with, `size` (height, width) in pixels.
    `last_action` (the environment's own, not the agent's) and the raw `last_reward` are shown where a state
    does not remember them: the arm that was pulled, the suit that was named. Returns uint8 RGB.

    Raises `ValueError` for a size below 16 or a state with a batch axis, and `RuntimeError` where a brax
    environment cannot be rendered on this machine, saying what is missing.
    """
    env = getattr(base_env, "env", base_env) if hasattr(base_env, "observation_shape") else base_env
    batch = np.shape(getattr(state, "time", 0))
    if batch:
        raise ValueError(
            f"the state has a batch axis of {batch}; draw one state at a time (index its leaves)"
        )
    if not _finite(state):
        # Drawing it as if it were zero would show a calm world; this one has blown up.
        canvas = Canvas(size)
        canvas.text((0.5, 0.5), "the state is not finite", 0.08, ACCENT)
        return canvas.pixels()
    if hasattr(getattr(env, "brax_env", None), "sys"):
        from .draw_brax import draw_brax

        return draw_brax(env, state, size)
    canvas = Canvas(size)
    model = getattr(getattr(env, "simulator", None), "mj_model", None)
    drawing = _find(type(env))
    if model is not None:
        draw_bodies.draw_bodies(canvas, model, state.simulated.data)
    elif drawing is not None:
        drawing(canvas, env, state, params, Last(last_action, last_reward))
    else:
        name = str(getattr(base_env, "name", type(env).__name__))
        draw_bars.draw_bars(canvas, name, _observation(env, state, params))
    return canvas.pixels()


def _finite(state: Any) -> bool:
    import jax

    # A limit may well be infinite; what moves is in the state's own fields, brax's contacts aside.
    fields = state.simulated.obs if hasattr(state, "simulated") else state
    return all(
        np.isfinite(leaf).all() for leaf in map(np.asarray, jax.tree.leaves(fields)) if leaf.dtype.kind == "f"
    )


def _find(cls: type) -> Drawing | None:
    for parent in cls.__mro__:
        if parent.__name__ in _DRAWINGS and parent.__module__.partition(".")[0] in _HOMES:
            return _DRAWINGS[parent.__name__]
    return None


def _observation(env: Any, state: Any, params: Any) -> np.ndarray:
    """What the agent would see; where asking for it takes more than a state, the state's own numbers."""
    import jax

    try:
        return np.ravel(np.asarray(env.observe(jax.random.key(0), state, None, params), float))
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(state) if np.asarray(leaf).dtype.kind in "biuf"]
        return np.concatenate(leaves).astype(float) if leaves else np.zeros(1)
