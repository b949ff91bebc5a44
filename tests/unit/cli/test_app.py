"""The command line as a whole: it starts fast, takes one thread, and says its version."""

import os
import resource
import subprocess
import sys

from jobs import call, run

from amst_hpc import __version__


def test_help_comes_at_once():
    """Processor time: the same as wall time on an idle machine, and no matter on a busy one."""

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run(0, "--help").code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(4)) < 0.7


def test_version():
    assert call("--version").stdout == f"amst-hpc {__version__}\n"


def test_a_command_takes_one_thread_for_matrices_unless_it_is_told_otherwise():
    """numpy looks at the variable when it is imported: the command line must not have done so."""
    code = """
import os, sys
from amst_hpc.cli import app as cli
assert "numpy" not in sys.modules
cli.app = lambda: print(os.environ["OPENBLAS_NUM_THREADS"])
cli.main()
"""

    def threads(environment):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return done.stdout.strip()

    without = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    assert threads(without) == "1"
    assert threads(without | {"OPENBLAS_NUM_THREADS": "4"}) == "4"


def test_what_nobody_foresaw_is_one_line_and_a_file(tmp_path):
    code = """
import sys
from amst_hpc.cli import app as cli
def app(): raise LookupError("of a kind")
cli.app = app
cli.main()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    (path,) = tmp_path.iterdir()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"amst-hpc: LookupError: of a kind (an error of the program; {path} has more)"
    ]
    assert "Traceback" in path.read_text()


def test_names_in_another_encoding_are_one_line(tmp_path):
    ended = run(0, "align", os.fsdecode(b"r\xe4w"), "pre", "out.h5", cwd=tmp_path)
    assert ended.code == 2
    assert ended.stderr.splitlines() == [r"amst-hpc: 'r\udce4w': expected UTF-8"]
