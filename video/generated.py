"""A world as a data set: endlessly many clips, each drawn from its own number."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .clip import Clip

_SPLITS = ("train", "test")
_ENDLESS = 2**31 - 1


class GeneratedData:
    """Clips of a world, drawn on demand; implements `VideoData`.

    Clip `id` of a split is the video of the key fold_in(fold_in(key(seed), split), id): no two clips share a
    key, and no clip depends on how it is read. Drawing runs on JAX's default device, and the frames come back
    as numpy. `length` ends the clips; otherwise they go on for ever.
    """

    def __init__(self, world: Any, seed: int = 0, length: int | None = None, name: str = ""):
        self.world, self.seed, self.length = world, seed, length
        self.name = name or type(world).__name__
        self.size, self.channels, self.actions = world.size, world.channels, world.actions

    def count(self, split: str) -> int | None:
        """None: there is no end of clips."""
        _number(split)
        return None

    def lengths(self, split: str, ids: np.ndarray) -> np.ndarray:
        """`length`, or as good as endless."""
        return np.full(len(ids), self.length or _ENDLESS, np.int64)

    def read(self, split: str, ids: np.ndarray, starts: np.ndarray, frames: int) -> Clip:
        """See `VideoData`."""
        drawn, actions, _ = self._drawn(split, ids, starts, frames)
        reset = np.zeros((frames, len(ids)), bool)
        reset[0] = np.asarray(starts) == 0
        return Clip(np.asarray(drawn), None if actions is None else np.asarray(actions), reset)

    def truth(self, split: str, ids: np.ndarray, starts: np.ndarray, frames: int) -> dict[str, np.ndarray]:
        """See `VideoData`; with `frame`, the true frames themselves."""
        drawn, _, truth = self._drawn(split, ids, starts, frames)
        return {"frame": np.asarray(drawn), **{name: np.asarray(value) for name, value in truth.items()}}

    def measures(
        self,
        predicted: np.ndarray,
        truth: dict[str, np.ndarray],
        context: dict[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """The world's own."""
        return self.world.measures(predicted, truth)

    def describe(self) -> list[str]:
        """One line."""
        kind = {1: "grey", 3: "colour"}[self.channels]
        moves = "" if self.actions.kind == "none" else f", {self.actions.size} {self.actions.kind} actions"
        return [f"data: {self.name}, {self.size}x{self.size} {kind}{moves}, drawn as needed (seed {self.seed})"]

    def _drawn(self, split: str, ids: np.ndarray, starts: np.ndarray, frames: int) -> Any:
        ids, starts = np.asarray(ids), np.asarray(starts)
        ends = starts + frames
        if self.length is not None and (ends > self.length).any():
            raise ValueError(f"frame {ends.max()} lies beyond the clip's end; it has {self.length} frames")
        return _draw(self.world, self.seed, _number(split), frames)(ids.astype(np.uint32), starts.astype(np.int32))


def _number(split: str) -> int:
    if split not in _SPLITS:
        raise ValueError(f"split={split!r} must be one of {', '.join(_SPLITS)}")
    return _SPLITS.index(split)


@functools.lru_cache(maxsize=32)
def _draw(world: Any, seed: int, split: int, frames: int) -> Any:
    """`(ids, starts) -> (frames [T, B, ...], actions, truth)`, compiled for a number of frames and clips."""

    def one(number: jax.Array, start: jax.Array) -> Any:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), split), number)
        return world.clip(key, start, frames, held_out=bool(split))

    def all_clips(ids: jax.Array, starts: jax.Array) -> Any:
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), jax.vmap(one)(ids, starts))

    return jax.jit(all_clips)
