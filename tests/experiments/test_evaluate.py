"""Which base environments of a mix an evaluation plays."""

from types import SimpleNamespace

import numpy as np
import pytest

from resetta.experiments import evaluate
from resetta.experiments.compose import compose
from resetta.experiments.config import train_config
from resetta.experiments.errors import InputError

CATCH, CARTPOLE = "cartpole_catch", "stateless_cartpole_easy"


@pytest.fixture
def ask(monkeypatch):
    """A function that evaluates an agent which never moves, and gives the summary of eval.json."""

    normalized = {CATCH: 0.5}

    def play(env, player, state, ids):
        names = np.concatenate([np.repeat(lane.family.base.name, lane.count) for lane in env.lanes])
        zeros = np.zeros((len(ids), env.trials))
        return {
            "returns": zeros[None],
            "normalized": zeros[None] + np.array([normalized[name] for name in names])[:, None],
            "task_ids": ids,
            "envs": names,
            "random": zeros,
        }

    monkeypatch.setattr(evaluate, "_player", lambda *_: None)
    monkeypatch.setattr(evaluate, "_play", play)
    state = SimpleNamespace(update=np.zeros(1, int))

    def asked(only, splits=("train", "held_out"), rest=0.0, **env):
        normalized[CARTPOLE] = rest
        mix = f"++env.lanes.{CARTPOLE}={{}}"
        overrides = [f"env.{name}={value}" for name, value in env.items()]
        config = train_config(compose("train", ["env=meta_cartpole_catch", mix, "trials=1", *overrides]))
        summary = evaluate.evaluate_agent(None, config, state, splits=splits, only=only, tasks=4)[1]
        return {split: part["base_environments"] for split, part in summary["splits"].items()}, summary

    return asked


@pytest.mark.parametrize("none", [None, []])
def test_a_mix_is_played_whole(ask, none):
    found, summary = ask(none)
    assert {split: len(names) for split, names in found.items()} == {"train": 2, "held_out": 2}
    assert "only" not in summary


@pytest.mark.parametrize("catch", [CATCH, [CATCH]])
def test_one_of_a_mix_is_played_alone(ask, catch):
    found, summary = ask(catch)
    assert found == {"train": [CATCH], "held_out": [CATCH]}
    assert summary["only"] == catch


def test_a_split_that_has_none_of_them_is_left_out(ask):
    assert ask(CATCH, hold_out=CATCH)[0] == {"held_out": [CATCH]}
    assert ask([CATCH, CARTPOLE], hold_out=CATCH)[0] == {"train": [CARTPOLE], "held_out": [CATCH]}


def test_what_is_nowhere_is_said(ask):
    said = f"only=chess is no base .* splits=train,held_out; use {CATCH}, {CARTPOLE}"
    with pytest.raises(InputError, match=said):
        ask([CATCH, "chess"])


def test_each_environment_of_a_mix_is_normalised_by_its_own_reference(ask):
    summary = {**ask(None)[1], "trained_trials": 1}
    for split in ("train", "held_out"):
        own = summary["splits"][split]["by_environment"]
        assert own[CATCH]["normalized"]["mean"] == [0.5, 0.5]
        assert own[CARTPOLE]["normalized"]["mean"] == [0.0, 0.0]
    text = evaluate.summary_text(summary)
    assert f"train, {CATCH}: 0.000 [0.000, 0.000], random 0.000, normalised 0.500 [0.500, 0.500]" in text
    assert "held-out, all in trial 1, normalised 0.250 [" in text


def test_what_has_no_reference_is_not_normalised(ask):
    summary = {**ask(None, rest=np.nan)[1], "trained_trials": 1}
    own = summary["splits"]["train"]["by_environment"]
    assert own[CATCH]["normalized"]["mean"] == [0.5, 0.5]
    assert own[CARTPOLE]["normalized"] is None
    assert summary["splits"]["train"]["normalized"] is None
    assert "all in trial 1" not in evaluate.summary_text(summary)
