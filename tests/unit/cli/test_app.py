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
