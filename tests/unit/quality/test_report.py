"""The report stands alone, names what fell back, and never fails the run."""

import json
import logging
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
from jobs import restored
from matrices import invert
from report import make_run

from amst_hpc.config import InputError
from amst_hpc.job.journal import decode, encode
from amst_hpc.job.lock import is_written
from amst_hpc.quality import report
from amst_hpc.quality.plots import draw_steps, new_axes, new_figure, plot_curve
from amst_hpc.quality.reslices import RUN, shown_run
from amst_hpc.quality.run_results import applied, read_run_results, sentences, suspects
from amst_hpc.quality.thumbnails import ThumbnailWriter, grey_range, look_at, read_thumbnails
from amst_hpc.settings import from_tree, to_toml
from amst_hpc.transform import compose, translation


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """100 slices of a made-up run; slice 50 fell back."""
    return make_run(tmp_path_factory.mktemp("run"), 100, 256, 3)


def findings(out):
    return read_run_results(out, out.with_suffix(".amst"))


def test_the_page_stands_alone(out):
    page = report.write_report(out).read_text()
    assert len(page) < 10e6
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len(sources) == 7
    assert all(s.startswith("data:image/png;base64,") for s in sources)
    assert "http" not in page
    assert "url(" not in page
    assert "elastix: too few samples" in page
    assert re.search(r">50</td>\s*<td>slice_00050.tif", page)


def test_steps_that_were_not_measured_are_not_drawn(out):
    """Of slices too small to tell, that were only placed."""
    found = findings(out)
    still = replace(found.thumbnails["aligned"], y=np.full(100, np.nan), x=np.full(100, np.nan))
    assert draw_steps(found) is not None
    assert draw_steps(replace(found, thumbnails={"aligned": still})) is None


def test_a_curve_of_a_long_stack_keeps_its_peaks_and_gaps_in_few_points(out):
    found = findings(out)
    long = replace(found, slices=[replace(found.slices[0], z=z) for z in range(30_000)])
    values = np.random.default_rng(1).normal(0, 1, 30_000)
    values[12_345], values[20_000:21_000] = 99, np.nan
    axes = new_axes(new_figure(200), 50, 50, 1000, 100)
    plot_curve(axes, long, values)
    z, drawn = axes.get_lines()[0].get_data()
    assert len(z) < 6000
    assert abs(z[drawn == 99] - 12_345) < 14
    assert (np.nanmin(drawn), np.nanmax(drawn)) == (np.nanmin(values), 99)
    gap = z[np.isnan(drawn)]
    assert (gap[0], gap[-1]) == pytest.approx((20_000, 21_000), abs=26)


def test_words_name_what_fell_back_and_how_steady_it_is(out):
    text = " ".join(sentences(findings(out)))
    assert "99 are registered in full" in text
    assert "1 is not: 1 translation" in text
    assert "Where to look: slices 50 (fell back)" in text
    told = text.partition("the content jumps by")[2]
    jumps = [float(v) for v in re.findall(r"([\d.]+) px \(95 %", told)]
    assert jumps == sorted(jumps, reverse=True)
    assert len(jumps) == 3


def test_pairs_that_do_not_count_are_named(out):
    found = findings(out)
    assert [(p.z, p.k) for p in found.flagged_pairs] == [(50, 1), (50, 2)]
    page = report.write_report(out).read_text()
    rows = re.findall(r"<tr><td>50</td><td>(\d+)</td><td>correlation 0.021, as by chance", page)
    assert rows == ["51", "52"]
    text = " ".join(sentences(found))
    assert "197 pairs of neighbours moved the corners of the slices by 0.60 px (95 %: 0.90)" in text
    assert "2 of the pairs did not count" in text


def test_a_pair_that_is_far_off_the_stack_is_flagged_with_its_size(tmp_path):
    out = make_run(tmp_path, 40, 64, 1)
    log = tmp_path / "long.amst/journal/0001-00000.pair.log"
    lines = log.read_bytes().splitlines(keepends=True)
    wrong = decode(lines[20])
    wrong["matrix"][0][2] += 7
    log.with_name("0002-00000.pair.log").write_bytes(encode(wrong))  # a later attempt counts
    (flagged,) = findings(out).flagged_pairs
    assert (flagged.z, flagged.k) == (wrong["z"], wrong["k"])
    assert flagged.residual == pytest.approx(7, abs=0.3)
    assert flagged.fault.startswith(f"{flagged.residual:.2f} px off, 0.")


