"""The rules of the house, read off the source with ast: layers, cycles, lazy imports, errors, budgets."""

import ast
import builtins
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "ntangent"
ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / PACKAGE

# A layer may import itself and every lower one; layers on one level are strangers. "" is the package itself.
LEVELS = (
    {"_base"},
    {"jet"},
    {"operators", "ode", "diagnose", "optim", "nn", "run"},
    {"pinn"},
    {"problems"},
    {"extend"},
    {""},
    {"report", "bench", "cli"},
    {"testing", "__main__"},
)
LEVEL = {layer: level for level, layers in enumerate(LEVELS) for layer in layers}
EXTRA_EDGES = {
    ("ode", "optim"): "ode.fit trains",
    ("ode", "run"): "ode.fit writes a run",
    ("cli", "report"): "`ntangent report`",
    ("cli", "bench"): "`ntangent bench`",
    ("bench", "report"): "figures share one style",
}

# Imports inside functions: (importing layer or None for any, imported root or layer) -> reason.
LAZY = {
    (None, "matplotlib"): "extra `report`",
    (None, "jinja2"): "extra `report`",
    (None, "click"): "extra `cli`",
    (None, "rich"): "extra `cli`",
    (None, "scipy"): "extras `qmc` and `diagnose`; elsewhere an oracle",
    (None, "mpmath"): "extra `diagnose`; elsewhere an oracle",
    (None, "hypothesis"): "in the test extra only",
    (None, "triton"): "absent on most machines",
    ("pinn", "ntangent.pinn"): "Problem.nondimensionalise() makes another Problem",
    ("run", "torch"): "torch.utils.tensorboard, which needs the extra `tensorboard`",
    ("_base", "resource"): "absent on Windows",
    ("pinn", "ntangent.report"): "Solution.report() is the one call upwards",
    ("cli", "ntangent.cli"): "the entry point first makes sure that the extra `cli` is there",
}
HEAVY = {"matplotlib", "scipy", "rich", "click", "mpmath", "hypothesis", "jinja2", "triton"}

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 450, 80, 8
BUDGET_EXCEPTIONS: dict[str, str] = {  # "path" or "path::function" -> reason
    "src/ntangent/jet/attention.py::_multi_head_attention": "one parameter for each of torch's function",
    "src/ntangent/nn/networks.py::__init__": "constructors: all but the two sizes are keywords with defaults",
    "src/ntangent/jet/mlp.py::MLP": "a constructor: all but the two sizes are keywords with defaults",
    "src/ntangent/ode/solve.py::odeint": "torchdiffeq's call: all but three are keywords with defaults",
    "src/ntangent/ode/solve.py::sensitivity": "a front door: all but four are keywords with defaults",
    "src/ntangent/ode/solve.py::solve": "a front door: all but three are keywords with defaults",
    "src/ntangent/pinn/conditions/interface.py::__init__": "constructors: all but two are keywords",
    "src/ntangent/pinn/conditions/periodic.py::__init__": "constructors: all but three are keywords",
    "src/ntangent/pinn/conditions/prescribed.py::__init__": "constructors: all but two are keywords",
    "src/ntangent/pinn/solve.py::solve": "the front door: all but three are keywords with defaults",
    "src/ntangent/pinn/windows.py::march": "a front door: all but three are keywords with defaults",
    "src/ntangent/ode/fitting/fit.py::fit": "the front door: all but three are keywords with defaults",
    "src/ntangent/run/loop.py::train": "the one loop: all but three are keywords with defaults",
}


@dataclass(frozen=True)
class Import:
    """One imported module: where, what, and whether it is inside a function or under TYPE_CHECKING."""

    line: int
    target: str
    lazy: bool
    typing_only: bool


