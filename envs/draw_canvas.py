"""The paper the drawings of environments share: one palette, anti-aliased shapes in a unit square.

Shapes are drawn `SUPERSAMPLE` times too large with Pillow and averaged down, which smooths every edge
without a display server or a graphics library.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

SUPERSAMPLE = 4

PAPER = "#faf9f6"  # background
INK = "#334155"  # lines and bodies of the world
MUTED = "#94a3b8"  # secondary lines, text
FAINT = "#e2e5ea"  # fills that should stay in the background
ACCENT = "#e4572e"  # the agent, or what it controls: the one loud colour
GOAL = "#2a9d8f"  # where it should go
GOAL_FILL = "#cfe8e4"

# Told apart by people with any common colour-vision deficiency; the first is the agent's.
CATEGORIES = (
    ACCENT, "#2b6cb0", "#94a3b8", GOAL, "#e9b44c", "#7b4fa3", "#334155", "#56b4e9", "#c9a0dc", "#6b8e23",
)  # fmt: skip

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Last:
    """The action and raw reward that led to a state, where known: some states do not remember them."""

    action: Any = None
    reward: float | None = None

    @property
    def choice(self) -> int | None:
        """The last discrete action."""
        return None if self.action is None else int(np.ravel(self.action)[0])


class Canvas:
    """A picture addressed by a unit square, (0, 0) top left, fitted into the middle of `size`.

    Positions and widths are fractions of the square's side, so a drawing looks the same at any size.
    `size` is (height, width) in pixels; both must be at least 16.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        height, width = (int(side) for side in size)
        if min(height, width) < 16:
            raise ValueError(f"size={size} is too small to draw; use at least (16, 16)")
        self.image = Image.new("RGB", (width * SUPERSAMPLE, height * SUPERSAMPLE), PAPER)
        self._draw = ImageDraw.Draw(self.image)
        self._side = min(height, width) * SUPERSAMPLE
        self._left = (width * SUPERSAMPLE - self._side) / 2
        self._top = (height * SUPERSAMPLE - self._side) / 2

    def _at(self, point: Point) -> Point:
        # A simulation can blow up; a picture of it should not. Far outside the frame stays outside.
        x, y = (min(max(v, -10.0), 10.0) if math.isfinite(v) else -10.0 for v in map(float, point))
        return self._left + x * self._side, self._top + y * self._side

    def _width(self, width: float) -> int:
        return max(round(width * self._side), 1)

    def line(self, points: Sequence[Point], color: str = INK, width: float = 0.008) -> None:
        """A line through `points` with round ends."""
        pixels = [self._at(point) for point in points]
        thick = self._width(width)
        if (
            len(pixels) == 2 and thick > 2
        ):  # Pillow's own thick lines are a pixel off here and there: seen in motion
            self._draw.polygon(_thicken(pixels[0], pixels[1], thick / 2), fill=color)
        else:
            self._draw.line(pixels, fill=color, width=thick, joint="curve")
        if thick > 2:
            for x, y in (pixels[0], pixels[-1]):
                self._draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=color)

    def circle(
        self,
        center: Point,
        radius: float,
        fill: str | None = INK,
        outline: str | None = None,
        width: float = 0.008,
    ) -> None:
        """A disc, a ring, or both."""
        x, y = self._at(center)
        r = radius * self._side
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=outline, width=self._width(width))

    def box(
        self,
        corner: Point,
        extent: Point,
        fill: str | None = INK,
        outline: str | None = None,
        width: float = 0.006,
        radius: float = 0.0,
    ) -> None:
        """An axis-aligned box from its top left `corner`, `extent` = (width, height), corners rounded."""
        x0, y0 = self._at(corner)
        x1, y1 = self._at((corner[0] + extent[0], corner[1] + extent[1]))
        x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
        rounding = min(radius * self._side, (x1 - x0) / 2, (y1 - y0) / 2)
        self._draw.rounded_rectangle(
            (x0, y0, x1, y1), rounding, fill=fill, outline=outline, width=self._width(width)
        )

    def polygon(self, points: Sequence[Point], fill: str = INK) -> None:
        """A filled polygon."""
        self._draw.polygon([self._at(point) for point in points], fill=fill)

    def arc(
        self,
        center: Point,
        radius: float,
        start: float,
        end: float,
        color: str = ACCENT,
        width: float = 0.012,
    ) -> None:
        """Part of a circle, angles in radians clockwise from the right."""
        x, y = self._at(center)
        r = radius * self._side
        self._draw.arc(
            (x - r, y - r, x + r, y + r), math.degrees(start), math.degrees(end), color, self._width(width)
        )

    def arrow(self, start: Point, end: Point, color: str = ACCENT, width: float = 0.012) -> None:
        """A line from `start` to `end` with a head; nothing when the two are the same."""
        dx, dy = float(end[0]) - float(start[0]), float(end[1]) - float(start[1])
        length = math.hypot(dx, dy)
        if not 1e-6 < length < 10:
            return
        head = min(3.2 * width, length)
        ux, uy = dx / length, dy / length
        bx, by = end[0] - ux * head, end[1] - uy * head
        self.line([start, (bx, by)], color, width)
        self.polygon(
            [end, (bx - uy * head * 0.6, by + ux * head * 0.6), (bx + uy * head * 0.6, by - ux * head * 0.6)],
            color,
        )

    def text(self, at: Point, text: str, size: float = 0.06, color: str = INK, anchor: str = "mm") -> None:
        """A line of text; `anchor` as in Pillow ("lm" left middle, "mm" centred, …)."""
        self._draw.text(self._at(at), text, fill=color, font=font(max(size * self._side, 1.0)), anchor=anchor)

    def pixels(self) -> UInt8[np.ndarray, "H W 3"]:
        """The finished picture."""
        return np.asarray(self.image.reduce(SUPERSAMPLE), dtype=np.uint8)


@functools.lru_cache(maxsize=64)  # Pillow decodes and parses it every time
def font(size: float) -> Any:
    """Pillow's own font, `size` pixels high."""
    return ImageFont.load_default(size)


def _thicken(start: Point, end: Point, half: float) -> list[Point]:
    length = math.dist(start, end) or 1.0
    nx, ny = -(end[1] - start[1]) / length * half, (end[0] - start[0]) / length * half
    return [
        (start[0] + nx, start[1] + ny),
        (end[0] + nx, end[1] + ny),
        (end[0] - nx, end[1] - ny),
        (start[0] - nx, start[1] - ny),
    ]
