"""Films and pictures: MP4 through PyAV, GIF and panels side by side through Pillow.

Frames are uint8 arrays [T, H, W, 3]. Files are written beside their final name and then renamed, so that
whoever looks never finds half a film.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from .atomic import atomic

Frames = UInt8[np.ndarray, "T H W 3"]

_PAPER, _INK, _MUTED, _ACCENT = (250, 249, 246), (51, 65, 85), (100, 116, 139), (228, 87, 46)


def write_mp4(path: str | os.PathLike[str], frames: Any, fps: float = 25, lossless: bool = False) -> Path:
    """Writes H.264 that plays everywhere (yuv420p, faststart), or with `lossless` exact RGB (x264 crf 0).

    `frames` is [T, H, W, 3] uint8, a list of such pictures, or an iterator, of which one picture at a time
    is in memory. yuv420p needs even sides: an odd one gains a copy of its last row or column; lossless films
    keep their size. Raises `ValueError` for no frames, wrong shapes or types, or a folder that cannot be
    written to.
    """
    import av

    pictures = _one_by_one(frames, fps)
    first = next(pictures)
    height, width = first.shape[:2] if lossless else (n + n % 2 for n in first.shape[:2])
    with (
        atomic(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        rate = Fraction(fps).limit_denominator(1000)
        # Players differ in what they do with RGB; the lossless film is data, the other is for people.
        options = {"crf": "0", "preset": "veryfast"} if lossless else {"crf": "20", "preset": "medium"}
        stream: Any = container.add_stream(
            "libx264rgb" if lossless else "libx264", rate=rate, options=options
        )
        stream.height, stream.width = height, width
        stream.pix_fmt = "rgb24" if lossless else "yuv420p"
        for frame in itertools.chain([first], pictures):
            even = np.pad(frame, ((0, height - len(frame)), (0, width - frame.shape[1]), (0, 0)), mode="edge")
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return Path(path)


def write_gif(path: str | os.PathLike[str], frames: Any, fps: float = 25, colors: int = 64) -> Path:
    """Writes a small looping GIF with one palette for all frames, so that nothing flickers.

    GIF counts hundredths of a second; `fps` above 50 plays at 50. Raises `ValueError` as `write_mp4` does.
    """
    from PIL import Image

    frames = _checked(frames, fps)
    pictures = [Image.fromarray(frame) for frame in frames]
    # The palette comes from a few frames spread over the film, stacked into one picture.
    spread = frames[np.unique(np.linspace(0, len(frames) - 1, 8).astype(int))]
    sample = Image.fromarray(spread.reshape(-1, *frames.shape[2:]))
    palette = sample.quantize(colors, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    with atomic(path) as temporary:
        indexed[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=indexed[1:],
            duration=max(round(100 / fps), 2) * 10,
            loop=0,
            optimize=False,
        )
    return Path(path)


def write_png(path: str | os.PathLike[str], picture: UInt8[np.ndarray, "H W 3"]) -> Path:
    """Writes one picture."""
    from PIL import Image

    picture = _checked(np.asarray(picture)[None], 1)[0]
    with atomic(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
    return Path(path)


def side_by_side(
    panels: Sequence[tuple[str, Any]],
    *,
    rewards: Sequence[Any] | None = None,
    captions: Sequence[str] | None = None,
    hold: int = 0,
    every: int = 1,
) -> Frames:
    """Films next to each other, each under its title, with a step counter and what was earned so far.

    `panels` are (title, frames), all frames of one height; shorter films wait on their last frame, dimmed
    and marked "ended". `rewards`, one sequence a panel with at most as many entries as its frames, is summed
    into a running return: entry t is counted from frame t on, so let frame 0 be the start with reward 0.
    `captions` is a text a panel instead of that. The last picture is held `hold` frames longer. Frames are
    `every` steps apart. Returns uint8 [T, H', W', 3]. Raises `ValueError` for no panels, no frames or frames
    of unequal heights.
    """
    checked = [(title, _checked(frames, 1)) for title, frames in panels]
    counted = pages(
        checked, rewards=rewards, captions=captions, hold=hold, counter=lambda t: f"step {t * every}"
    )
    return np.stack([*counted])


def pages(
    panels: Sequence[tuple[str, Any]],
    *,
    rewards: Sequence[Any] | None = None,
    captions: Sequence[str] | None = None,
    hold: int = 0,
    counter: Callable[[int], str] = "step {}".format,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The pictures of `side_by_side` one by one, drawn as they are asked for.

    A panel's frames may be anything with `len` and, at each index, a picture uint8 [H, W, 3]; `counter` says
    what stands below the one at an index.
    """
    if not panels:
        raise ValueError("side_by_side needs at least one panel of (title, frames)")
    films = [frames for _, frames in panels]
    heights = sorted({film[0].shape[0] for film in films})
    if len(heights) > 1:
        raise ValueError(f"panels have heights {heights}; draw them all at one height")
    for name, given in (("rewards", rewards), ("captions", captions)):
        if given is not None and len(given) != len(panels):
            raise ValueError(f"{len(given)} {name} for {len(panels)} panels; give one for each")
    totals = None if rewards is None else [np.cumsum(np.asarray(r, float)) for r in rewards]
    layout = _Layout(heights[0], [film[0].shape[1] for film in films])
    headers = layout.headers([title for title, _ in panels])
    length = max(len(film) for film in films)
    picture = np.asarray(headers)
    for t in range(length):
        page = headers.copy()
        for k, film in enumerate(films):
            ended = t >= len(film)
            text = captions[k] if captions else ""
            if totals is not None and len(totals[k]):
                text = f"return {totals[k][min(t, len(totals[k]) - 1, len(film) - 1)]:.2f}"
            at = min(t, len(film) - 1)
            layout.panel(page, k, film[at], text, counter(at), ended)
        picture = np.asarray(page)
        yield picture
    yield from itertools.repeat(picture, hold)


