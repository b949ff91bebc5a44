"""The rooms of amst_hpc: imports point down, each heavy library has one home, start-up stays light.

A new module needs a level in LEVELS; a new use of a heavy library needs a reason to be in HOMES.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "amst_hpc"

ROOMS = {
    12: "__main__",
    11: "cli api",
    10: "submit",
    9: "check devices demo prealign apply evaluate status merge verify",
    8: "pipeline blocks",
    7: "register write report attempts",
    6: "rundir manifest",
    5: "findings inputs coarse",
    4: "kernels phantom thumbnails estimate join sbatch",
    3: "site slurm stack template opencl refine bdv journal parallel progress tiffs tissue",
    2: "geometry ladder adjacent",
    1: "config transform",
    0: "__init__",
}
LEVELS = {module: level for level, modules in ROOMS.items() for module in modules.split()}

HOMES = {
    "h5py": {"bdv", "join", "stack"},
    "itk": {"refine"},
    "matplotlib": {"report"},
    "mpi4py": {"parallel"},
    "pyelastix": {"refine"},
    "pyopencl": {"opencl", "kernels"},
    "rich": {"progress", "status"},
    "silx": {"coarse"},
    "skimage": {"coarse", "adjacent"},
    "tifffile": {"stack", "tiffs", "phantom"},
    "typer": {"cli"},
}
LAZY = {"itk", "matplotlib", "mpi4py", "pyelastix", "pyopencl", "silx", "vigra"}


@dataclass(frozen=True)
class Import:
    target: str  # dotted and absolute, with the imported name: amst_hpc.bdv.write
    line: int
    runs_at_import: bool  # False inside a function and under TYPE_CHECKING

    @property
    def library(self) -> str:
        return self.target.partition(".")[0]

    @property
    def room(self) -> str | None:
        """The module of amst_hpc that is imported; None for other libraries."""
        if self.library != "amst_hpc":
            return None
        name = [*self.target.split("."), "__init__"][1]
        return "__init__" if name == "__version__" else name


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _targets(node: ast.AST) -> list[str]:
    """What an import statement, or a call of import_module("..."), imports."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            origin = ["amst_hpc"] if node.level else []
            origin += [node.module] if node.module else []
            return [".".join([*origin, alias.name]) for alias in node.names]
        case ast.Call(
            func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str() as name), *_],
        ):
            return [name]
    return []


def find_imports(node: ast.AST, runs_at_import: bool = True) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        for target in _targets(child):
            yield Import(target, child.lineno, runs_at_import)
        deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        at_import = runs_at_import and not deferred and not _is_type_checking(child)
        yield from find_imports(child, at_import)


def order_faults(module: str, tree: ast.AST) -> Iterator[str]:
    if module not in LEVELS:
        yield f"{module} is in no room: give it a level in ROOMS of {Path(__file__).name}"
        return
    for found in find_imports(tree):
        room = found.room
        if room is None:
            continue
        if room not in LEVELS:
            yield f"line {found.line}: {room} is in no room"
        elif LEVELS[room] >= LEVELS[module]:
            levels = f"{LEVELS[module]} to {LEVELS[room]}"
            yield f"line {found.line}: {module} imports {room} (level {levels}, imports point down)"


def home_faults(module: str, tree: ast.AST) -> Iterator[str]:
    for found in find_imports(tree):
        homes = HOMES.get(found.library)
        if homes and module not in homes:
            yield f"line {found.line}: {found.library} belongs in {' and '.join(sorted(homes))}"


def lazy_faults(module: str, tree: ast.AST) -> Iterator[str]:
    if LEVELS.get(module) not in (3, 4):
        return
    for found in find_imports(tree):
        if found.runs_at_import and found.library in LAZY:
            yield f"line {found.line}: import {found.library} inside the function that needs it"


def style_faults(module: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="print")) if module != "cli":
                yield f"line {node.lineno}: print: use logging"
            case ast.ExceptHandler(type=None):
                yield f"line {node.lineno}: bare except: name the exceptions"


RULES = [order_faults, home_faults, lazy_faults, style_faults]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_every_module_keeps_the_rules(path, rule):
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    faults = list(rule(module, ast.parse(path.read_text(encoding="utf-8"))))
    assert not faults, "\n".join(f"{path.name}: {fault}" for fault in faults)


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (order_faults, "novel", ""),
        (order_faults, "bdv", "from amst_hpc.pipeline import align"),
        (order_faults, "bdv", "from .journal import Journal"),
        (order_faults, "opencl", "def f():\n    from . import coarse"),
        (order_faults, "config", "import amst_hpc.geometry"),
        (order_faults, "pipeline", "from amst_hpc import novel"),
        (home_faults, "bdv", "from mpi4py import MPI"),
        (home_faults, "pipeline", "def f():\n    import h5py"),
        (home_faults, "devices", "importlib.import_module('itk')"),
        (lazy_faults, "refine", "try:\n    import itk\nexcept ImportError:\n    itk = None"),
        (style_faults, "bdv", "print(1)"),
        (style_faults, "cli", "try:\n    f()\nexcept:\n    pass"),
    ],
)
def test_rules_find_what_they_forbid(rule, module, source):
    assert list(rule(module, ast.parse(source)))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("coarse", "from .opencl import devices\nfrom amst_hpc import __version__"),
        ("pipeline", "from amst_hpc import bdv, geometry\nimport numpy"),
        ("refine", "def f():\n    import itk"),
        ("parallel", "if TYPE_CHECKING:\n    from mpi4py import MPI"),
        ("cli", "import typer\nprint(1)"),
    ],
)
def test_rules_leave_the_rest_alone(module, source):
    tree = ast.parse(source)
    assert not [fault for rule in RULES for fault in rule(module, tree)]


def test_command_line_starts_without_heavy_libraries():
    code = f"import sys, amst_hpc.cli; print(*sorted({LAZY!r} & sys.modules.keys()))"
    command = [sys.executable, "-c", code]
    started = subprocess.run(command, capture_output=True, text=True, check=False)
    assert started.returncode == 0, started.stderr
    assert not started.stdout.split(), f"import amst_hpc.cli loads {started.stdout}"
