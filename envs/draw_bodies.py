"""Bodies of a MuJoCo model as its first camera sees them, with Pillow alone: no OpenGL, no display.

The models of dm_control's suite (arXiv 1801.00690) are spheres, capsules, cylinders, boxes and ellipsoids,
whose outlines in a picture are simple. They are painted flat, the farthest first, in the colours of the other
drawings: what is controlled, or its last link, is the loud one, and what it should reach is green.
"""

import functools
import importlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from .draw_canvas import ACCENT, FAINT, GOAL, INK, MUTED, PAPER, Canvas, Point

_NEAR = 0.05  # what is nearer to the camera than this is not drawn
_SHOWN_GROUPS = 3  # MuJoCo's own viewer shows the groups below

Shape = tuple[float, Callable[[], None]]  # how far away it is, and what paints it


def draw_bodies(canvas: Canvas, model: Any, physics: Any) -> None:
    """One state of `model`, an `mjModel`; `physics` holds the arrays `qpos`, `mocap_pos` and `mocap_quat`."""
    mujoco: Any = importlib.import_module("mujoco")
    data = _data(model)
    data.qpos[:] = physics.qpos
    data.mocap_pos[:], data.mocap_quat[:] = physics.mocap_pos, physics.mocap_quat
    for compute in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight, mujoco.mj_tendon):
        compute(model, data)
    camera = _Camera(model, data)
    for k in range(model.ngeom):
        if model.geom_type[k] == mujoco.mjtGeom.mjGEOM_PLANE and _shown(model, "geom", k):
            _paint_plane(canvas, camera, model, data, k)
    for _, paint in sorted(_shapes(mujoco, canvas, model, data, camera), key=lambda shape: -shape[0]):
        paint()


class _Camera:
    """A pinhole: where points of the world lie in the unit square of a canvas."""

    def __init__(self, model: Any, data: Any) -> None:
        if model.ncam:
            self.at, self.axes = data.cam_xpos[0], data.cam_xmat[0].reshape(3, 3)
            self.tangent = 2 * math.tan(math.radians(float(model.cam_fovy[0])) / 2)
        else:  # from the side, so that all is in sight
            self.axes = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
            self.at, self.tangent = model.stat.center - [0.0, 2.0 * model.stat.extent, 0.0], 1.0

    def depth(self, points: np.ndarray) -> np.ndarray:
        """How far in front of the camera points `[..., 3]` lie."""
        return -(points - self.at) @ self.axes[:, 2]

    def scale(self, point: np.ndarray) -> float:
        """The size in the picture of a unit of length at `point`; 0 behind the camera."""
        depth = float(self.depth(point))
        return 1 / (depth * self.tangent) if depth > _NEAR else 0.0

    def project(self, points: np.ndarray) -> list[Point]:
        """Places in the picture of points `[N, 3]` in front of the camera."""
        seen = (points - self.at) @ self.axes
        size = 1 / (np.maximum(-seen[:, 2], _NEAR) * self.tangent)
        return [(0.5 + x * s, 0.5 - y * s) for (x, y), s in zip(seen[:, :2], size, strict=True)]


def _shapes(mujoco: Any, canvas: Canvas, model: Any, data: Any, camera: _Camera) -> Iterator[Shape]:
    kinds = mujoco.mjtGeom
    effector = any(_material(model, "geom", k) == "effector" for k in range(model.ngeom))
    for part in ("geom", "site"):
        for k in range(getattr(model, f"n{part}")):
            target = _material(model, part, k) == "target"
            at = getattr(data, f"{part}_xpos")[k]
            size, kind = getattr(model, f"{part}_size")[k], getattr(model, f"{part}_type")[k]
            scale, depth = camera.scale(at), float(camera.depth(at))
            if not _shown(model, part, k) or (part == "site" and not target):
                continue
            if not scale or kind == kinds.mjGEOM_PLANE:
                continue
            color = GOAL if target else _color(model, k, effector)
            if color in (ACCENT, GOAL):
                depth *= 0.9  # a fingertip is seen on the finger that it is part of
            turn = getattr(data, f"{part}_xmat")[k].reshape(3, 3)
            if kind == kinds.mjGEOM_SPHERE:
                yield depth, partial(canvas.circle, camera.project(at[None])[0], size[0] * scale, color)
            elif kind == kinds.mjGEOM_CAPSULE:
                ends = camera.project(at + np.outer([-1, 1], turn[:, 2] * size[1]))
                yield depth, partial(canvas.line, ends, color, 2 * size[0] * scale)
            else:
                if kind == kinds.mjGEOM_ELLIPSOID:
                    points = _rim(turn * size, camera.axes)
                else:
                    points = _corners(kind == kinds.mjGEOM_CYLINDER, size) @ turn.T
                yield depth, partial(canvas.polygon, _hull(camera.project(at + points)), color)
    for tendon in range(model.ntendon):
        first, count = data.ten_wrapadr[tendon], data.ten_wrapnum[tendon]
        points = data.wrap_xpos.reshape(-1, 3)[first : first + count]
        if count > 1 and camera.depth(points).min() > _NEAR:
            width = 2 * float(model.tendon_width[tendon]) * camera.scale(points[0])
            paint = partial(canvas.line, camera.project(points), MUTED, width)
            yield float(camera.depth(points).max()), paint


