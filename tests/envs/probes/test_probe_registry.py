"""Names, options and the errors that answer mistakes."""

import dataclasses
import subprocess
import sys
import textwrap

import pytest

from resetta.envs.base import BaseEnv
from resetta.envs.contract import contract_findings
from resetta.envs.probes import make_probe, probe_env, probe_names, probe_options
from resetta.envs.probes.registry import CATEGORIES, probe_category, probe_summaries


def test_listing_imports_neither_jax_nor_gymnax():
    program = """
        import sys
        from resetta.envs.probes import probe_names
        from resetta.envs.probes.registry import probe_summaries
        assert "needle" in probe_names() and set(probe_summaries()) == set(probe_names())
        heavy = {"jax", "gymnax", "flax"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_every_name_says_what_it_is():
    for name, summary in probe_summaries().items():
        assert name == name.lower()
        number, _, words = summary.partition(": ")
        assert number[0] == "P"
        assert 1 <= int(number[1:]) <= 15
        assert 10 < len(words) < 90


def test_every_category_has_probes_and_every_probe_one():
    assert {probe_category(name) for name in probe_names()} == set(CATEGORIES)
    assert probe_category("my_probe:Echo") == "other"


@pytest.mark.parametrize("name", probe_names())
def test_every_probe_is_a_frozen_dataclass_with_a_knob_that_is_an_option(name):
    probe = make_probe(name)
    assert probe.knob in probe_options(name)
    assert hash(probe) == hash(make_probe(name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        probe.length = 3  # pyright: ignore


def test_options_replace_defaults_and_keep_what_the_name_stands_for():
    assert make_probe("joint_recall", length=128, values=4).contexts == 4  # pyright: ignore
    assert make_probe("needle", depth=1).depth == 1.0  # pyright: ignore
    assert probe_options("majority") == {"length": 64, "values": 4, "question": "majority"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("needel", {}, "unknown probe 'needel'; did you mean needle"),
        ("zzzz", {}, "`resetta list probes`"),
        ("needle", {"lenght": 3}, "probe needle has no option 'lenght'; valid names are length"),
        ("needle", {"length": "long"}, "length='long' of needle must be a whole number"),
        ("needle", {"length": 1}, "length=1 of Needle has no room for its needles; use 2 or more"),
        ("needle", {"depth": 1.5}, "depth=1.5 of Needle must be 0"),
        ("needle", {"keys": 2, "distractors": 4}, "use 5 or more"),
        ("abstain_needle", {"keys": 4}, "use 5 or more"),
        ("multi_query_recall", {"pairs": 17}, "pairs=17 of Recall must be 1 to contexts x keys = 16"),
        ("multi_query_recall", {"length": 20}, "length=20 of Recall has no room .* use 24 or more"),
        ("majority", {"question": "minority"}, "choose from majority, count"),
        ("majority", {"question": 3}, "must be a word"),
        ("ancestral_trace", {"hops": 8}, "hops=8 of AncestralTrace must be 1 to 7"),
        ("explicit_multi", {"items": 10}, "items=10 of Spans must be a multiple of"),
        ("table_recall", {"columns": 9}, "values=8 of TableRecall must be columns=9 or more"),
        (
            "interference",
            {"length": 67},
            "length=67 of Interference must be a multiple of episodes=3; use 69",
        ),
        ("convex_hull", {"length": 66}, "length=66 of ConvexHull is more than twice names=32"),
        ("pathfinder", {"length": 100}, "length=100 of Pathfinder is not the square .* use 82"),
        ("pathfinder", {"distractors": 9}, "distractors=9 of Pathfinder must be 0 to 5 in 11 pixels"),
        ("sprite_motion", {"dark": 30}, "dark=30 of Motion must be 0 to 29, three are seen"),
        ("sprite_motion", {"fastest": 6.0}, "fastest=6.0 of Motion must be slowest=0.5 or more, and less"),
        ("sprite_colours", {"sprites": 5}, "sprites=5 of Occlusion must be 1 to 4"),
        ("sprite_revisit", {"canvas": 16}, "canvas=16 of Revisit must be a multiple of 6"),
        ("sprite_revisit", {"colours": 7}, "colours=7 of Revisit must be 2 to 6"),
        ("many_shot", {"classes": 28}, "length=64 of ManyShot has no room .* use 72 or more"),
        ("resetta.envs.probes.needle:Needel", {}, "did you mean Needle"),
        ("resetta.envs.probes.needle:scattered", {}, "is not a subclass of resetta.envs.probes.Probe"),
        ("no_such_module_anywhere:Probe", {}, "there is no module 'no_such_module_anywhere'"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_probe(name, **options)
    assert "\n" not in str(caught.value)


USERS = '''
import dataclasses
import jax
import jax.numpy as jnp
from resetta.envs.probes.base import ITEM, Probe

@dataclasses.dataclass(frozen=True, kw_only=True)
class Echo(Probe):
    """Say what was said first."""
    symbols: int = 3

    @property
    def fields(self):
        return {"symbol": self.symbols}

    @property
    def num_answers(self):
        return self.symbols

    def episode(self, key):
        said = jax.random.randint(key, (self.length,), 0, self.symbols)
        later = jnp.arange(self.length) > 0
        tokens = self.encode(jnp.full(self.length, ITEM), symbol=said)
        return self.ask(tokens, jnp.full(self.length, said[0]), later)
'''


def test_a_probe_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_probe.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    probe = make_probe("own_probe:Echo", length=5, symbols=4)
    assert (probe.length, probe.width, probe.num_answers) == (5, 8, 4)
    assert (probe.random().value, probe.blind().value, probe.reference().value) == (0.25, 0.25, 1.0)
    base_env = probe_env("own_probe:Echo", symbols=4)
    assert contract_findings(base_env) == []


@pytest.mark.parametrize("name", ["needle", "interference"])
def test_probes_are_environments_as_others_are(name):
    base_env = probe_env(name, length=48)
    assert isinstance(base_env, BaseEnv)
    assert contract_findings(base_env) == []
    assert not base_env.truncates
    assert base_env.name == f"probe_{name}"
