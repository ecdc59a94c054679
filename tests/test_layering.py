"""Who may import whom. The folders of this repository are the rooms of the package `resetta`."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What each room may import of the others, and of other people's packages; the standard library is free.
ROOMS: dict[str, set[str]] = {
    "cores": set(),
    "envs": set(),
    "agents": {"cores", "envs"},
    "video": {"cores"},
    "configs": set(),
    "experiments": {"", "cores", "envs", "agents", "video", "configs", "testing"},
    "testing": {"cores"},
    "": set(),  # __init__.py at the root
}
ARRAYS = {"jax", "flax", "numpy", "jaxtyping"}
OTHERS: dict[str, set[str]] = {
    "cores": ARRAYS,
    "envs": ARRAYS | {"gymnax", "brax", "mujoco", "mujoco_playground", "PIL"},
    "agents": ARRAYS | {"optax", "distrax"},
    "configs": set(),
    "testing": ARRAYS | {"optax"},
    "": set(),
}
# Packages that are slow, heavy or likely to be replaced: one home each.
HOMES: dict[str, set[str]] = {
    "brax": {"envs/brax.py", "envs/draw_brax.py"},
    "mujoco_playground": {"envs/playground.py"},
    "distrax": {"agents/distributions.py"},
    "decord": {"video/decode.py"},
    "orbax": {"experiments/checkpoint.py"},
    "hydra": {"experiments/compose.py"},
    "tensorboardX": {"experiments/logs.py"},
    "wandb": {"experiments/logs.py"},
    "matplotlib": {"experiments/plots.py", "experiments/video_plots.py"},
}
# Imported inside functions only, so that whoever never uses them never waits for them; brax's own adapter is
# such a module itself.
LAZY = {"decord", "mujoco", "mujoco_playground", "matplotlib", "tensorboardX", "wandb"}
LAZY_MODULES = {"resetta.envs.brax", "resetta.envs.draw_brax"}


def sources() -> list[str]:
    files = [*ROOT.glob("*.py"), *(f for room in ROOMS if room for f in (ROOT / room).rglob("*.py"))]
    return sorted(str(f.relative_to(ROOT)) for f in files)


def imports(path: str, text: str) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, absolutely or by `import_module("x")`, and whether at its top level.

    A relative import is given as `resetta.<room>...`, an absolute one of this package as `!resetta...`.
    """
    tree = ast.parse(text)
    package = Path(path).parent.parts
    top = set(map(id, _top_level(tree)))
    for node in ast.walk(tree):
        at_top = id(node) in top
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _marked(alias.name), at_top
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield _marked(node.module or ""), at_top
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - (node.level - 1)]
            if node.module:
                yield ".".join(["resetta", *base, node.module]), at_top
            else:  # from .. import cores
                for alias in node.names:
                    yield ".".join(["resetta", *base, alias.name]), at_top
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module" and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and not str(name.value).startswith("."):
                yield _marked(str(name.value)), at_top


def _marked(name: str) -> str:
    return f"!{name}" if name.split(".")[0] == "resetta" else name


def _top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that run on import: neither inside a function nor under `if TYPE_CHECKING`."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                todo += child.orelse
                continue
            todo.append(child)


def findings(path: str, text: str) -> list[str]:
    room = "" if "/" not in path else path.split("/")[0]
    room = "testing" if path == "testing.py" else room
    found = []
    for name, at_top in imports(path, text):
        first, *rest = name.split(".")
        if first == "!resetta":
            found.append(f"{path} imports {name[1:]} absolutely; inside the package, imports are relative")
        elif first == "resetta" and name in LAZY_MODULES and at_top:
            found.append(f"{path} imports {name} at its top level, so that everyone waits for brax")
        elif first == "resetta":
            target = rest[0] if rest and rest[0] in ROOMS else ""
            if target not in (room, *ROOMS[room]):
                found.append(
                    f"{path} imports {name}, and {room or 'the root'} may not import {target or 'the root'}"
                )
        elif first in ROOMS or first == "tests":
            found.append(f"{path} imports {name} by its bare name, a second copy of the module")
        else:
            if first in HOMES and path not in HOMES[first]:
                found.append(
                    f"{path} imports {first}, whose only home is {' and '.join(sorted(HOMES[first]))}"
                )
            if room in OTHERS and first not in OTHERS[room] | sys.stdlib_module_names:
                found.append(f"{path} imports {first}, which {room or 'the root'} does without")
            if first in LAZY and at_top:
                found.append(f"{path} imports {first} at its top level, so that everyone waits for it")
    return found


@pytest.mark.parametrize("path", sources())
def test_rooms_import_only_what_they_may(path):
    assert findings(path, (ROOT / path).read_text(encoding="utf-8")) == []


def test_the_tests_use_the_installed_package():
    for file in (ROOT / "tests").rglob("*.py"):
        for name, _ in imports(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")):
            assert name.split(".")[0] not in {
                "cores",
                "envs",
                "agents",
                "video",
                "configs",
                "experiments",
                "testing",
            }, f"{file} imports {name} by its bare name; write resetta.{name}"


@pytest.mark.parametrize(
    ("path", "text", "finding"),
    [
        ("envs/x.py", "from ..cores import make_core", "may not import cores"),
        ("envs/memory/x.py", "from ...agents import Agent", "may not import agents"),
        ("cores/x.py", "def f():\n    from .. import agents", "may not import agents"),
        ("video/x.py", "from ..agents.ppo import Agent", "may not import agents"),
        ("agents/x.py", "from resetta.cores import make_core", "relative"),
        ("agents/x.py", "import cores.s5", "bare name"),
        ("agents/x.py", "import distrax", "only home"),
        ("envs/x.py", "import importlib\nimportlib.import_module('brax.envs')", "only home"),
        ("experiments/logs.py", "try:\n    import wandb\nexcept ImportError:\n    pass", "top level"),
        ("envs/registry.py", "from .brax import BraxEnvironment", "top level"),
        ("cores/x.py", "import optax", "does without"),
    ],
)
def test_the_rules_bite(path, text, finding):
    assert any(finding in found for found in findings(path, text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("envs/memory/x.py", "from ..base import BaseEnv\nfrom .deck import deal\nimport gymnax"),
        ("experiments/logs.py", "def f():\n    import wandb\nif TYPE_CHECKING:\n    import wandb"),
        ("envs/registry.py", "def f():\n    from .brax import BraxEnvironment"),
        ("experiments/x.py", "from .. import __version__\nfrom ..agents import Agent\nimport rich"),
    ],
)
def test_the_rules_allow_what_is_right(path, text):
    assert findings(path, text) == []
