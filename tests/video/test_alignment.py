"""A world whose action sets the next frame's colour is learnt exactly, and under the right alignment only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.video.clip import ActionSpace, to_float
from resetta.video.decode import write_video
from resetta.video.folder import load_folder
from resetta.video.learner import Learner, trained
from resetta.video.rollout import rollout
from resetta.video.stream import Windows, read_windows

COLOURS = np.array([24, 88, 152, 216], np.uint8)
SIZE, FRAMES, BATCH, CONTEXT, STEPS = 8, 12, 8, 3, 80


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def draw(seed):
    """Frames, and the action that led to each: nothing else says which colour comes next."""
    led = np.random.default_rng(seed).integers(0, 4, FRAMES)
    return np.broadcast_to(COLOURS[led][:, None, None, None], (FRAMES, SIZE, SIZE, 3)), led


def teco(folder, count):
    """As TECO's files have them: the action in place t led to frame t."""
    for k in range(count):
        video, led = draw(k)
        np.savez(folder / f"{k}.npz", video=video, actions=led)


def beside(folder, count):
    """Videos with an npz beside each: the action in place t leads to frame t + 1."""
    for k in range(count):
        video, led = draw(k)
        write_video(folder / f"{k}.mkv", video, codec="ffv1")
        np.savez(folder / f"{k}.npz", actions=np.append(led[1:], 0))


class Table:
    """The smallest model there is: the next frame has the colour that its table has for the action."""

    size, channels, actions, streams = SIZE, 3, ActionSpace("discrete", 4), False

    def init(self, key):
        return jnp.zeros(4)

    def initial_memory(self, batch):
        return ()

    def loss(self, variables, memory, clip, key):
        predicted = variables["params"][clip.actions[:-1]][..., None, None, None]
        return jnp.mean(jnp.square(to_float(clip.frames[1:]) - predicted)), memory

    def condition(self, variables, clip):
        return ()

    def step(self, variables, memory, action, key):
        colour = variables["params"][action][:, None, None, None]
        return memory, jnp.broadcast_to(colour, (len(action), SIZE, SIZE, 3))


MODEL = Table()
LEARNER = Learner(MODEL, batch=BATCH, total_steps=STEPS, lr=0.1, ema=0)
update = jax.jit(LEARNER.update)


@pytest.mark.parametrize(
    ("write", "actions", "right"),
    [(teco, None, True), (teco, "next", False), (beside, None, True), (beside, "previous", False)],
)
def test_the_next_colour_is_learnt_under_the_right_alignment_only(tmp_path, write, actions, right):
    write(tmp_path, 12)
    data = load_folder(tmp_path, size=SIZE, backend="pyav", actions=actions)
    assert data.actions == MODEL.actions
    windows, state = Windows(data, "train", BATCH, FRAMES), LEARNER.init()
    for step in range(STEPS):
        state, _ = update(state, (), read_windows(data, "train", *windows.at(step), FRAMES))
    ids = np.arange(data.count("test"))
    clip = read_windows(data, "test", ids, np.zeros_like(ids), FRAMES)
    context = jax.tree.map(lambda leaf: leaf[:CONTEXT], clip)
    led = clip.actions[CONTEXT - 1 : -1]
    variables = {"params": trained(state), "frozen": ()}
    pieces = rollout(MODEL, variables, context, led, FRAMES - CONTEXT, jax.random.key(0))
    off = np.abs(np.concatenate([*pieces]).astype(int) - clip.frames[CONTEXT:])
    exact = (off <= 1).all((2, 3, 4)).mean()
    if right:
        assert exact == 1
    else:
        assert exact < 0.5
        assert off.mean() > 30
