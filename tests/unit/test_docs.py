"""The pages: what they show runs, what they name exists, what the program makes is current."""

import ast
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import tifffile
from jobs import environment
from launch import find_mpirun

from amst_hpc import __version__, amst_main
from amst_hpc.cluster.site import Site, load_site
from amst_hpc.cluster.submit import size_job
from amst_hpc.config import Config
from amst_hpc.images.stack import Stack
from amst_hpc.job.journal import decode, records
from amst_hpc.preflight.estimate import estimate
from amst_hpc.registration import coarse
from amst_hpc.synthetic.stack import make_demo

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "amst_hpc"
MADE = ("docs/commands.md", "docs/settings.md")
WRITTEN = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/howto.md", "docs/design.md")
PAGES = (*WRITTEN, *MADE, "benchmarks/RESULTS.md")
LANGUAGES = {"sh", "toml", "python", "json", "text"}

NOT_RUN = {  # how a line begins, and why it is not run here
    "git clone": "needs the network",
    "cd amst_hpc": "of the clone",
    "make ": "makes environments and images; .ci/run calls the same targets",
    ".ci/run": "calls this test",
    "export PATH": "of the clone",
    "apptainer": "needs Apptainer and the image: tests/container",
    "$EDITOR": "needs a person",
    "sbatch": "needs Slurm: tests/slurm",
    "srun": "needs Slurm: tests/slurm",
}
SENDS = "--yes"  # to Slurm: tests/slurm
QUICK = ("coarse.method=xcorr", "refine.backend=none", "output.report=false")
ONE_INTERPRETER = """
import json, sys
from pathlib import Path
from typer.testing import CliRunner
from amst_hpc.cli.app import app
told = []
for words, target in json.load(sys.stdin):
    done = CliRunner().invoke(app, words)
    if target:
        Path(target).write_text(done.stdout)
    told.append((done.exit_code, done.output))
print("\\n" + json.dumps(told))
"""
TO_BE_MADE = {  # by who follows a recipe
    "amst_hpc/images/mrc.py",
    "amst_hpc/registration/mine.py",
    "amst_hpc/passes/write_mine.py",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is its first."""

    page: str
    line: int
    language: str
    text: str


def read(page: str) -> str:
    return (CHECKOUT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[Block]:
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL):
        line = read(page)[: match.start()].count("\n") + 2
        found.append(Block(page, line, match[1], match[2]))
    return [block for block in found if not languages or block.language in languages]


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)


def load_generator():
    spec = importlib.util.spec_from_file_location("generate", CHECKOUT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- what is made from the program


def test_pages_made_from_the_program_are_current(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")  # no terminal may show in them
    monkeypatch.setenv("FORCE_COLOR", "1")
    for name, text in load_generator().pages().items():
        assert read(f"docs/{name}") == text, f"docs/{name}: run python docs/generate.py"


def test_citation_has_this_version_and_the_paper():
    text = read("CITATION.cff")
    assert re.findall(r"^version: (.*)$", text, re.MULTILINE) == [__version__]
    assert "doi: 10.1038/s41598-020-58736-7" in text
    licence = tomllib.loads(read("pyproject.toml"))["project"]["license"]
    assert re.findall(r"^license: (.*)$", text, re.MULTILINE) == [licence]


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the table whose head has a cell `heading`, without that line."""
    lines = read(page).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("|") and heading in line)
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]])
    return rows


def test_sizes_of_jobs_are_what_the_program_computes():
    rows = table("docs/howto.md", "`submit` asks per rank")
    assert len(rows) == 8
    for size, dtype, *numbers in rows:
        height, width = (int(n) for n in size.split(" x "))
        need = estimate(1000, (height, width), dtype, Config())
        asked = size_job(need, Site(ranks_per_node=16, nodes=4)).memory_mb_per_rank / 1000
        expected = [need.rank_bytes / 1e9, asked, need.seconds / need.slices]
        assert numbers == [f"{value:.1f}" for value in expected], size


