"""A digit that goes behind a wall and comes out again: how long is it remembered what went behind?"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from ..clip import ActionSpace
from .glyphs import GRID, choose, draw_glyph, glyphs
from .matching import find, identity, iou

_FINE = 2**16  # speeds and places are whole numbers of 1/65,536 pixel
_WALL, _TRACK, _BAR = 96, 32, 224  # grey levels of the wall, and of the bar in it: burnt and not yet
_GONE = -1  # in place of the frames since the digit came out, while it is hidden


@dataclasses.dataclass(frozen=True)
class OccluderRecall:
    """A digit is shown for `shown` frames, is hidden behind a wall for `delay` frames, and comes out again.

    The wall stands upright in the middle and is a little wider than the digit. The digit goes in on one side
    and comes out on the other, in the same row and at the same speed, turns at the border, and goes in again;
    always hidden for the same number of frames, one of `delay` for each clip. So that the moment can be
    known, a bar in the wall shows how long the digit will be hidden, and burns down while it is: what has to
    be remembered is which digit it is, and its row. Frame `shown` is always the first without it, so that a
    context of `shown` frames ends as it disappears. `clock` frames are the whole height of the bar, the
    longest delay by default; give it to compare models on delays they weren't trained on.

    Speeds are drawn between `slowest` and `fastest` pixels a frame of a 64-pixel canvas, in proportion on
    others, to 1/65,536 pixel. Motion has a closed form in whole numbers: frame 1,000,000 is as exact as frame
    0. Held-out clips show digits that training clips never do.

    Truth, `[T]` each: `label`, `instance`, `delay`, `out` (frames since the digit came out, or would have
    when the clip begins; −1 while it is hidden), `whole` (whether all of it is seen), `passes` (how often it
    has been hidden before); and `position` `[T, 2]` (row and column of its centre, in pixels).
    """

    size: int = 64
    digit_size: int | None = None
    shown: int = 12
    delay: int | tuple[int, ...] = (4, 8, 16, 32)
    clock: int | None = None
    slowest: float = 1.5
    fastest: float = 2.5

    channels: ClassVar[int] = 1
    actions: ClassVar[ActionSpace] = ActionSpace()
    groups: ClassVar[Mapping[str, str]] = MappingProxyType({"recall": "delay", "recall_error": "delay"})
    """Measures that are summed up by what is true of a clip, beside their sums by frame."""

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 512:
            raise ValueError(f"data.size={self.size} must be between 16 and 512")
        if not 4 <= self.glyph <= (self.size - 4) // 3:
            raise ValueError(
                f"data.digit_size={self.glyph} must be between 4 and {(self.size - 4) // 3} at "
                f"size={self.size}, so that it fits beside the wall"
            )
        if not self.delays or min(self.delays) < 1:
            raise ValueError(f"data.delay={self.delay} must be 1 or more frames, or a list of such numbers")
        if len({*self.delays}) < len(self.delays):
            raise ValueError(f"data.delay={[*self.delays]} has a number twice; give each once")
        if not max(self.delays) <= self.burns <= 8192:
            raise ValueError(
                f"data.clock={self.burns} must be between {max(self.delays)}, the longest delay, and 8192"
            )
        room, scale = self._room, self.size / 64
        if not 0 < self.slowest <= self.fastest <= room / scale:
            raise ValueError(
                f"data.slowest={self.slowest} and data.fastest={self.fastest} must satisfy "
                f"0 < slowest <= fastest <= {room / scale:g}, the way from wall to border"
            )
        least = int(-(-self.glyph // (self.slowest * scale))) + 1
        most = int(2 * room // (self.fastest * scale))
        if not least <= self.shown <= most:
            cure = f"use {least} to {most}" if least <= most else "bring the two speeds closer together"
            raise ValueError(
                f"data.shown={self.shown} does not fit speeds of {self.slowest} to {self.fastest}: the "
                f"slowest digit is in for {least} frames, and the fastest is back after {most}; {cure}"
            )

    @property
    def glyph(self) -> int:
        """Height and width of the digit in pixels: 16 of 64, unless `digit_size` says otherwise."""
        return round(self.size * 16 / 64) if self.digit_size is None else self.digit_size

    @property
    def delays(self) -> tuple[int, ...]:
        """All that `delay` allows."""
        return (self.delay,) if isinstance(self.delay, int) else self.delay

    @property
    def burns(self) -> int:
        """Frames that the whole bar takes to burn down."""
        return max(self.delays) if self.clock is None else self.clock

    def clip(
        self, key: Array, start: Int[Array, ""], frames: int, held_out: bool
    ) -> tuple[UInt8[Array, "T H W 1"], None, dict[str, Array]]:
        """Frames `start` … `start + frames - 1` of the endless video that `key` names."""
        which, speed, at, high, side, long = jax.random.split(key, 6)
        instance = choose(which, 1, held_out)[0]
        way = 2 * self._room * _FINE  # from the wall to the border and back
        slow, fast = (round(rate * self.size / 64 * _FINE) for rate in (self.slowest, self.fastest))
        step = jax.random.randint(speed, (), slow, fast + 1)
        first = jax.random.randint(at, (), 1, step + 1)  # how far it has come out when it is first seen
        seen = (way - first + step - 1) // step  # frames, until it is hidden again
        delay = jnp.asarray(self.delays, jnp.int32)[jax.random.randint(long, (), 0, len(self.delays))]
        row = jax.random.randint(high, (), 0, (self.size - self.glyph) * GRID + 1)

        # frame `shown` is the first that is hidden
        times = (start + jnp.arange(frames)).astype(jnp.uint32) + (seen - self.shown).astype(jnp.uint32)
        period = (seen + delay).astype(jnp.uint32)
        passes, phase = (part.astype(jnp.int32) for part in (times // period, times % period))
        hidden = phase >= seen
        gone = first + step * jnp.minimum(phase, seen)
        out = (jnp.minimum(gone, way - gone) + _FINE // GRID // 2) // (_FINE // GRID)  # in 1/256 pixel
        left = (passes + jax.random.randint(side, (), 0, 2)) % 2 == 0
        near, far = self._room * GRID, (self.size - self._room - self.glyph) * GRID
        column = jnp.where(hidden, (near + far) // 2, jnp.where(left, near - out, far + out))

        # whole numbers of 1/256 pixel are exact in float32
        corner = jnp.stack([jnp.broadcast_to(row, column.shape), column], axis=-1).astype(jnp.float32) / GRID
        drawn = glyphs(self.glyph)
        picture = jnp.asarray(drawn.images)[instance]
        levels = jax.vmap(lambda place: draw_glyph(picture, place, self.size))(corner)
        wall = self._wall(jnp.where(hidden, seen + delay - phase, delay))
        inside = jnp.asarray(self._inside)
        pixels = jnp.where(inside, wall, jnp.round(levels).astype(jnp.int32)).astype(jnp.uint8)
        truth = {
            "position": corner + (self.glyph - 1) / 2,
            "label": jnp.asarray(drawn.labels)[instance],
            "instance": instance,
            "delay": delay,
            "out": jnp.where(hidden, _GONE, phase),
            "whole": ~hidden & (out >= self.glyph * GRID),
            "passes": passes,
        }
        for name in ("label", "instance", "delay"):
            truth[name] = jnp.broadcast_to(truth[name], (frames,))
        return pixels[..., None], None, truth

    def measures(
        self, predicted: UInt8[np.ndarray, "T B H W 1"], truth: Mapping[str, np.ndarray]
    ) -> dict[str, Float[np.ndarray, "T B"]]:
        """`identity`, `position_error`, `iou`; and `recall`, `recall_error` for the digit's first return.

        All are of what is beside the wall. `identity` is 1 where the digit looks more like itself than like
        one of nine others (`matching.identity`) and `position_error` how many pixels it is found off its
        place (see `matching.digit_measures`), both NaN unless all of it should be seen. `recall` and
        `recall_error` are the same, but NaN outside the frames after it has come out for the first time since
        the first of these frames, and before it goes in again. `iou`: intersection over union of the
        foregrounds, 1 where both are empty.
        """
        beside = ~self._inside[:, None]
        shown, true = np.asarray(predicted) * beside, truth["frame"] * beside
        found = find(shown, truth["instance"][..., None], glyphs(self.glyph).images[..., None])[:, :, 0]
        error = np.linalg.norm(found - truth["position"], axis=-1)
        known = identity(shown, truth["position"], truth["instance"], self.glyph).astype(float)
        whole, passes = truth["whole"], truth["passes"]
        # what comes out in the very first frame was hidden before it
        back = whole & (passes == passes[:1] + (truth["out"][:1] != 0))
        return {
            "identity": np.where(whole, known, np.nan),
            "position_error": np.where(whole, error, np.nan),
            "iou": iou(shown, true),
            "recall": np.where(back, known, np.nan),
            "recall_error": np.where(back, error, np.nan),
        }

    @property
    def _room(self) -> int:
        """Pixels on each side of the wall, which is 2 or 3 wider than the digit."""
        return (self.size - self.glyph - 2) // 2

    @property
    def _inside(self) -> np.ndarray:
        """Which columns are the wall's."""
        columns = np.arange(self.size)
        return (columns >= self._room) & (columns < self.size - self._room)

    def _wall(self, remain: Int[Array, " T"]) -> Int[Array, "T H W"]:
        """Grey levels of the wall whose bar has so many frames left, at all columns."""
        upwards = np.arange(self.size)[::-1, None]
        height = remain[:, None, None] * (self.size * 256) // self.burns  # in 1/256 pixel
        bar = _TRACK + ((_BAR - _TRACK) * jnp.clip(height - upwards * 256, 0, 256) >> 8)
        middle, half = self.size // 2, max(1, self.glyph // 8)
        columns = np.arange(self.size)
        return jnp.where((columns >= middle - half) & (columns < middle + half), bar, _WALL)
