"""Every registered probe: fixed by its key, well formed, no ties, no leaks, and with honest scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.probes import make_probe, picture, probe_env, probe_names
from resetta.envs.probes.base import FLAGS

NAMES = [name for name in probe_names() if not make_probe(name).closed_loop]
CLASSES = [*{type(make_probe(name)): name for name in reversed(NAMES)}.values()]  # the first name of each


def episodes(name):
    """How many are drawn; films are large."""
    return 3000 if make_probe(name).width < 200 else 300


@functools.cache
def drawn(name):
    """A probe and `episodes` of it, on the host."""
    probe = make_probe(name)
    batch = jax.jit(lambda key: probe.sequences(key, episodes(name)))(jax.random.key(0))
    return probe, jax.tree.map(np.asarray, batch)


@functools.cache
def single(name):
    probe = make_probe(name)
    return jax.tree.map(
        np.asarray, jax.jit(probe.episode)(jax.random.split(jax.random.key(0), episodes(name))[7])
    )


def mean_and_error(scores):
    return scores.mean(), scores.std(ddof=1) / np.sqrt(len(scores))


@pytest.mark.parametrize("name", CLASSES)
def test_a_key_fixes_the_episode_and_a_batch_is_its_episodes(name):
    _, batch = drawn(name)
    for one, many in zip(jax.tree.leaves(single(name)), jax.tree.leaves(batch), strict=True):
        np.testing.assert_allclose(one, many[:, 7], atol=1e-6)
    assert batch.tokens.std(1).any()


@pytest.mark.parametrize("name", NAMES)
def test_episodes_are_well_formed(name):
    probe, e = drawn(name)
    steps, rows = probe.length, episodes(name)
    assert e.tokens.shape == (steps, rows, probe.width)
    assert e.tokens.dtype == np.float32
    assert e.targets.shape == e.mask.shape == e.reset.shape == (steps, rows)
    assert e.payoff.shape == (steps, rows, probe.num_answers)
    assert np.isfinite(e.tokens).all()
    assert e.mask.any(0).all()
    assert ((e.targets >= 0) & (e.targets < probe.num_answers)).all()
    assert (e.payoff[~e.mask] == 0).all()
    flags = np.stack([probe.field(e.tokens, flag) for flag in FLAGS])
    assert (flags[:3].sum(0) == 1).all()
    assert (e.reset == (flags[3] == 1)).all()  # a core that is told may trust the flag
    assert e.reset[0].all()
    assert e.reset.sum() == probe.trials * rows
    for field in probe.fields:
        part = probe.field(e.tokens, field)
        if np.isin(part, (0, 1)).all() and field not in ("values", "frame", "present"):
            assert (part.sum(-1) <= 1).all(), field


@pytest.mark.parametrize("name", NAMES)
def test_the_target_pays_best_and_nothing_ties_with_it(name):
    probe, e = drawn(name)
    paid = np.take_along_axis(e.payoff, e.targets[..., None], -1)[..., 0]
    assert (paid[e.mask] == e.payoff.max(-1)[e.mask]).all()
    if name != "regular_language":  # several symbols may follow
        best = (e.payoff == paid[..., None]).sum(-1)
        assert (best[e.mask] == 1).all()
    best = np.asarray(probe.score(e, e.targets))
    mean, error = mean_and_error(best)
    reference = probe.reference()
    if reference.exact:
        assert abs(mean - reference.value) <= 4 * error + 1e-5
    else:
        assert mean >= reference.value - 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_random_answers_score_what_is_said(name):
    probe, e = drawn(name)
    if probe.prefix:
        answers = np.random.default_rng(1).integers(0, probe.num_answers, e.targets.shape)
        scores = np.asarray(probe.score(e, answers))
    else:  # the mean over answers has the same expectation and less spread
        scores = e.payoff.mean(-1).sum(0)
    mean, error = mean_and_error(scores)
    known = probe.random()
    assert abs(mean - known.value) <= 4 * np.hypot(error, known.std_error) + 1e-6


def memoryless(probe, e):
    """The answers of the best policy of the present token that half of the episodes teach, on the others.

    A table of tokens where there are few, else the best of linear functions of the token.
    """
    half = e.targets.shape[1] // 2
    learn, test = (
        {k: v[:, part] for k, v in e._asdict().items() if v is not None}
        for part in (slice(half), slice(half, None))
    )
    seen, paid = learn["tokens"][learn["mask"]], learn["payoff"][learn["mask"]]
    asked = test["tokens"][test["mask"]]
    rows, index = np.unique(seen, axis=0, return_inverse=True)
    discrete = len(rows) <= 400
    if discrete:
        worth = np.zeros((len(rows), probe.num_answers))
        np.add.at(worth, index.ravel(), paid)
        table = {row.tobytes(): answer for row, answer in zip(rows, worth.argmax(1), strict=True)}
        chosen = np.array([table.get(row.tobytes(), 0) for row in asked])
    else:
        design = np.c_[seen, np.ones(len(seen))]
        weights = np.linalg.solve(design.T @ design + np.eye(design.shape[1]), design.T @ paid)
        chosen = (np.c_[asked, np.ones(len(asked))] @ weights).argmax(1)
    answers = np.zeros(test["mask"].shape, int)
    answers[test["mask"]] = chosen
    return np.asarray(probe.score(type(e)(**test), answers)), discrete


# What is judged are laws in `test_language`, pools of episodes in `test_retrieval`.
ANSWERED = [name for name in NAMES if make_probe(name).together == 1 and name != "regular_language"]


@pytest.mark.parametrize("name", ANSWERED)
def test_nothing_without_memory_exceeds_blind(name):
    probe, e = drawn(name)
    scores, discrete = memoryless(probe, e)
    mean, error = mean_and_error(scores)
    blind = probe.blind()
    assert mean <= blind.value + 4 * np.hypot(error, blind.std_error)
    if discrete and not probe.prefix:  # and blind is no more than can be had
        assert mean >= blind.value - 4 * np.hypot(error, blind.std_error) - 0.02
    assert probe.random().value <= blind.value + 1e-9 < probe.reference().value
    assert probe.normalize(blind.value) == 0
    assert probe.normalize(probe.reference().value) == 1


@pytest.mark.parametrize("name", ["needle", "graph_walk", "repeat_previous", "interference"])
def test_the_environment_shows_and_pays_the_same(name):
    key = jax.random.split(jax.random.key(0), episodes(name))[7]
    base_env = probe_env(name)
    probe, episode = make_probe(name), single(name)
    steps = base_env.max_steps
    assert steps == probe.length // probe.trials
    rng = np.random.default_rng(0)
    # Right at first, so that a prefix is more than nothing.
    guesses = rng.integers(0, probe.num_answers, probe.length)
    answers = np.where(np.arange(probe.length) < probe.length - 5, episode.targets, guesses)

    @jax.jit
    def trial(key, answers):
        observation, state = base_env.reset(key, base_env.params)

        def step(carry, answer):
            observation, state = carry
            new, state, reward, terminated, truncated = base_env.step(key, state, answer, base_env.params)
            return (new, state), (observation, reward, terminated, truncated)

        return jax.lax.scan(step, (observation, state), answers)[1]

    seen, reward, terminated, truncated = trial(key, jnp.asarray(answers[:steps]))
    np.testing.assert_allclose(seen, episode.tokens[:steps], atol=1e-6)
    assert terminated.tolist() == [False] * (steps - 1) + [True]
    assert not truncated.any()
    if probe.trials == 1:
        np.testing.assert_allclose(reward.sum(), probe.score(episode, answers), atol=1e-6)
    else:
        np.testing.assert_allclose(reward.sum(), 1, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_probe_has_a_picture(name):
    probe, batch = drawn(name)
    e = jax.tree.map(lambda part: part[:, 7], batch)
    plain = picture(probe, e, columns=32, cell=4)
    assert plain.dtype == np.uint8
    assert plain.shape[1] == 32 * 4
    wrong = (e.targets + e.mask) % probe.num_answers
    assert len(np.unique(plain.reshape(-1, 3), axis=0)) >= 4
    marks = [
        (picture(probe, e, given, columns=32, cell=4) == (0xD0, 0, 0)).all(-1) for given in (wrong, e.targets)
    ]
    assert marks[0].any()
    assert not marks[1].any()


def test_a_picture_is_of_one_episode():
    probe, e = drawn("needle")
    with pytest.raises(ValueError, match="draw one at a time"):
        picture(probe, e)
