"""A digest of code that does not change with its comments."""

import ast
import functools
import hashlib
import inspect
import sys
from typing import Any


def code_of(*objects: Any) -> str:
    """A digest of the modules that hold the objects and, of classes, their bases, but not of comments."""
    modules = {
        each.__module__
        for thing in objects
        for each in (thing.__mro__ if isinstance(thing, type) else (thing,))
        if each.__module__.partition(".")[0] not in ("builtins", "flax", "typing", "abc")
    }
    return hashlib.sha256("".join(map(_digest, sorted(modules))).encode()).hexdigest()[:16]


@functools.cache
def _digest(module: str) -> str:
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):  # typed at a prompt
        return module
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body = body[1:] or [ast.Pass()]  # pyright: ignore  # a docstring is a comment too
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()
