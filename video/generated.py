"""A world as a data set: endlessly many clips, each drawn from its own number."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt8

from .clip import ActionSpace, Clip
from .data import ENDLESS

_SPLITS = ("train", "test")


class World(Protocol):
    """What can be drawn: pure JAX, hashable (a frozen dataclass), its fields the world's options."""

    @property
    def size(self) -> int:
        """Height and width of the frames."""
        ...

    @property
    def channels(self) -> int:
        """1 or 3."""
        ...

    @property
    def actions(self) -> ActionSpace:
        """What moves it."""
        ...

    def clip(
        self, key: Array, start: Int[Array, ""], frames: int, held_out: bool
    ) -> tuple[UInt8[Array, "T H W C"], Shaped[Array, "T ..."] | None, dict[str, Shaped[Array, "T ..."]]]:
        """Frames `start` … `start + frames - 1` of the endless video of `key`, the actions, and the truth.

        `start` may be traced, `frames` and `held_out` are not. Whatever the window, the video is the same.
        `held_out` says that only what is kept for testing may be shown (digits, photographs, …).
        """
        ...

    def measures(
        self, predicted: UInt8[np.ndarray, "T B H W C"], truth: dict[str, np.ndarray]
    ) -> dict[str, Float[np.ndarray, "T B"]]:
        """See `VideoData.measures`."""
        ...


@dataclasses.dataclass(frozen=True)
class GeneratedData:
    """Clips of a world, drawn on demand; implements `VideoData`.

    Clip `id` (0 … 2**63 - 1) of a split has a key of its own, folded from `seed`, the split and `id`: it
    doesn't depend on how or when it is read, and train and test share none. Drawing runs on JAX's default
    device, one program for each number of frames and of clips, and everything comes back as numpy; any
    number of threads may read. `length` ends the clips; otherwise they go on for ever. `name` is for people.

    Raises `ValueError` for a world that is not hashable and for a `length` below 1.
    """

    world: World
    seed: int = 0
    length: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.length is not None and self.length < 1:
            raise ValueError(f"length={self.length} must be at least 1, or null for endless clips")
        try:
            hash(self.world)
        except TypeError as error:
            raise ValueError(
                f"the world {type(self.world).__name__} cannot be hashed ({error}); "
                "make it a frozen dataclass with hashable fields"
            ) from error

    @property
    def size(self) -> int:
        """Height and width of the frames."""
        return self.world.size

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.world.channels

    @property
    def actions(self) -> ActionSpace:
        """The world's."""
        return self.world.actions

    @property
    def groups(self) -> Mapping[str, str]:
        """The world's own; none of a world that has no `groups`. See `VideoData.measures`."""
        return getattr(self.world, "groups", {})

    @property
    def samples(self) -> int:
        """The world's own; 1 of a world that has no `samples`. See `VideoData.measures`."""
        return getattr(self.world, "samples", 1)

    def count(self, split: str) -> int | None:
        """None: there is no end of clips."""
        _number(split)
        return None

    def lengths(self, split: str, ids: Int[np.ndarray, " B"]) -> Int[np.ndarray, " B"]:
        """`length`, or `ENDLESS`."""
        _number(split)
        return np.full(len(ids), ENDLESS if self.length is None else self.length, np.int64)

    def read(
        self, split: str, ids: Int[np.ndarray, " B"], starts: Int[np.ndarray, " B"], frames: int
    ) -> Clip:
        """See `VideoData`."""
        return jax.tree.map(np.asarray, self.read_on_device(split, ids, starts, frames))

    def read_on_device(
        self, split: str, ids: Int[np.ndarray, " B"], starts: Int[np.ndarray, " B"], frames: int
    ) -> Clip:
        """`read` whose frames stay on the device that drew them, and may still be under way there."""
        drawn, actions, _ = self._drawn(split, ids, starts, frames)
        reset: Any = np.zeros((frames, len(ids)), bool)
        reset[0] = np.asarray(starts) == 0
        return Clip(drawn, actions, reset)

    def truth(
        self, split: str, ids: Int[np.ndarray, " B"], starts: Int[np.ndarray, " B"], frames: int
    ) -> dict[str, np.ndarray]:
        """See `VideoData`; with `frame`, the true frames themselves."""
        # the program of `read`: another one's rounding might lead a chaotic world elsewhere
        drawn, _, truth = self._drawn(split, ids, starts, frames)
        return {"frame": np.asarray(drawn), **{name: np.asarray(value) for name, value in truth.items()}}

    def measures(
        self,
        predicted: UInt8[np.ndarray, "T B H W C"],
        truth: dict[str, np.ndarray],
        context: dict[str, np.ndarray] | None = None,
    ) -> dict[str, Float[np.ndarray, "T B"]]:
        """The world's own; none of a world that has no `measures`."""
        measures = getattr(self.world, "measures", None)
        return {} if measures is None else measures(predicted, truth)

    def describe(self) -> list[str]:
        """One line."""
        kind = {1: "grey", 3: "colour"}[self.channels]
        moves = "" if self.actions.kind == "none" else f", {self.actions.size} {self.actions.kind} actions"
        ends = "" if self.length is None else f", clips of {self.length} frames"
        what = f"{self.name or type(self.world).__name__}, {self.size}x{self.size} {kind}{moves}{ends}"
        return [f"data: {what}, drawn as needed (seed {self.seed})"]

    def _drawn(self, split: str, ids: Any, starts: Any, frames: int) -> Any:
        number = _number(split)
        ids, starts = np.asarray(ids, np.int64), np.asarray(starts, np.int64)
        if ids.min(initial=0) < 0 or starts.min(initial=0) < 0 or frames < 1:
            raise ValueError(
                f"clip {ids.min(initial=0)}, start {starts.min(initial=0)}, frames={frames}: "
                "clips and frames count from 0, and at least 1 frame is read"
            )
        end = starts.max(initial=0) + frames
        last = ENDLESS if self.length is None else self.length
        if end > last:
            raise ValueError(f"frame {end - 1} lies beyond the clip's end; it has {last} frames")
        words = np.stack([ids >> 32, ids & 0xFFFFFFFF], axis=-1).astype(np.uint32)
        key = jax.random.fold_in(jax.random.key(self.seed), number)
        drawn = _draw(self.world, bool(number))(key, words, starts.astype(np.int32), frames)
        shape = (frames, len(ids), self.size, self.size, self.channels)
        if drawn[0].shape != shape or drawn[0].dtype != np.uint8:
            raise ValueError(
                f"the world {type(self.world).__name__} drew {drawn[0].dtype} {drawn[0].shape[2:]}; "
                f"its frames must be uint8 {shape[2:]}, which are its size and channels"
            )
        return drawn


def _number(split: str) -> int:
    if split not in _SPLITS:
        raise ValueError(f"split={split!r} must be one of {', '.join(_SPLITS)}")
    return _SPLITS.index(split)


@functools.lru_cache(maxsize=16)
def _draw(world: World, held_out: bool) -> Any:
    """`(key, ids [B, 2], starts [B], frames) -> (frames [T, B, ...], actions, truth)`, compiled."""

    def one(key: Array, words: Array, start: Array, frames: int) -> Any:
        key = jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])
        return world.clip(key, start, frames, held_out)

    def all_clips(key: Array, ids: Array, starts: Array, frames: int) -> Any:
        drawn = jax.vmap(one, in_axes=(None, 0, 0, None))(key, ids, starts, frames)
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), drawn)

    return jax.jit(all_clips, static_argnums=3)
