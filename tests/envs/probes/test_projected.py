"""P1: a controller's doings behind projections, and what can be had without memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resetta.envs.probes import make_probe, picture
from resetta.envs.probes.projected import Projected

WHICH = ("random", "blind", "reference")
PLAYED = 256  # meta-episodes of two trials for every policy
SIZES = {"cartpole": 200, "pendulum": 200, "point_mass": 50}


def made(task, **options) -> Projected:
    steps = SIZES[task]
    options = {"length": 2 * steps, "steps": steps, **options}
    return make_probe(f"projected_{task}", **options)  # pyright: ignore


@functools.cache
def player(task):
    """Plays many meta-episodes under a policy of `WHICH` (by number) or a blind one with another bias."""
    probe = made(task)

    @jax.jit
    def play(which, bias, keys):
        def act(memory, key, token, state):
            memory, reference = probe.reference_policy(memory, key, token, state)
            blind = probe.blind_policy(key, token[None])[0]
            if task == "cartpole":  # repeat (bias below 0) or alternate, where the observation says little
                last = probe.field(token, "action")
                other = (token[0] > bias * (last[1] - last[0])).astype(jnp.int32)
                blind = jnp.where(bias == 0, blind, other)
            answers = jnp.stack([probe.random_policy(key, token[None])[0], blind, reference])
            return memory, answers[which]

        return jax.vmap(lambda key: probe.rollout(key, probe.reference_memory, act))(keys)

    def several(which, bias=0.0):
        keys = jax.random.split(jax.random.key(3), PLAYED)
        return jax.tree.map(np.asarray, play(WHICH.index(which), bias, keys))

    return probe, several


def close(scores, expected, theirs=0.0, rounding=0.0):
    error = np.hypot(scores.std(ddof=1) / np.sqrt(len(scores)), theirs)
    assert abs(scores.mean() - expected) <= 4 * error + rounding, (scores.mean(), expected, error)


@pytest.mark.parametrize("task", SIZES)
def test_policies_score_what_is_said(task):
    _, play = player(task)
    whole = make_probe(f"projected_{task}")
    for which in WHICH:
        known = getattr(whole, which)()
        assert "16384 episodes" in known.note
        close(play(which)[2], known.value, known.std_error, 1e-5)
    assert whole.random().value < whole.blind().value
    # without memory there is much to be had, yet far from all
    assert whole.blind().value < whole.random().value + 0.5 * (whole.reference().value - whole.random().value)


def test_the_figures_are_the_specifications():
    # Its own were simulated with 2,000, 500 and 2,000 trials; its actions were continuous.
    known = {task: make_probe(f"projected_{task}") for task in SIZES}
    scores = player("cartpole")[1]("random")[2]
    close(scores, 0.112, 0.06 / np.sqrt(2000), 5e-4)
    assert known["cartpole"].reference().value == pytest.approx(1, abs=1e-5)
    assert abs(known["pendulum"].reference().value * 200 + 140) < 20
    assert abs(known["pendulum"].random().value * 200 + 1232) < 4 * 294 / np.sqrt(500)
    assert abs(known["point_mass"].random().value - 0.247) < 0.02
    assert 0.92 < known["point_mass"].reference().value < 0.952  # no grid comes nearer


@pytest.mark.parametrize("bias", [-0.1, -0.03, 0.03, 0.1, 10.0])
def test_no_other_bias_balances_poles_better_without_memory(bias):
    blind, (_, _, scores) = make_probe("projected_cartpole").blind(), player("cartpole")[1]("blind", bias)
    error = scores.std() / np.sqrt(len(scores))
    assert scores.mean() <= blind.value + 4 * np.hypot(error, blind.std_error)


@pytest.mark.parametrize("task", SIZES)
def test_the_history_holds_what_was_done_and_no_projection_twice(task):
    probe, play = player(task)
    tokens, answers, _ = play("reference")
    done = probe.field(tokens, "action")
    assert (done[:, 0] == 0).all()
    sent = np.eye(2)[answers] if task == "cartpole" else np.asarray(probe.sent(answers))
    np.testing.assert_array_equal(done[:, 1:], sent[:, :-1])
    begins = probe.field(tokens, "trial")[..., 0] > 0
    assert (begins.sum(0)[[0, SIZES[task]]] == PLAYED).all()
    assert begins.sum() == 2 * PLAYED
    # an episode's observations span its projection: no other episode's lie in it
    seen = probe.field(tokens, "observation")
    bases = np.linalg.svd(seen, full_matrices=False)[2][:, : 3 if task == "pendulum" else 4]
    within = np.linalg.norm(np.einsum("nkd,ntd->ntk", bases, seen), axis=-1) / np.linalg.norm(seen, axis=-1)
    across = np.linalg.norm(np.einsum("nkd,ntd->ntk", bases[1:], seen[:-1]), axis=-1)
    assert (within > 0.99).all()
    assert (across / np.linalg.norm(seen[:-1], axis=-1)).mean() < 0.9


def readable(probe, tokens, answers):
    """How often a linear reading of the first trial's observations says what to do in the second."""
    right = []
    for seen, target in zip(probe.field(tokens, "observation"), 2 * answers - 1, strict=True):
        weights = np.linalg.lstsq(seen[:200], target[:200], rcond=1e-4)[0]
        right.append(((seen[200:] @ weights > 0) == (target[200:] > 0)).mean())
    return np.mean(right)