class _Layout:
    """Where titles, pictures and captions go."""

    def __init__(self, height: int, widths: Sequence[int]) -> None:
        self.height, self.widths = height, widths
        self.font_size = max(height / 15, 9.0)
        self.band, self.gap = round(2.0 * self.font_size), max(round(height / 32), 4)
        self.size = (sum(widths) + self.gap * (len(widths) + 1), height + 2 * self.band)

    def left(self, panel: int) -> int:
        return self.gap + sum(self.widths[:panel]) + self.gap * panel

    def _font(self, scale: float) -> Any:
        from ..envs.draw_canvas import font

        return font(scale * self.font_size)

    def headers(self, titles: Sequence[str]) -> Any:
        from PIL import Image, ImageDraw

        page = Image.new("RGB", self.size, _PAPER)
        draw = ImageDraw.Draw(page)
        for k, title in enumerate(titles):
            font, scale = self._font(1.0), 1.0
            while draw.textlength(title, font=font) > self.widths[k] and scale > 0.5:
                scale -= 0.05
                font = self._font(scale)
            at = (self.left(k) + self.widths[k] / 2, self.band / 2)
            draw.text(at, title, fill=_INK, font=font, anchor="mm")
        return page

    def panel(self, page: Any, k: int, frame: np.ndarray, text: str, count: str, ended: bool) -> None:
        from PIL import Image, ImageDraw

        draw = ImageDraw.Draw(page)
        left, bottom = self.left(k), self.band + self.height
        if ended:
            frame = (frame * 0.45 + np.array(_PAPER) * 0.55).astype(np.uint8)
        page.paste(Image.fromarray(frame), (left, self.band))
        draw.rectangle((left - 1, self.band - 1, left + self.widths[k], bottom), outline=(203, 213, 225))
        if ended:
            font = self._font(1.0)
            x, y, pad = left + self.widths[k] / 2, self.band + self.height / 2, 0.55 * self.font_size
            half = draw.textlength("ended", font=font) / 2 + pad
            draw.rounded_rectangle((x - half, y - 1.6 * pad, x + half, y + 1.6 * pad), pad, fill=_INK)
            draw.text((x, y), "ended", fill=_PAPER, font=font, anchor="mm")
        middle = bottom + self.band / 2
        draw.text((left, middle), count, fill=_MUTED, font=self._font(0.85), anchor="lm")
        color = _MUTED if ended else _ACCENT
        draw.text((left + self.widths[k], middle), text, fill=color, font=self._font(0.95), anchor="rm")


def _one_by_one(frames: Any, fps: float) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    if not isinstance(frames, Iterator):
        frames = _checked(frames, fps)
    shape = None
    for frame in frames:
        if shape is not None and frame.shape != shape:
            raise ValueError(
                f"frames have different shapes, {shape} and {frame.shape}; draw them at one size"
            )
        shape = frame.shape
        yield _checked(frame[None], fps)[0]
    if shape is None:
        _checked([], fps)


def _checked(frames: Any, fps: float) -> Frames:
    if fps <= 0:
        raise ValueError(f"fps={fps} must be positive")
    if len(frames) == 0:
        raise ValueError("there are no frames to write; record at least one")
    if len({np.shape(frame) for frame in frames}) > 1:
        raise ValueError(
            f"frames have different shapes, {sorted({np.shape(f) for f in frames})}; draw them at one size"
        )
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"expected frames uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    return frames
