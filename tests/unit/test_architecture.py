"""The rooms of amst_hpc: imports point down, each heavy library has one home, code stays small.

A new folder needs a place in ROOMS; a new heavy library a home in HOMES.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "amst_hpc"

ROOMS = [  # top down: a room imports from those below it, and from its own modules without a cycle
    "__main__",
    "cli",
    "api",
    "amst_main",
    "apply",
    "pipeline",
    "outcome",
    "passes",
    "cluster",
    "preflight",
    "quality",
    "job",
    "registration",
    "synthetic",
    "images",
    "ome_zarr",
    "bdv",
    "opencl",
    "parallel",
    "overrides",
    "pair_result",
    "placement",
    "slice_result",
    "software",
    "geometry",
    "settings",
    "config",
    "elastix_defaults",
    "correlation",
    "averaging",
    "median",
    "content",
    "transform",
    "__init__",
]
PURE = {
    "overrides",
    "pair_result",
    "placement",
    "slice_result",
    "software",
    "geometry",
    "settings",
    "config",
    "elastix_defaults",
    "correlation",
    "averaging",
    "median",
    "content",
    "transform",
}

HOMES = {
    "h5py": "bdv",
    "itk": "registration",
    "matplotlib": "quality",
    "mpi4py": "parallel",
    "pybdv": "bdv",
    "pyelastix": "registration",
    "pyopencl": "opencl",
    "rich": "job",
    "silx": "opencl",
    "skimage": "registration",
    "tensorstore": "ome_zarr",
    "tifffile": "images",
    "typer": "cli",
    "vigra": "registration",
}
LAZY = {"itk", "matplotlib", "mpi4py", "pyelastix", "pyopencl", "silx", "tensorstore", "vigra"}

LONGEST_FILE, LONGEST_FUNCTION, MOST_ARGUMENTS = 400, 40, 5
# every option of a command, and every key of the original's interface, is an argument
INTERFACES = {"cli", "amst_main"}


@dataclass(frozen=True)
class Import:
    target: str  # dotted and absolute, with the imported name: amst_hpc.bdv.writer.BdvWriter
    line: int
    runs_at_import: bool  # False inside a function and under TYPE_CHECKING

    @property
    def library(self) -> str:
        return self.target.partition(".")[0]

    @property
    def room(self) -> str | None:
        """The folder (or file) of amst_hpc that is imported; None for other libraries."""
        if self.library != "amst_hpc":
            return None
        name = [*self.target.split("."), "__init__"][1]
        return "__init__" if name == "__version__" else name


def room_of(module: str) -> str:
    return module.partition(".")[0]


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _targets(node: ast.AST) -> list[str]:
    """What an import statement, or a call of import_module("..."), imports."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(level=0, module=str() as origin):
            return [f"{origin}.{alias.name}" for alias in node.names]
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
    mine = room_of(module)
    if mine not in ROOMS:
        yield f"{mine} is in no room: give it a place in ROOMS of {Path(__file__).name}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno}: a relative import: say from where"
    for found in find_imports(tree):
        room = found.room
        if room is None or room == mine:
            continue
        if room not in ROOMS:
            yield f"line {found.line}: {room} is in no room"
        elif ROOMS.index(room) < ROOMS.index(mine):
            yield f"line {found.line}: {mine} imports {room}, which stands above it"


def home_faults(module: str, tree: ast.AST) -> Iterator[str]:
    for found in find_imports(tree):
        home = HOMES.get(found.library)
        if home and room_of(module) != home:
            yield f"line {found.line}: {found.library} is at home in {home}"


def lazy_faults(module: str, tree: ast.AST) -> Iterator[str]:
    for found in find_imports(tree):
        if found.runs_at_import and found.library in LAZY:
            yield f"line {found.line}: import {found.library} inside the function that needs it"


def style_faults(module: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                yield f"line {node.lineno}: print: use logging"
            case ast.ExceptHandler(type=None):
                yield f"line {node.lineno}: bare except: name the exceptions"


def size_faults(module: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        interface = room_of(module) in INTERFACES and not node.name.startswith("_")
        lines = node.end_lineno - node.lineno + 1
        if lines > LONGEST_FUNCTION and not interface:
            yield f"line {node.lineno}: {node.name} has {lines} lines, at most {LONGEST_FUNCTION}"
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([a for a in arguments if a.arg not in ("self", "cls")])
        if count > MOST_ARGUMENTS and not interface:
            yield f"line {node.lineno}: {node.name} takes {count}, at most {MOST_ARGUMENTS}"


RULES = [order_faults, home_faults, lazy_faults, style_faults, size_faults]
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("module", MODULES)
def test_every_module_keeps_the_rules(module, rule):
    text = MODULES[module].read_text(encoding="utf-8")
    faults = list(rule(module, ast.parse(text)))
    assert not faults, "\n".join(f"{module}: {fault}" for fault in faults)
    assert len(text.splitlines()) <= LONGEST_FILE


def test_no_cycle_between_modules():
    above: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        targets = {found.target for found in find_imports(tree) if found.library == "amst_hpc"}
        names = {t.removeprefix("amst_hpc.") for t in targets}
        above[module] = {m for n in names for m in MODULES if n == m or n.rpartition(".")[0] == m}
    done: set[str] = set()
    while left := {m for m in above if m not in done}:
        free = {m for m in left if above[m] - {m} <= done}
        assert free, f"these import each other in a circle: {sorted(left)}"
        done |= free


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (order_faults, "novel", ""),
        (order_faults, "bdv.file", "from amst_hpc.pipeline import align"),
        (order_faults, "bdv.file", "from ..job.journal import Journal"),
        (order_faults, "opencl.devices", "def f():\n    from amst_hpc.images import stack"),
        (order_faults, "config", "import amst_hpc.geometry"),
        (order_faults, "pipeline", "from amst_hpc import novel"),
        (home_faults, "bdv.file", "from mpi4py import MPI"),
        (home_faults, "pipeline", "def f():\n    import h5py"),
        (home_faults, "preflight.devices", "importlib.import_module('itk')"),
        (
            lazy_faults,
            "registration.elastix",
            "try:\n    import itk\nexcept ImportError:\n    pass",
        ),
        (style_faults, "bdv.file", "print(1)"),
        (style_faults, "cli.app", "try:\n    f()\nexcept:\n    pass"),
        (size_faults, "bdv.file", "def f(a, b, c, d, e, f): pass"),
        (size_faults, "bdv.file", "def f():\n" + "    a = 1\n" * 40),
    ],
)
def test_rules_find_what_they_forbid(rule, module, source):
    assert list(rule(module, ast.parse(source)))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("registration.coarse", "from amst_hpc.opencl.devices import find_devices\nimport scipy"),
        ("pipeline", "from amst_hpc import __version__\nimport numpy"),
        ("registration.elastix", "def f():\n    import itk"),
        ("parallel.node", "if TYPE_CHECKING:\n    from mpi4py import MPI"),
        ("cli.app", "import typer\ndef align(a, b, c, d, e, f): pass"),
    ],
)
def test_rules_leave_the_rest_alone(module, source):
    tree = ast.parse(source)
    assert not [fault for rule in RULES for fault in rule(module, tree)]


def test_command_line_starts_without_heavy_libraries():
    code = f"import sys, amst_hpc.cli.app; print(*sorted({LAZY!r} & sys.modules.keys()))"
    command = [sys.executable, "-c", code]
    started = subprocess.run(command, capture_output=True, text=True, check=False)
    assert started.returncode == 0, started.stderr
    assert not started.stdout.split(), f"import amst_hpc.cli.app loads {started.stdout}"
