"""Griffe extension: a name imported as itself (``from a import b as b``) is public and documented.

The convention of type checkers; griffe itself only knows ``__all__``.
"""

import ast
from typing import Any

import griffe


class ReExports(griffe.Extension):
    """Adds such names to the exports of their package."""

    def on_module_members(self, *, mod: griffe.Module, **_: Any) -> None:
        """Export them."""
        if mod.exports is None and mod.is_init_module:
            tree = ast.parse(mod.filepath.read_text(encoding="utf-8"))
            imports = [statement for statement in tree.body if isinstance(statement, ast.ImportFrom)]
            names = [a.name for i in imports for a in i.names if a.asname == a.name]
            if names:
                mod.exports = names