def test_ranks_per_gpu_are_what_the_program_allows():
    """As `Matcher.share_memory` reckons, and what resampling takes: the larger counts."""
    config = Config()
    for size, gigabytes, *ranks in table("docs/howto.md", "GB per rank"):
        shape = (int(size.split(" x ")[0]),) * 2
        pixels = shape[0] ** 2 / config.registration.factor(shape) ** 2
        need = coarse.SIFT_BYTES * pixels / config.coarse.downsample**2
        need += coarse.DEVICE_IMAGES * 4 * pixels + (2 * config.template.radius + 5) * pixels
        need = max(need, (2 * 4 + 2) * shape[0] ** 2)
        fits = [coarse.MEMORY_PART * memory * 1e9 // need for memory in (12, 24, 48, 80)]
        assert float(gigabytes) == pytest.approx(need / 1e9, abs=0.005)
        assert [int(n) for n in ranks] == fits


# ---- what the pages name


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    text = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return text.replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (CHECKOUT / page).parent / name if name else CHECKOUT / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), target


@pytest.mark.parametrize("page", WRITTEN)
def test_files_and_modules_that_are_named_exist(page):
    names = re.findall(r"(?<![\w/.-])((?:[\w.-]+/)+[\w.-]*\w\.(?:py|md|sh|sbatch))\b", read(page))
    for name in set(names) - TO_BE_MADE:
        places = [CHECKOUT / name, PACKAGE / name, (CHECKOUT / page).parent / name]
        assert any(place.exists() for place in places), name


def test_the_design_page_has_a_paragraph_for_each_room_in_their_order():
    tree = ast.parse(read("tests/unit/test_architecture.py"))
    rooms = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS"
    )
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    told = re.findall(r"^\*\*`(\w+)/`\*\*", read("docs/design.md"), re.MULTILINE)
    assert told == [room for room in rooms if room in folders]


def messages() -> list[str]:
    """Every text of the program; what is put in is a blank of its own."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_refusals_are_said_by_the_program():
    texts = messages()
    rows = table("docs/howto.md", "it says")
    assert len(rows) > 20
    for row in rows:
        for quoted in re.findall(r"`([^`]+)`", row[0]):
            pieces = [piece.strip() for piece in quoted.split("...")]
            for piece in pieces:
                assert any(piece in text for text in texts), f"{piece!r} of {quoted}"


# ---- blocks


@pytest.mark.parametrize("page", WRITTEN)
def test_blocks_say_what_they_are(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page}:{block.line}"
    indented = re.findall(r"(?:^|\n)\n {4}\S.*", prose(page))
    assert not indented, "fence it, and say what it is"


@pytest.mark.parametrize(
    "block",
    [block for page in WRITTEN for block in blocks(page, "python", "json", "toml")],
    ids=lambda block: f"{block.page}:{block.line}",
)
def test_blocks_can_be_read(block, tmp_path):
    if block.language == "python":
        compile(block.text, f"{block.page}:{block.line}", "exec")
    elif block.language == "json":
        json.loads(block.text)
    else:
        path = tmp_path / "site.toml"
        path.write_text(block.text)
        assert load_site(path) != Site()


def test_the_recipe_of_an_image_format_has_all_of_a_stack():
    recipe = next(b for b in blocks("CONTRIBUTING.md", "python") if "class MrcStack" in b.text)
    members = {name for name in vars(Stack) if not name.startswith("_")}
    members |= set(Stack.__annotations__)
    for name in members:
        assert re.search(rf"def {name}\(|self\.{name}\b", recipe.text), name


def test_the_script_for_amst_runs(monkeypatch, tmp_path):
    (script,) = blocks("README.md", "python")
    called = []
    monkeypatch.setattr(
        amst_main, "launch", lambda ranks, words: called.append((ranks, words)) or 0
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    exec(compile(script.text, script.page, "exec"), {})
    ((ranks, words),) = called
    assert ranks == 12
    assert words[:4] == ["align", "raw/*.tif", "prealigned/*.tif", "aligned"]


# ---- command lines


def command_lines(page: str) -> list[str]:
    lines = [line for block in blocks(page, "sh") for line in block.text.splitlines()]
    parts = [part.strip() for line in lines for part in re.sub(r"\s# .*", "", line).split(" && ")]
    return [part for part in parts if part]


def is_run(line: str) -> bool:
    return SENDS not in line.split() and not line.startswith(tuple(NOT_RUN))


def test_lines_that_are_not_run_are_there():
    lines = [line for page in WRITTEN for line in command_lines(page)]
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in lines), f"{start}: not in the pages any more"
    assert any(SENDS in line for line in lines)


def words_of(line: str) -> tuple[list[str], str]:
    """The arguments of amst-hpc, and the file that its output goes to."""
    line, _, target = line.partition(" > ")
    words = shlex.split(line)
    program = 3 if words[0] == "mpirun" else 0
    known = words[: program + 1] in (["amst-hpc"], ["mpirun", "-n", "8", "amst-hpc"])
    assert known, f"{line}: neither amst-hpc nor named in NOT_RUN"
    command, *rest = words[program + 1 :]
    quick = [word for change in QUICK for word in ("--set", change)] if command == "align" else []
    return [command, *quick, *rest], target.strip()


def run_together(lines: list[str], folder: Path) -> None:
    """Lines without mpirun, in one new interpreter: it starts once."""
    done = subprocess.run(
        [sys.executable, "-c", ONE_INTERPRETER],
        input=json.dumps([words_of(line) for line in lines]),
        env=environment() | {"HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    for line, (code, output) in zip(lines, told, strict=True):
        check(line, code, output)


def run_on_ranks(line: str, folder: Path) -> None:
    """On two ranks instead of eight."""
    words, _ = words_of(line)
    command = [find_mpirun(), "-n", "2", sys.executable, "-m", "amst_hpc", *words]
    done = subprocess.run(
        command, env=environment(), cwd=folder, capture_output=True, text=True, check=False
    )
    check(line, done.returncode, done.stdout + done.stderr)


def check(line: str, code: int, output: str) -> None:
    good = (0, 3) if " align " in line else (0,)  # so small a stack may fall back
    assert code in good, f"{line}\n{output}"


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RAW and PREALIGNED, other stacks of the same slices, and the tables that the how-to shows."""
    folder = tmp_path_factory.mktemp("pages")
    make_demo(folder, 12, 96)
    for name in ("raw", "prealigned"):
        (folder / name).rename(folder / name.upper())
    for name in ("ESB", "LABELS"):
        shutil.copytree(folder / "RAW", folder / name)
    (folder / "FULL").mkdir()
    for path in (folder / "RAW").iterdir():
        image = tifffile.imread(path).repeat(2, 0).repeat(2, 1)
        tifffile.imwrite(folder / "FULL" / path.name, image)
    (manifest,) = (b for b in blocks("docs/howto.md", "text") if b.text.startswith("raw\t"))
    (folder / "stacks.tsv").write_text(manifest.text)
    (table,) = (b for b in blocks("docs/howto.md", "text") if b.text.startswith("slice,action"))
    (folder / "bad.csv").write_text(table.text)
    return folder


