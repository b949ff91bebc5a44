"""An error that nobody foresaw: a line, and a file with the traceback."""

import tempfile

from amst_hpc.parallel.crash import describe_error


def failed():
    try:
        raise KeyError("no such thing\nreally")
    except KeyError as error:
        return error


def test_the_traceback_goes_to_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = describe_error(failed())
    (path,) = tmp_path.iterdir()
    assert line.splitlines() == [line]
    assert line.startswith("KeyError: ")
    assert str(path) in line
    assert "in failed" in path.read_text()


def test_another_folder_does_where_the_first_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert str(tmp_path) in describe_error(failed())
    monkeypatch.setattr(tempfile, "tempdir", str(gone))
    assert "in failed" in describe_error(failed())
