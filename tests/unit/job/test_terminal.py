"""Tables as text, in the width that is asked for."""

from amst_hpc.job.terminal import render_table


def test_a_table_keeps_to_its_width_and_loses_nothing():
    text = render_table("two jobs", ("output", "reason"), [("a.h5", "x" * 60), ("b.h5", "")], 40)
    lines = text.splitlines()
    assert lines[0].strip() == "two jobs"
    assert max(map(len, lines)) <= 40
    assert text.count("x") == 60
    assert "b.h5" in text
