"""Drawings of continuous worlds: classic control, point robots, planar arms."""

import math
from typing import Any

import numpy as np

from .draw_canvas import ACCENT, FAINT, GOAL, GOAL_FILL, INK, MUTED, PAPER, Canvas, Last


def _cartpole(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """A cart on its track. The pole is drawn longer than to scale: what matters is a small angle."""
    x_limit, angle_limit = float(params.x_threshold), float(params.theta_threshold_radians)
    scale = 0.42 / x_limit
    x, theta = 0.5 + float(state.x) * scale, float(state.theta)
    track, axle = 0.74, 0.66
    reach = 0.45 * min(max(float(params.length) / 0.5, 0.4), 1.25)
    failed = abs(float(state.x)) > x_limit or abs(theta) > angle_limit

    for side in (-1, 1):  # the angle beyond which the pole has fallen
        tip = (x + side * math.sin(angle_limit) * reach * 1.08, axle - math.cos(angle_limit) * reach * 1.08)
        canvas.line([(x, axle), tip], FAINT, 0.006)
    canvas.line([(0.03, track), (0.97, track)], MUTED, 0.008)
    for side in (-1, 1):
        end = 0.5 + side * x_limit * scale
        canvas.line([(end, track - 0.03), (end, track + 0.03)], INK, 0.012)
    canvas.box((x - 0.085, axle - 0.02), (0.17, 0.075), INK, radius=0.018)
    for wheel in (-0.05, 0.05):
        canvas.circle((x + wheel, track - 0.016), 0.02, PAPER, INK, 0.01)
    tip = (x + math.sin(theta) * reach, axle - math.cos(theta) * reach)
    canvas.line([(x, axle), tip], ACCENT, 0.03)
    canvas.circle((x, axle), 0.013, PAPER)
    if failed:
        canvas.text((0.5, 0.88), "fallen", 0.06, ACCENT)


def _pendulum(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """A rod about a pivot, zero upright, angles counter-clockwise; the arc is the torque."""
    length = 0.36 * min(max(float(params.l), 0.4), 1.2)
    theta = float(state.theta)
    pivot = (0.5, 0.5)
    canvas.circle(pivot, length, None, FAINT, 0.006)
    canvas.line([(0.5, 0.5 - length - 0.035), (0.5, 0.5 - length + 0.035)], GOAL, 0.014)
    tip = (0.5 - math.sin(theta) * length, 0.5 - math.cos(theta) * length)
    canvas.line([pivot, tip], INK, 0.045)
    canvas.circle(tip, 0.055, ACCENT)
    canvas.circle(pivot, 0.018, PAPER)
    torque = float(np.ravel(getattr(state, "last_u", 0.0))[0]) / float(params.max_torque)
    if abs(torque) > 0.02:
        sweep = -1.8 * max(-1.0, min(1.0, torque))  # counter-clockwise is negative on a y-down picture
        begin = math.pi / 2
        canvas.arc(pivot, 0.12, min(begin, begin + sweep), max(begin, begin + sweep), ACCENT)
        end = begin + sweep
        at = (0.5 + 0.12 * math.cos(end), 0.5 + 0.12 * math.sin(end))
        turn = math.copysign(0.05, sweep)
        canvas.arrow(at, (at[0] - turn * math.sin(end), at[1] + turn * math.cos(end)), ACCENT)


def _acrobot(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """Two links hanging from a pivot; the tip must swing above the dashed line."""
    first, second = float(params.link_length_1), float(params.link_length_2)
    scale = 0.42 / (first + second)
    pivot = (0.5, 0.5)
    height = pivot[1] - first * scale
    for k in range(16):
        canvas.line([(0.04 + k * 0.06, height), (0.065 + k * 0.06, height)], GOAL, 0.008)
    a, b = float(state.joint_angle1), float(state.joint_angle1) + float(state.joint_angle2)
    elbow = (pivot[0] + first * scale * math.sin(a), pivot[1] + first * scale * math.cos(a))
    tip = (elbow[0] + second * scale * math.sin(b), elbow[1] + second * scale * math.cos(b))
    canvas.line([pivot, elbow], INK, 0.045)
    canvas.line([elbow, tip], INK, 0.036)
    canvas.circle(pivot, 0.02, PAPER, INK, 0.01)
    canvas.circle(elbow, 0.018, PAPER, INK, 0.01)
    canvas.circle(tip, 0.035, ACCENT)


def _mountain_car(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """A car in the valley sin(3x), a flag at the goal."""
    low, high = float(params.min_position), float(params.max_position)
    scale = 0.92 / (high - low)

    def on_hill(position: float, lift: float = 0.0) -> tuple[float, float]:
        slope = 1.35 * math.cos(3 * position)
        norm = math.hypot(1.0, slope)
        x = 0.04 + (position - low) * scale
        y = 0.78 - (math.sin(3 * position) * 0.45 + 0.45) * scale
        return x - lift * slope / norm, y - lift / norm

    hill = [on_hill(p) for p in np.linspace(low, high, 80)]
    canvas.polygon([*hill, (hill[-1][0], 0.93), (hill[0][0], 0.93)], FAINT)
    canvas.line(hill, INK, 0.01)
    foot = on_hill(float(params.goal_position))
    pole = (foot[0], foot[1] - 0.15)
    canvas.line([foot, pole], INK, 0.009)
    canvas.polygon([pole, (pole[0] - 0.09, pole[1] + 0.03), (pole[0], pole[1] + 0.06)], GOAL)
    position = float(state.position)
    angle = math.atan(1.35 * math.cos(3 * position))
    right, up = (math.cos(angle), -math.sin(angle)), (-math.sin(angle), -math.cos(angle))
    base = on_hill(position, 0.035)

    def part(along: float, above: float) -> tuple[float, float]:
        return base[0] + along * right[0] + above * up[0], base[1] + along * right[1] + above * up[1]

    canvas.polygon(
        [
            part(*p)
            for p in ((-0.058, -0.008), (-0.055, 0.03), (0.045, 0.03), (0.058, 0.018), (0.058, -0.008))
        ],
        ACCENT,
    )
    canvas.polygon(
        [part(*p) for p in ((-0.04, 0.028), (-0.026, 0.058), (0.018, 0.058), (0.036, 0.028))], ACCENT
    )
    for along in (-0.032, 0.032):
        canvas.circle(part(along, -0.014), 0.02, PAPER, INK, 0.01)


def _point(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """A point in the plane, its goal, and the circle goals lie on."""
    radius = float(getattr(params, "circle_radius", 1.0))
    position, goal = np.ravel(state.pos).astype(float), np.ravel(state.goal).astype(float)
    # The frame grows with a robot that runs away rather than losing it.
    extent = max(1.35 * radius, 1.1 * float(np.abs(np.nan_to_num(position)).max()))
    scale = 0.48 / extent

    def at(point: np.ndarray) -> tuple[float, float]:
        return 0.5 + point[0] * scale, 0.5 - point[1] * scale

    canvas.line([(0.02, 0.5), (0.98, 0.5)], FAINT, 0.005)
    canvas.line([(0.5, 0.02), (0.5, 0.98)], FAINT, 0.005)
    canvas.arc((0.5, 0.5), radius * scale, math.pi, 2 * math.pi, MUTED, 0.006)
    canvas.circle(at(goal), max(float(getattr(params, "goal_radius", 0.1)) * scale, 0.015), GOAL_FILL, GOAL)
    canvas.circle(at(goal), 0.012, GOAL)
    velocity = getattr(state, "last_action", None)
    if velocity is not None and np.size(velocity) == 2:
        limit = float(getattr(params, "max_force", 1.0))
        tip = position + np.clip(np.ravel(velocity), -limit, limit) / limit * 0.25 * extent
        canvas.arrow(at(position), at(tip), INK, 0.01)
    canvas.circle(at(position), 0.034, ACCENT)


def _point_mass(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """A point and its goal in the square [−1, 1]²."""
    scale = 0.44

    def at(point: Any) -> tuple[float, float]:
        x, y = np.ravel(point).astype(float)
        return 0.5 + x * scale, 0.5 - y * scale

    canvas.box((0.5 - scale, 0.5 - scale), (2 * scale, 2 * scale), "#ffffff", MUTED, 0.006, 0.012)
    canvas.line([(0.5 - scale, 0.5), (0.5 + scale, 0.5)], FAINT, 0.005)
    canvas.line([(0.5, 0.5 - scale), (0.5, 0.5 + scale)], FAINT, 0.005)
    goal = at(state.goal)
    canvas.circle(goal, 0.05, GOAL_FILL, GOAL, 0.01)
    canvas.circle(goal, 0.012, GOAL)
    if last.action is not None and np.size(last.action) == 2:
        push = np.clip(np.ravel(last.action).astype(float), -1, 1) * 0.3
        canvas.arrow(at(state.position), at(np.ravel(state.position) + push), INK, 0.01)
    canvas.circle(at(state.position), 0.034, ACCENT)


def _reacher(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """A planar arm of unit links; gymnax's joint angles are absolute, not relative to the last link."""
    angles = np.ravel(state.angles).astype(float)
    scale = 0.46 / max(len(angles), 1)
    points = [(0.5, 0.5)]
    for angle in angles:
        x, y = points[-1]
        points.append((x + scale * math.cos(angle), y - scale * math.sin(angle)))
    canvas.circle((0.5, 0.5), scale * len(angles), None, FAINT, 0.006)
    goal = (0.5 + float(state.goal_xy[0]) * scale, 0.5 - float(state.goal_xy[1]) * scale)
    canvas.circle(goal, 0.05, GOAL_FILL, GOAL, 0.01)
    for k in range(len(angles)):
        canvas.line(points[k : k + 2], INK, 0.04 - 0.006 * min(k, 3))
    for joint in points[:-1]:
        canvas.circle(joint, 0.018, PAPER, INK, 0.01)
    canvas.circle(points[-1], 0.034, ACCENT)


def _swimmer(canvas: Canvas, env: Any, state: Any, params: Any, last: Last) -> None:
    """gymnax's swimmer: a point among urchins that punish closeness."""
    scale = 0.4

    def at(point: Any) -> tuple[float, float]:
        return 0.5 + float(point[0]) * scale, 0.5 - float(point[1]) * scale

    for urchin in np.asarray(state.urchin_xys):
        x, y = at(urchin)
        for k in range(8):
            turn = k * math.pi / 4
            canvas.line([(x, y), (x + 0.045 * math.cos(turn), y + 0.045 * math.sin(turn))], INK, 0.006)
        canvas.circle((x, y), 0.024, INK)
    canvas.circle(at(state.goal_xy), 0.05, GOAL_FILL, GOAL, 0.01)
    canvas.circle(at(state.xy), 0.034, ACCENT)


DRAWINGS = {
    "CartPole": _cartpole,
    "Pendulum": _pendulum,
    "Acrobot": _acrobot,
    "MountainCar": _mountain_car,
    "ContinuousMountainCar": _mountain_car,
    "PointRobot": _point,
    "PointMass": _point_mass,
    "Reacher": _reacher,
    "Swimmer": _swimmer,
}
