"""Cores, environments and probes of another installed package, found by its entry points."""

import json
import sys

import pytest

from resetta.cores import make_core
from resetta.envs.probes import make_probe
from resetta.envs.registry import make_env
from resetta.experiments.cli import main
from resetta.experiments.compose import compose
from resetta.experiments.config import train_config
from resetta.experiments.listing import list_text
from resetta.experiments.probes import questions
from resetta.testing import Finding

THEIRS = '''
import dataclasses
import flax.linen as nn
import jax
import jax.numpy as jnp
from resetta.cores import Core
from resetta.cores.scan import linear_scan
from resetta.envs.dark_room import DarkRoom
from resetta.envs.probes.base import ITEM, Probe


class Leaky(Core):
    """A leaky average."""

    keep: float = 0.9

    def initial_carry(self, batch, size=None):
        return jnp.zeros((batch, self.features))

    @nn.compact
    def __call__(self, carry, x, reset):
        u = nn.Dense(self.features)(x.astype(jnp.float32))
        carry, states = linear_scan(jnp.full_like(u, self.keep), u, reset, carry)
        return carry, states.astype(x.dtype)


class Room(DarkRoom):
    """A room of their own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Echo(Probe):
    """Say what was said first."""

    length: int = 4

    @property
    def fields(self):
        return {"symbol": 2}

    @property
    def num_answers(self):
        return 2

    def episode(self, key):
        said = jax.random.randint(key, (self.length,), 0, 2)
        tokens = self.encode(jnp.full(self.length, ITEM), symbol=said)
        return self.ask(tokens, jnp.full(self.length, said[0]), jnp.arange(self.length) > 0)
'''
POINTS = """
[resetta.cores]
leaky = their_lab:Leaky
gru = their_lab:Leaky
broken = their_lab:Nothing
[resetta.envs]
their_room = their_lab:Room
[resetta.probes]
echo = their_lab:Echo
"""


@pytest.fixture
def their_lab(tmp_path, monkeypatch):
    """A distribution as pip would leave it."""
    (tmp_path / "their_lab.py").write_text(THEIRS)
    info = tmp_path / "their_lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("their_lab", None)


def test_names_of_another_package_work_as_ours_do(their_lab):
    assert type(make_core("leaky", features=4, keep=0.5)).__name__ == "Leaky"
    assert type(make_core("gru")).__name__ == "GRU"  # ours
    assert make_env("their_room", size=5).name == "their_room"
    assert make_probe("echo", length=6).length == 6
    for kind, name in (("cores", "leaky"), ("envs", "their_room"), ("probes", "echo")):
        assert f"  {name} " in list_text(kind)
    assert list_text("cores").count("  gru ") == 1
    config = train_config(compose("train", ["core=leaky", "core.keep=0.5", "env=their_room"]))
    assert config.core == {"name": "leaky", "target": "leaky", "features": 64, "keep": 0.5}
    assert (config.env.name, list(config.env.lanes)) == ("their_room", ["their_room"])


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (make_core, "leakey", r"did you mean 'leaky'\?"),
        (make_core, "broken", "core 'broken' cannot be loaded: module 'their_lab' has no attribute"),
        (make_core, "leaky", "no option 'size'; its options are features, keep"),
        (make_env, "their_roam", "did you mean their_room"),
        (make_env, "their_room", "their_room has no option 'sise'; valid names are size"),
        (make_probe, "eco", "did you mean echo "),
        (make_probe, "echo", "probe echo has no option"),
    ],
)
def test_mistakes_with_them_are_answered_in_a_sentence(their_lab, make, name, message):
    option = {make_core: "size", make_env: "sise", make_probe: "size"}[make]
    with pytest.raises(ValueError, match=message):
        make(name, **{option: 3})


def test_their_core_is_held_to_the_laws_and_trained(their_lab, tmp_path, monkeypatch, capsys):
    checked, found = [], [Finding(3, "row 1 differs from a fresh start by up to 0.5")]
    monkeypatch.setattr(questions, "check_core", lambda core: checked.append(core) or found)
    words = ["core.features=8", "probe=echo", "tokens=64", "batch_tokens=16", "dispatch=2"]
    words = ["bench", "probes", *words, "seeds=1", "episodes=8", f"out={tmp_path / 'out'}"]
    assert main([*words, "core=leaky,gru"]) == 2
    said = capsys.readouterr().err
    assert "core=leaky breaks laws of a core: law 3 (reset = fresh start): row 1 differs" in said
    assert not (tmp_path / "out").exists()
    assert [type(core).__name__ for core in checked] == ["Leaky"]  # and not ours
    found.clear()
    assert main([*words, "core=leaky"]) == 0
    rows = json.loads((tmp_path / "out" / "probes.json").read_text())["rows"]
    assert [(row["core"], row["probe"]) for row in rows] == [("leaky", "echo")]
