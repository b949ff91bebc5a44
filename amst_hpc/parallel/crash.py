"""An error that nobody foresaw: one line for the reader, the traceback in a file of its own."""

from __future__ import annotations

import os
import platform
import tempfile
import traceback
from pathlib import Path


def describe_error(error: BaseException) -> str:
    """Kind and reason of an error, and the file in the working folder (or TMPDIR) that has more."""
    lines = str(error).strip().splitlines()
    line = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    text = "".join(traceback.format_exception(error))
    name = f"amst-hpc-error-{platform.node()}-{os.getpid()}.log"
    for folder in (os.getcwd, tempfile.gettempdir):
        try:
            path = Path(folder()) / name
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return f"{line} (an error of the program; {path} has more)"
    return f"{line}\n{text}"