def _paint_plane(canvas: Canvas, camera: _Camera, model: Any, data: Any, k: int) -> None:
    """A plane, and on the ground lines that show when what follows a body moves."""
    at, turn = data.geom_xpos[k], data.geom_xmat[k].reshape(3, 3)
    half = np.where(model.geom_size[k][:2] > 0, model.geom_size[k][:2], np.inf)
    middle, reach = ((camera.at - at) @ turn)[:2], 8 * float(model.stat.extent)  # no farther than is seen
    low, high = np.maximum(middle - reach, -half), np.minimum(middle + reach, half)
    if (low >= high).any():
        return
    corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    ground = abs(turn[2, 2]) > 0.9
    _paint(canvas, camera, at + corners @ turn[:, :2].T, FAINT if ground else MUTED)
    if not ground:
        return
    pitch = float(model.stat.extent) / 2
    for axis in (0, 1):
        for line in np.arange(math.ceil(low[axis] / pitch), math.floor(high[axis] / pitch) + 1) * pitch:
            ends = np.array([low, high])
            ends[:, axis] = line
            wide = np.zeros(2)
            wide[axis] = 0.01 * model.stat.extent
            strip = np.array([ends[0] - wide, ends[1] - wide, ends[1] + wide, ends[0] + wide])
            _paint(canvas, camera, at + strip @ turn[:, :2].T, PAPER)


def _paint(canvas: Canvas, camera: _Camera, polygon: np.ndarray, color: str) -> None:
    """A polygon `[N, 3]`, as far as it lies before the camera (Sutherland and Hodgman's algorithm)."""
    depth = camera.depth(polygon) - _NEAR
    kept: list[np.ndarray] = []
    for k in range(len(polygon)):
        before, here = depth[k - 1], depth[k]
        if (before > 0) != (here > 0):
            kept.append(polygon[k - 1] + (polygon[k] - polygon[k - 1]) * before / (before - here))
        if here > 0:
            kept.append(polygon[k])
    if len(kept) > 2:
        canvas.polygon(camera.project(np.array(kept)), color)


def _corners(round_: bool, size: np.ndarray) -> np.ndarray:
    """Points of a cylinder (`round_`) or a box, whose convex hull it is."""
    if round_:
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        ring = np.stack([size[0] * np.cos(angle), size[0] * np.sin(angle), np.full(24, size[1])], -1)
        return np.concatenate([ring, ring * [1, 1, -1]])
    return np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * size


def _rim(ellipsoid: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """The points of an ellipsoid, its half axes as columns, that lie farthest in each direction seen."""
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    directions = np.outer(np.cos(angle), axes[:, 0]) + np.outer(np.sin(angle), axes[:, 1])
    within = directions @ ellipsoid
    return within / np.linalg.norm(within, axis=-1, keepdims=True) @ ellipsoid.T


def _hull(points: list[Point]) -> list[Point]:
    """The corners of the convex hull, in turn (Andrew's monotone chain)."""

    def chain(points: list[Point]) -> list[Point]:
        kept: list[Point] = []
        for x, y in points:
            while len(kept) > 1:
                (ax, ay), (bx, by) = kept[-2:]
                if (bx - ax) * (y - ay) > (by - ay) * (x - ax):
                    break
                kept.pop()
            kept.append((x, y))
        return kept[:-1]

    points = sorted({(float(x), float(y)) for x, y in points})
    return chain(points) + chain(points[::-1])


def _shown(model: Any, part: str, k: int) -> bool:
    material = getattr(model, f"{part}_matid")[k]
    rgba = model.mat_rgba[material] if material >= 0 else getattr(model, f"{part}_rgba")[k]
    seen = rgba[3] > 0 and getattr(model, f"{part}_rgba")[k][3] > 0
    return bool(seen and getattr(model, f"{part}_group")[k] < _SHOWN_GROUPS)


def _material(model: Any, part: str, k: int) -> str:
    material = getattr(model, f"{part}_matid")[k]
    return model.mat(material).name if material >= 0 else ""


def _color(model: Any, k: int, effector: bool) -> str:
    body, material = model.geom_bodyid[k], _material(model, "geom", k)
    if material == "effector" or (body == 1 and not effector):
        return ACCENT
    return MUTED if body == 0 or material == "decoration" else INK


@functools.lru_cache(maxsize=16)
def _data(model: Any) -> Any:
    return importlib.import_module("mujoco").MjData(model)
