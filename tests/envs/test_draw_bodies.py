"""Bodies in pictures: where a pinhole camera sees them, as large as it sees them, whatever their shape."""

from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from resetta.envs.draw_bodies import _hull, draw_bodies
from resetta.envs.draw_canvas import ACCENT, FAINT, GOAL, INK, MUTED, PAPER, Canvas

SIDE = 200
# Two units away and a field of view of 90 degrees: the picture is four units wide where the origin is.
CAMERA = '<camera pos="0 -2 0" xyaxes="1 0 0 0 0 1" fovy="90"/>'


def picture(bodies, qpos=(), mocap=(), camera=CAMERA):
    """What the camera sees of `bodies`, MuJoCo's XML."""
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><statistic extent='2'/><asset><material name='target'/><material name='effector'/></asset>"
        f"<worldbody>{camera}{bodies}</worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mocap_pos = np.array(mocap, float).reshape(data.mocap_pos.shape) if len(mocap) else data.mocap_pos
    canvas = Canvas((SIDE, SIDE))
    qpos = np.asarray(qpos, float) if len(qpos) else data.qpos
    draw_bodies(canvas, model, SimpleNamespace(qpos=qpos, mocap_pos=mocap_pos, mocap_quat=data.mocap_quat))
    return canvas.pixels()


def where(pixels, color, tolerance=60):
    rgb = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
    return np.abs(pixels.astype(int) - rgb).max(-1) <= tolerance


def middle_and_area(pixels, color):
    """The middle (right, down) of a colour's pixels, in units of length at the origin, and their area."""
    rows, columns = np.nonzero(where(pixels, color))
    unit = SIDE / 4
    return (columns.mean() + 0.5) / unit - 2, (rows.mean() + 0.5) / unit - 2, len(rows) / unit**2


@pytest.mark.parametrize(
    ("geom", "area"),
    [
        ('type="sphere" size=".4"', np.pi * 0.4**2),
        ('type="capsule" size=".3 .5"', np.pi * 0.3**2 + 0.6),
        ('type="capsule" size=".3 .5" euler="0 90 0"', np.pi * 0.3**2 + 0.6),
        ('type="ellipsoid" size=".4 .4 .4"', np.pi * 0.4**2),
        ('type="ellipsoid" size=".2 .1 .6"', np.pi * 0.2 * 0.6),
        ('type="ellipsoid" size=".2 .1 .6" euler="0 60 0"', np.pi * 0.2 * 0.6),
        ('type="box" size=".4 .01 .2"', 0.32),
        ('type="box" size=".4 .01 .2" euler="0 30 0"', 0.32),
        ('type="cylinder" size=".4 .01" euler="90 0 0"', np.pi * 0.4**2),
        ('type="cylinder" size=".01 .4" euler="0 20 0"', 0.016),
    ],
)
def test_shapes_are_where_they_are_and_as_large_as_they_are(geom, area):
    """Flat or small in depth, so that the far and the near are of one size; to the right and above."""
    right, down, seen = middle_and_area(picture(f'<body pos=".5 0 .7"><geom {geom}/></body>'), ACCENT)
    assert (right, down) == pytest.approx((0.5, -0.7), abs=0.02)
    assert seen == pytest.approx(area, rel=0.06, abs=0.004)


def test_what_is_twice_as_far_is_half_as_large():
    body = '<body pos="0 {} 0"><geom type="sphere" size=".4"/></body>'
    near, far = (middle_and_area(picture(body.format(y)), ACCENT)[2] for y in (0, 2))
    assert far == pytest.approx(near / 4, rel=0.05)
    assert not where(picture(body.format(-4)), ACCENT).any()  # behind the camera


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=12, unique=True))
def test_a_hull_is_that_of_scipy(points):
    x, y = np.array(points).T
    assume(np.linalg.matrix_rank(np.stack([x - x[0], y - y[0]])) == 2)
    hull = np.array(_hull(points))
    right, down = hull.T
    area = 0.5 * (right * np.roll(down, -1) - down * np.roll(right, -1)).sum()
    assert area == pytest.approx(ConvexHull(np.array(points)).volume)
    assert {*map(tuple, hull.astype(int).tolist())} <= {*points}


def test_without_a_camera_all_is_seen_from_the_side():
    """Two extents (of 2 here) away, two extents wide, and centred on the bodies."""
    ends = "".join(f'<body pos="{x} 0 {z}"><geom size=".1"/></body>' for x, z in ((-0.5, 0), (0.5, 0.4)))
    pixels = picture(ends, camera="")
    first, second = (middle_and_area(pixels, color) for color in (ACCENT, INK))
    assert first[:2] == pytest.approx((-0.5, 0.2), abs=0.03)
    assert second[:2] == pytest.approx((0.5, -0.2), abs=0.03)


def test_what_is_near_hides_what_is_far_and_the_state_moves_it():
    bodies = (
        '<body pos="0 1 0"><joint type="slide" axis="1 0 0"/><geom type="box" size=".6 .1 .6"/></body>'
        '<body pos="0 0 0"><geom type="sphere" size=".3"/></body>'
    )
    hidden = picture(bodies, [0.0])
    assert where(hidden, INK)[SIDE // 2, SIDE // 2]
    assert where(hidden, ACCENT).any()
    right, *_ = middle_and_area(picture(bodies, [1.5]), ACCENT)
    assert right == pytest.approx(1.5 * 2 / 3, abs=0.05)  # three units away


def test_who_is_loud_what_is_sought_and_what_is_not_shown():
    hand = '<body pos="0 0 .8"><geom type="sphere" size=".2" {}/></body>'
    arm = f'<body><geom type="capsule" size=".1 .4"/>{hand}</body>'
    plain, tipped = picture(arm.format("")), picture(arm.format('material="effector"'))
    assert middle_and_area(plain, ACCENT)[1] == pytest.approx(0.0, abs=0.1)  # the first body
    assert middle_and_area(tipped, ACCENT)[1] == pytest.approx(-0.8, abs=0.02)  # the effector alone
    goal = '<body name="goal" mocap="true"><site type="sphere" size=".2" material="target"/></body>'
    assert middle_and_area(picture(goal, mocap=[[-1, 0, 1]]), GOAL)[:2] == pytest.approx((-1, -1), abs=0.02)
    for nothing in ('group="3"', 'rgba="1 1 1 0"'):
        assert where(picture(f'<geom type="sphere" size=".4" {nothing}/>'), PAPER, 5).all()


def test_the_ground_reaches_to_its_end_and_walls_stand_on_it():
    """Half a unit below the camera, its far edge 4 units away: half a unit of the 8 that are seen there."""
    ground = picture('<geom type="plane" size="9 2 1" pos="0 0 -.5"/>')
    rows = np.flatnonzero(where(ground, FAINT, 8).any(1))
    assert rows.min() == pytest.approx(SIDE * (0.5 + 0.5 / 8), abs=1)
    endless = picture('<geom type="plane" size="0 0 1" pos="0 0 -.5"/>')
    assert where(endless, FAINT, 8)[-1].any()
    assert np.flatnonzero(where(endless, FAINT, 8).any(1)).min() < rows.min()
    wall = picture('<geom type="plane" size=".5 .5 1" zaxis="0 -1 0"/>')
    assert middle_and_area(wall, MUTED) == pytest.approx((0, 0, 1), abs=0.03)
