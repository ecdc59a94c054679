"""Pictures of brax states, through MuJoCo's renderer and without a display where EGL can be had."""

import copy
import functools
import importlib
import os
import sys
from typing import Any

import numpy as np
from jaxtyping import UInt8

from .draw_canvas import ACCENT, FAINT, INK, PAPER

_CURE = (
    "install EGL (Debian and Ubuntu: apt-get install libegl1 libegl-mesa0; NVIDIA's driver brings its own), "
    "or choose another of MuJoCo's backends with the environment variable MUJOCO_GL"
)


def draw_brax(env: Any, state: Any, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """One state of a brax environment as a picture of `size` (height, width), the camera following the body.

    Raises `RuntimeError`, with what to install, where MuJoCo finds no way to render off screen.
    """
    renderer, data, camera = _renderer(env, *size)
    mujoco: Any = importlib.import_module(
        "mujoco"
    )  # its names are made at run time: nothing to check them against

    physics = state.simulated.pipeline_state
    data.qpos, data.qvel = np.asarray(physics.q), np.asarray(physics.qd)
    mujoco.mj_forward(renderer.model, data)
    if not camera.distance:
        camera.distance = _reach(renderer.model, data)
    renderer.update_scene(data, camera=camera)
    picture = renderer.render().copy()
    # Nothing that is lit is quite black, so black is where nothing was drawn.
    picture[~picture.any(axis=-1)] = _rgb(PAPER)
    return picture


@functools.lru_cache(maxsize=4)  # a renderer costs tenths of a second and a frame buffer
def _renderer(env: Any, height: int, width: int) -> tuple[Any, Any, Any]:
    _prefer_egl()
    mujoco: Any = importlib.import_module("mujoco")

    model = copy.copy(env.brax_env.sys.mj_model)  # its colours change below
    view = model.vis.global_
    view.offheight, view.offwidth = max(view.offheight, height), max(view.offwidth, width)
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.55, 0.45
    floor = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    # brax's chequered floor, which shows motion under a camera that follows, and its sky: kept, but pale.
    model.tex_data[:] = 120 + model.tex_data // 2
    model.mat_rgba[:, :3], model.mat_reflectance[:], model.mat_specular[:] = 0.62, 0.0, 0.0
    model.geom_matid[~floor] = -1
    model.geom_rgba[:, :3] = _rgb(INK) / 255
    model.geom_rgba[model.geom_bodyid == 1, :3] = _rgb(ACCENT) / 255
    model.geom_rgba[floor] = (*(_rgb(FAINT) / 255), 1.0)
    try:
        renderer = mujoco.Renderer(model, height, width)
    except (
        Exception
    ) as error:  # each backend fails in its own way: ImportError, RuntimeError, OpenGL's errors
        reason = " ".join(str(error).split())[:200]
        raise RuntimeError(f"MuJoCo cannot render {env.name} on this machine ({reason}); {_CURE}") from error
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    if model.nbody > 1:  # body 0 is the world; the next is the torso, or whatever carries the rest
        camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        camera.trackbodyid = 1
    camera.elevation, camera.distance = -18.0, 0.0
    return renderer, mujoco.MjData(model), camera


def _reach(model: Any, data: Any) -> float:
    """How far away a camera sees all that moves. The model's own extent counts its endless floor."""
    moving = model.geom_bodyid > 0
    away = np.linalg.norm(data.geom_xpos[moving] - data.xpos[1], axis=-1) + model.geom_rbound[moving]
    return 2.6 * float(min(away.max(), 4.0))


def _rgb(color: str) -> np.ndarray:
    return np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)], np.uint8)


def _prefer_egl() -> None:
    """Has MuJoCo render through EGL unless the user chose otherwise or there is a display to draw to.

    MuJoCo reads MUJOCO_GL when it is imported, which brax has done long before a picture is wanted, so the
    context class is put in place by hand in that case.
    """
    if not sys.platform.startswith("linux") or os.environ.get("MUJOCO_GL") or os.environ.get("DISPLAY"):
        return
    os.environ["MUJOCO_GL"] = "egl"
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    if "mujoco" in sys.modules:
        try:
            from mujoco.egl import GLContext
            from mujoco.rendering.classic import gl_context
        except (ImportError, AttributeError, OSError) as error:  # PyOpenGL without a libEGL: AttributeError
            del os.environ["MUJOCO_GL"]
            reason = " ".join(str(error).split())[:200]
            raise RuntimeError(
                f"MuJoCo cannot render brax environments on this machine ({reason}); {_CURE}"
            ) from error
        gl_context.GLContext = GLContext