def test_a_first_trial_tells_what_to_do_in_a_second_unless_noise_hides_it():
    probe, play = player("cartpole")
    tokens, answers, _ = play("reference")
    clear = readable(probe, tokens, answers)
    assert clear > 0.85
    # of another episode's projection it tells nothing
    assert abs(readable(probe, np.concatenate([tokens[:, :200], tokens[::-1, 200:]], 1), answers) - 0.5) < 0.1
    keys = jax.random.split(jax.random.key(5), tokens.shape[:2])
    scores = [clear]
    for noise in (0.3, 1.0):
        hide = functools.partial(made("cartpole", noise=noise).shown, state=None)  # pyright: ignore
        scores.append(readable(probe, np.asarray(jax.vmap(jax.vmap(hide))(keys, tokens)), answers))
    assert scores[0] > scores[1] + 0.05 > scores[2] + 0.1


def test_depth_is_the_number_of_the_trial_that_counts():
    length = {"length": 1600}
    worth = [np.asarray(made("cartpole", depth=d, **length).worth(jnp.arange(8))) for d in (0.0, 0.5, 1.0)]
    assert [each.argmax() for each in worth] == [0, 4, 7]
    assert all(np.count_nonzero(each) == 1 and each.max() == np.float32(1 / 200) for each in worth)
    assert made("cartpole", **length).worth(jnp.int32(3)) == np.float32(1 / 1600)


def test_a_key_fixes_the_episode_and_it_has_a_picture():
    probe = made("point_mass", length=20, steps=10)
    draw = jax.jit(probe.sequences, static_argnums=1)
    first, again, other = (draw(jax.random.key(seed), 2) for seed in (0, 0, 1))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (np.asarray(first.tokens) != np.asarray(other.tokens)).any()
    assert first.mask.all()
    assert (np.flatnonzero(first.reset[:, 0]) == [0]).all()
    assert first.payoff.shape == (20, 2, 25)
    done, wanted = probe.field(first.tokens, "action")[1:], probe.sent(first.targets[:-1])
    agrees = np.asarray((done == wanted).all(-1))
    assert 0.1 < agrees.mean() < 0.9  # what is wanted is not all that was done
    episode = jax.tree.map(lambda leaf: np.asarray(leaf[:, 0]), first)
    assert picture(probe, episode).dtype == np.uint8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 450}, "length=450 of Projected is not a number of trials of 200 steps; use 400"),
        ({"task": "acrobot"}, "task=acrobot of Projected is unknown; choose from cartpole, pendulum"),
        ({"astray": 1.5}, "astray=1.5 of Projected must be a share, 0 to 1"),
        ({"levels": 4}, "levels=4 of Projected must be odd"),
        ({"depth": 2.0}, "depth=2.0 of Projected must be 0 .first trial. to 1"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        make_probe("projected_cartpole", **options)
