"""Completion as bash asks for it, and as it is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "amst-hpc"


def run(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [PROGRAM, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("amst-hpc al", ["align"]),
        ("amst-hpc m", ["merge"]),
        ("amst-hpc align --overw", ["--overwrite"]),
        ("amst-hpc align ra", []),  # bash itself completes the names of files
    ],
)
def test_bash_gets_what_can_follow(words, expected):
    last = str(len(words.split()) - 1)
    answer = run(_AMST_HPC_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=last)
    assert answer.split() == expected


def test_the_installed_script_completes_in_bash(tmp_path):
    home = {
        "HOME": str(tmp_path),
        "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    run("--install-completion", "bash", **home)
    ask = (
        "source ~/.bashrc; COMP_WORDS=(amst-hpc al); COMP_CWORD=1; "
        "_amst_hpc_completion amst-hpc; echo ${COMPREPLY[*]}"
    )
    answer = subprocess.run(
        ["bash", "--norc", "-c", ask],
        env=os.environ | home,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split() == ["align"]