@pytest.mark.parametrize(
    ("transform", "told"),
    [("translation", "raw moved by whole pixels"), ("affine", "raw moved (affine)")],
)
def test_of_raw_alone_there_is_no_pre_aligned_stack(tmp_path, transform, told):
    out = make_run(tmp_path, 12, 64, 1)
    folder = out.with_suffix(".amst")
    run = json.loads((folder / "run.json").read_text()) | {"prealigned": ""}
    (folder / "run.json").write_text(json.dumps(run))
    tree = {"prealign": {"transform": transform}, "neighbours": {"enabled": True}}
    (folder / "config.toml").write_text(to_toml(from_tree(tree)))
    found = findings(out)
    assert list(found.stacks.values()) == ["raw", told, "aligned"]
    text = " ".join(sentences(found))
    assert f"{told} " in text
    assert "pre-aligned" not in text
    assert "pre-aligned: from raw alone" in report.write_report(out).read_text()


def test_pairs_of_raw_alone_are_those_it_was_placed_by_in_the_frame_of_raw(tmp_path):
    out = make_run(tmp_path, 40, 64, 1)
    expected, folder = findings(out).pairs, out.with_suffix(".amst")
    log = folder / "journal/0001-00000.pair.log"
    far = decode(log.read_bytes().splitlines(keepends=True)[0]) | {"k": 4}  # leads over gaps alone
    log.with_name("0001-00000.prealign.log").write_bytes(log.read_bytes() + encode(far))
    log.unlink()
    run = json.loads((folder / "run.json").read_text())
    run |= {"prealigned": "", "raw_yx": run["shape_zyx"][1:], "canvas": {"offset_xy": [-9, 5]}}
    (folder / "run.json").write_text(json.dumps(run))
    moved = json.loads((folder / "transforms.json").read_text())
    moved = [m and compose(np.array(m), translation(-9, 5)).tolist() for m in moved]
    (folder / "transforms.json").write_text(json.dumps(moved))
    pairs = findings(out).pairs
    assert [(p.z, p.k, p.fault) for p in pairs] == [(p.z, p.k, p.fault) for p in expected if p.k]
    off = [p.residual for p in expected if p.k]
    np.testing.assert_allclose([p.residual for p in pairs], off, atol=1e-6)


def test_placed_slices_are_not_said_to_be_registered(out):
    found = findings(out)
    slices = [
        replace(s, status="placed" if s.status == "affine" else s.status) for s in found.slices
    ]
    text = " ".join(sentences(replace(found, slices=slices)))
    assert "99 are placed by their raw neighbours, as was asked for" in text
    assert "in full" not in text
    assert "aligned" not in text.replace("pre-aligned", "")


def test_a_run_without_neighbours_says_so(tmp_path):
    out = make_run(tmp_path, 5, 64, 1)
    path = tmp_path / "long.amst/config.toml"
    path.write_text(to_toml(from_tree({"neighbours": {"enabled": False}})))
    assert findings(out).pairs == []
    assert "were not registered to their neighbours" in report.write_report(out).read_text()


def test_a_slice_that_fell_back_makes_no_others_suspect(out):
    found = findings(out)
    found.thumbnails["aligned"].x[50] = 90
    found.thumbnails["aligned"].x[51] = -90
    assert set(suspects(found)[:2]) == {50, 51}
    assert not set(suspects(found)[2:]) & {*range(44, 58)}


def test_a_slice_that_jumps_is_suspected(out):
    found = findings(out)
    before = suspects(found)
    found.thumbnails["aligned"].x[20] = 9
    assert suspects(found)[0] == 20
    assert 20 not in before


def test_a_long_stack_is_shown_around_its_fault_and_as_a_whole(tmp_path):
    found = findings(make_run(tmp_path, 700, 64, 2))
    run = shown_run(found)
    assert run.stop - run.start == RUN
    assert "whole stack" in report.page(found)


def test_what_a_person_has_decided_about_is_told_but_did_not_fall_back(out):
    found = findings(out)
    found.slices[50] = replace(found.slices[50], status="shifted", reason="override: shift 3 -2")
    text = " ".join(sentences(found))
    assert "1 is not: 1 shifted (moved as was asked for)" in text
    assert "(fell back)" not in text.replace("slices none (fell back)", "")
    assert "override: shift 3 -2" in report.page(found)


def test_without_thumbnails_the_rest_is_drawn(tmp_path):
    out = make_run(tmp_path, 5, 64, 1)
    for path in (tmp_path / "long.amst" / "thumbnails").iterdir():
        path.unlink()
    page = report.write_report(out).read_text()
    assert "No thumbnails were kept" in page
    assert "All of them are registered in full" in page


def test_a_slice_without_a_transform_is_drawn(tmp_path):
    out = make_run(tmp_path, 5, 64, 1)
    path = tmp_path / "long.amst" / "transforms.json"
    path.write_text(json.dumps([None, *json.loads(path.read_text())[1:]]))
    assert "<img" in report.write_report(out).read_text()