@pytest.fixture
def folder(stacks: Path, tmp_path: Path) -> Path:
    """An empty folder but for what `stacks` holds."""
    return Path(shutil.copytree(stacks, tmp_path, dirs_exist_ok=True))


@pytest.mark.parametrize("page", ["README.md", "docs/howto.md"])
def test_command_lines_run_as_they_stand(page, folder):
    waiting: list[str] = []
    for line in filter(is_run, command_lines(page)):
        if not line.startswith("mpirun"):
            waiting.append(line)
            continue
        run_together(waiting, folder)
        run_on_ranks(line, folder)
        waiting = []
    if waiting:
        run_together(waiting, folder)


def test_the_files_of_a_run_look_as_the_design_page_shows(folder):
    made = ["RAW PREALIGNED OUT.h5", "RAW ALONE.h5 --prealign"]
    run_together([f"amst-hpc align {stacks}" for stacks in made], folder)
    texts = [block.text for block in blocks("docs/design.md", "text")]
    run = folder / "OUT.amst"
    (shown,) = (text for text in texts if text.startswith("index,"))
    assert shown.splitlines()[0] == (run / "slices.csv").read_text().splitlines()[0]
    lines = [line for text in texts for line in text.splitlines() if '{"kind"' in line]
    examples = {found["kind"]: found for line in lines if (found := decode(f"{line}\n".encode()))}
    assert len(examples) == len(lines) == 7
    alone = folder / "ALONE.amst" / "journal"
    assert {r["kind"] for r in records(alone, "*.prealign.log")} == {"seen", "pair"}
    for journal in (run / "journal", alone):
        for record in records(journal, "*.log"):
            assert record.keys() <= examples[record["kind"]].keys(), record
    (outline,) = blocks("docs/design.md", "json")
    began = json.loads((run / "journal" / "fingerprint.json").read_text())
    shown = json.loads(outline.text)
    assert shown.keys() == began.keys()
    for key, part in shown.items():
        assert type(part) is type(began[key]), key
        if isinstance(part, dict):
            assert part.keys() <= began[key].keys(), key