@functools.cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def layer(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def where(path: Path, line: int = 0) -> str:
    return f"{path.relative_to(ROOT)}:{line}" if line else str(path.relative_to(ROOT))


def targets(node: ast.Import | ast.ImportFrom, module: str) -> Iterator[str]:
    """Absolute names of the modules that a statement imports; `from package import submodule` is resolved."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*parents, base] if base else parents)
    for alias in node.names:
        submodule = f"{base}.{alias.name}"
        yield submodule if submodule in modules() else base


def imports(module: str) -> Iterator[Import]:
    def walk(node: ast.AST, lazy: bool, typing_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for target in targets(child, module):
                    yield Import(child.lineno, target, lazy, typing_only)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            guard = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
            yield from walk(child, lazy or function, typing_only or guard)

    yield from walk(tree(modules()[module]), lazy=False, typing_only=False)


def internal(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def lazy_allowed(module: str, target: str) -> bool:
    name = f"{PACKAGE}.{layer(target)}" if internal(target) else target.partition(".")[0]
    return (None, name) in LAZY or (layer(module), name) in LAZY


def all_imports() -> Iterator[tuple[str, Path, Import]]:
    for module, path in modules().items():
        for found in imports(module):
            yield module, path, found


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{where(path)}::{node.name}", node


def test_every_module_belongs_to_a_layer() -> None:
    homeless = [where(path) for module, path in modules().items() if layer(module) not in LEVEL]
    assert modules(), f"no source under {SOURCE}"
    assert not homeless, f"add the layer to LEVELS, after deciding what may import it: {homeless}"


def test_layers_import_downwards_only() -> None:
    wrong = []
    for module, path, found in all_imports():
        source, target = layer(module), layer(found.target)
        if not internal(found.target) or source == target or (source, target) in EXTRA_EDGES:
            continue
        if found.lazy and lazy_allowed(module, found.target):
            continue
        if source in LEVEL and target in LEVEL and LEVEL[target] >= LEVEL[source]:
            wrong.append(f"{where(path, found.line)}: {source or '__init__'} -> {target or '__init__'}")
    assert not wrong, wrong


def test_source_never_imports_testing() -> None:
    wrong = [
        where(path, found.line)
        for module, path, found in all_imports()
        if internal(found.target) and layer(found.target) == "testing" and layer(module) != "testing"
    ]
    assert not wrong, wrong


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for module, _, found in all_imports():
        if not (found.lazy or found.typing_only) and internal(found.target):
            graph[module].add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


def test_function_level_imports_are_on_the_list() -> None:
    wrong = [
        f"{where(path, found.line)}: {found.target}"
        for module, path, found in all_imports()
        if found.lazy and not lazy_allowed(module, found.target)
    ]
    assert not wrong, f"import at the top of the file, or add a reason to LAZY: {wrong}"


def test_exceptions_live_in_base_errors() -> None:
    home = SOURCE / "_base" / "errors.py"
    types = {name: value for name, value in vars(builtins).items() if isinstance(value, type)}
    known = {name for name, value in types.items() if issubclass(value, BaseException)}
    known |= {node.name for node in ast.walk(tree(home)) if isinstance(node, ast.ClassDef)}
    wrong = [
        f"{where(path, node.lineno)}: {node.name}"
        for path in modules().values()
        if path != home
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).rpartition(".")[2] in known for base in node.bases)
    ]
    assert not wrong, f"define exceptions in {where(home)}: {wrong}"


def test_importing_the_package_is_light(tmp_path: Path) -> None:
    script = "import sys, torch; old = set(sys.modules); import ntangent; print(*set(sys.modules) - old)"
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    brought = {name.partition(".")[0] for name in result.stdout.split()}
    assert PACKAGE in brought
    assert not brought & HEAVY, "these are extras: import them in the function that needs them"


def test_files_stay_within_budget() -> None:
    sizes = {where(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules().values()}
    wrong = {name: n for name, n in sizes.items() if n > MAX_FILE_LINES and name not in BUDGET_EXCEPTIONS}
    assert not wrong, f"more than {MAX_FILE_LINES} lines: {wrong}"


def test_functions_stay_within_budget() -> None:
    wrong = {}
    for path in modules().values():
        for name, node in functions(path):
            lines = node.end_lineno - node.lineno + 1
            # The docstring states definition, cost and reference: it is not counted.
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            arguments = node.args
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            parameters = len(names) - (names[:1] in (["self"], ["cls"]))
            if (lines > MAX_FUNCTION_LINES or parameters > MAX_PARAMETERS) and name not in BUDGET_EXCEPTIONS:
                wrong[name] = f"{lines} lines, {parameters} parameters"
    assert not wrong, f"more than {MAX_FUNCTION_LINES} lines or {MAX_PARAMETERS} parameters: {wrong}"


def test_budget_exceptions_are_not_stale() -> None:
    known = {where(path) for path in modules().values()}
    known |= {name for path in modules().values() for name, _ in functions(path)}
    assert not set(BUDGET_EXCEPTIONS) - known