def test_no_fault_in_drawing_fails_the_run(tmp_path, monkeypatch, caplog):
    def broken(out):
        raise ZeroDivisionError("drawn")

    monkeypatch.setattr(report, "write_report", broken)
    with restored(), caplog.at_level(logging.WARNING):
        report.try_report(tmp_path / "x.h5")
    assert [r.getMessage() for r in caplog.records] == [
        "the report could not be drawn (ZeroDivisionError: drawn)"
    ]


def test_a_stop_ends_the_drawing_and_not_the_run(out, monkeypatch, caplog):
    """The lock is free, and the same signals may come once more."""
    write, folder = report.write_report, out.with_suffix(".amst")

    def told(out):
        os.kill(os.getpid(), signal.SIGTERM)
        return write(out)

    monkeypatch.setattr(report, "write_report", told)
    with restored(), caplog.at_level(logging.WARNING):
        report.try_report(out)
        os.kill(os.getpid(), signal.SIGTERM)
    assert [r.getMessage() for r in caplog.records] == [
        "the report could not be drawn (Stopped: SIGTERM)"
    ]
    assert is_written(folder) is None
    monkeypatch.setattr(report, "write_report", write)
    with restored():
        report.try_report(out)
    assert (folder / "report.html").exists()


def test_there_is_no_report_of_nothing(tmp_path):
    with pytest.raises(InputError, match="finished align"):
        report.write_report(tmp_path / "x.h5")


def test_what_was_applied_is_named(out):
    angle, size = np.radians(2), (100, 200)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = np.hstack([turn @ [[1.02, 0.03], [0, 0.99]], [[0], [0]]])
    centre = translation(99.5, 49.5)
    whole = compose(translation(5, -7), compose(centre, compose(forward, invert(centre))))
    done = applied(np.array([invert(whole), np.full((2, 3), np.nan)]), size)
    expected = {"x": 5, "y": -7, "rotation": 2, "scale_x": 2, "scale_y": -1, "shear": 3}
    assert {key: values[0] for key, values in done.items()} == pytest.approx(expected, abs=1e-9)
    assert all(np.isnan(values[1]) for values in done.values())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lines_and_steps_come_back_and_a_later_attempt_counts(tmp_path, dtype):
    ramp = np.add.outer(np.arange(90) * 2, np.arange(70)).astype(dtype)
    noise = np.random.default_rng(1).integers(0, 255, (90, 70)).repeat(2, 0).astype(dtype)
    with ThumbnailWriter(tmp_path / "t", "0001-00000", "register") as keeper:
        keeper.add("raw", 3, look_at(noise[:90]))
        keeper.add("raw", 4, look_at(np.roll(noise[:90], (2, -1), (0, 1))))
        keeper.add("raw", 6, look_at(ramp * 0))
    with ThumbnailWriter(tmp_path / "t", "0002-00000", "register") as keeper:
        keeper.add("raw", 6, look_at(ramp))
    with next((tmp_path / "t").glob("0002*")).open("ab") as file:
        file.write(b"0badc0de {")  # torn by a crash
    kept = read_thumbnails(tmp_path / "t", range(3, 8))["raw"]
    assert (kept.y[1], kept.x[1]) == pytest.approx((2, -1), abs=0.1)
    assert np.isnan(kept.y[[0, 2, 3, 4]]).all()
    xz, yz = (kept.lines(plane, range(5)) for plane in ("xz", "yz"))
    assert xz.dtype == dtype
    assert (xz[3] == ramp[44]).all()
    assert (yz[3] == ramp[:, 34]).all()
    assert not xz[4].any()


def test_long_lines_are_averaged_down(tmp_path):
    with ThumbnailWriter(tmp_path / "t", "0001-00000", "write") as keeper:
        keeper.add("aligned", 0, look_at(np.tile(np.arange(5000) // 50, (8, 1)).astype(np.uint8)))
    kept = read_thumbnails(tmp_path / "t", [0])["aligned"]
    assert kept.sizes == {"xz": 1666, "yz": 8}
    assert (kept.lines("xz", [0])[0] == np.arange(1666) * 3 // 50).mean() > 0.9


def test_grey_values_to_show_come_from_samples_of_the_slices(tmp_path):
    image = np.random.default_rng(2).integers(100, 201, (120, 150)).astype(np.uint8)
    image[:30] = 0
    image[-20:] = 255  # a margin, too
    for rank in range(2):
        with ThumbnailWriter(tmp_path, f"0001-0000{rank}", "write") as kept:
            for z in range(rank, 40, 2):
                kept.add("aligned", z, look_at(image))
                kept.add("raw", z, look_at(image * 0 + 250))
    assert grey_range(tmp_path) == pytest.approx((100, 200), abs=3)
    assert grey_range(tmp_path / "none") == (0.0, 255.0)
