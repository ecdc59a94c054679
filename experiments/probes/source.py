"""A digest of code that does not change with its comments, and changes with what the code is built upon.

Every Python finds the same, so that what one trained another need not train anew.
"""

import ast
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_OURS = __name__.partition(".")[0]
_FOLLOWED = (f"{_OURS}.cores", f"{_OURS}.envs")  # what else of ours a core or a probe is built upon


def code_of(*objects: Any) -> str:
    """A digest of the modules that hold the objects and, of classes, their bases, but not of comments.

    With them go the modules that these import, from function to function: ours of cores and environments,
    and those of an outsider's own package. A registry is not followed: it grows with others' names, and what
    a name stands for is to be given.
    """
    left = [
        each.__module__
        for thing in objects
        for each in (thing.__mro__ if isinstance(thing, type) else (thing,))
        if each.__module__.partition(".")[0] not in ("builtins", "flax", "typing", "abc")
    ]
    modules: set[str] = set()
    while left:
        module = left.pop()
        if module not in modules:
            modules.add(module)
            left += _read(module)[1]
    return hashlib.sha256("".join(_read(module)[0] for module in sorted(modules)).encode()).hexdigest()[:16]


@functools.cache
def _read(module: str) -> tuple[str, frozenset[str]]:
    """The digest of a module, and which of those it imports are followed."""
    try:
        tree = ast.parse(_source(module))
    except (ImportError, OSError, TypeError):  # typed at a prompt
        return module, frozenset()
    imports = frozenset(name for name in _imports(tree, module) if _is_followed(name, module))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = body[1:] or [ast.Pass()]  # pyright: ignore  # a docstring is a comment too
        if isinstance(node, ast.JoinedStr):  # Python 3.12 finds empty pieces
            node.values = [piece for piece in node.values if getattr(piece, "value", None) != ""]
    return hashlib.sha256(_written(tree).encode()).hexdigest(), imports


def _written(part: Any) -> str:
    """A tree in words that every Python finds for it, unlike those of `ast.dump`.

    Empty fields are left out, since versions add some. Characters are escaped: which are printable differs.
    """
    if isinstance(part, ast.AST):
        fields = [
            f"{name}={_written(value)}" for name, value in ast.iter_fields(part) if value not in (None, [])
        ]
        return f"{type(part).__name__}({', '.join(fields)})"
    return f"[{', '.join(map(_written, part))}]" if isinstance(part, list) else ascii(part)


def _source(module: str) -> str:
    """The text of a module, which is not imported for it: some take their time."""
    if module in sys.modules:
        return inspect.getsource(sys.modules[module])
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError(module)
    return Path(spec.origin).read_text(encoding="utf-8")


def _is_followed(name: str, importer: str) -> bool:
    top = importer.partition(".")[0]
    if name.endswith(".registry"):
        return False
    within = _FOLLOWED if top == _OURS else (*_FOLLOWED, top)
    return any(name == each or name.startswith(f"{each}.") for each in within)


def _imports(node: ast.AST, module: str) -> Iterator[str]:
    """Every module that code imports, in functions as well, but not what is only there for type checkers."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = module if _is_package(module) else module.rpartition(".")[0]
        base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        if _is_followed(base, module):
            yield from (_home(base, alias.name) for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, module)


def _home(base: str, name: str) -> str:
    """Where `from base import name` finds it: a package hands on what its modules hold."""
    if not _is_package(base):
        return base
    if importlib.util.find_spec(f"{base}.{name}") is not None:
        return f"{base}.{name}"
    return getattr(getattr(importlib.import_module(base), name, None), "__module__", base)


def _is_package(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a script has none
        return False
    return spec is not None and spec.submodule_search_locations is not None
