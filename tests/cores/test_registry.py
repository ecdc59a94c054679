"""make_core: names, options, and errors that help."""

import sys

import pytest

from resetta.cores import Core, core_names, core_options, make_core

REQUIRED = {"stack": {"pattern": "gru"}}


class Mine(Core):
    """A user's own core."""

    depth: int = 1


@pytest.mark.parametrize("name", core_names())
def test_every_name_makes_a_core(name):
    core = make_core(name, features=16, **REQUIRED.get(name, {}))
    assert isinstance(core, Core)
    assert core.features == 16
    assert {"features"} <= set(core_options(name))
    assert not {"parent", "name"} & set(core_options(name))


def test_a_users_own_core_by_module_and_name():
    core = make_core(f"{__name__}:Mine", depth=3)
    assert (type(core).__name__, core.depth) == ("Mine", 3)
    with pytest.raises(
        ValueError, match=r"no option 'dept' \(did you mean 'depth'\?\); its options are features, depth"
    ):
        make_core(f"{__name__}:Mine", dept=3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "grv",
            {},
            r"unknown core 'grv' \(did you mean 'gru'\?\); choose from s5, mamba, conv_s5",
        ),
        ("gru", {"num_layer": 2}, "core 'gru' has no option 'num_layer' .did you mean 'num_layers'"),
        ("nowhere_at_all:Core", {}, "core 'nowhere_at_all:Core' cannot be loaded"),
        ("json:Core", {}, "core 'json:Core' cannot be loaded"),
        ("stack", {}, "core 'stack' needs the option 'pattern'"),
    ],
)
def test_errors_name_the_choices(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_core(name, **options)


def test_a_users_own_core_is_found_where_the_command_is_run(tmp_path, monkeypatch):
    (tmp_path / "found_here.py").write_text(
        "from resetta.cores import Core\n\n\nclass Mine(Core):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    assert type(make_core("found_here:Mine")).__name__ == "Mine"
