"""Sizes and plans, with a Slurm that only takes notes (`tests/slurm` has a real one)."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from amst_hpc.cluster import slurm
from amst_hpc.cluster.site import Site
from amst_hpc.cluster.submit import Order, plan_manifest, plan_stack, send_plan, size_job
from amst_hpc.config import Config, InputError
from amst_hpc.images.pairing import Job
from amst_hpc.preflight.estimate import estimate
from amst_hpc.settings import load_config


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "queued", lambda: None)
    monkeypatch.setattr(slurm, "largest_array", lambda: 1000)
    for name in ("raw", "pre"):
        (tmp_path / name).mkdir()
        for z in range(40):
            tifffile.imwrite(tmp_path / name / f"{z:02d}.tif", np.full((8, 9), z + 1, np.uint8))
    rows = [f"raw\tpre\tout{n}.h5" for n in range(5)]
    (tmp_path / "stacks.tsv").write_text("\n".join(["raw\tprealigned\toutput", *rows]))
    return tmp_path


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is sent: name of the script and dependency."""
    notes: list[tuple[str, str]] = []

    def send(script: Path, dependency: str) -> str:
        notes.append((script.name, dependency))
        return str(100 + len(notes))

    monkeypatch.setattr(slurm, "send", send)
    monkeypatch.setattr(slurm, "test", lambda script: f"{script.name} can run")
    return notes


def test_a_job_grows_to_an_hour_and_no_further_than_the_site() -> None:
    need = estimate(5000, (4096, 4096), "uint8", Config())
    site = Site(nodes=8, ranks_per_node=16, hours=24)
    size = size_job(need, site)
    assert (size.nodes, size.ranks_per_node) == (1, 16) or size.nodes > 1
    assert size.nodes == min(8, -(-int(need.seconds) // (16 * 3600)))
    assert size_job(need, Site(nodes=1, ranks_per_node=4, hours=1)).minutes == 60
    assert "5000 slices" in size.reasons[0]


def test_a_small_stack_gets_few_ranks_and_memory_limits_them() -> None:
    small = size_job(estimate(20, (100, 100), "uint8", Config()), Site(ranks_per_node=16))
    assert (small.nodes, small.ranks_per_node) == (1, 2)
    large = estimate(900, (8192, 8192), "uint16", Config())
    size = size_job(large, Site(ranks_per_node=16, memory_gb_per_node=64))
    assert size.ranks_per_node * size.memory_mb_per_rank <= 64000


def test_a_rank_that_is_larger_than_a_node_is_refused() -> None:
    """Not sent with the ranks that the cores allow."""
    need = estimate(900, (20000, 20000), "uint16", Config())
    assert size_job(need, Site(memory_gb_per_node=need.memory_mb / 1000)).ranks_per_node == 1
    with pytest.raises(InputError) as refused:
        size_job(need, Site(memory_gb_per_node=16))
    assert str(refused.value) == (
        "memory_gb_per_node = 16: a rank needs 18.0 GB for slices of 800 MB; "
        "expected nodes with as much"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), "expected nodes with as much"),
        (("template.radius=900",), "expected template.radius = 7, or nodes with as much"),
    ],
)
def test_what_makes_a_rank_smaller_is_named_if_it_does(
    folder: Path, sent: list[tuple[str, str]], settings: tuple[str, ...], said: str
) -> None:
    tifffile.imwrite("large.tif", np.ones((1100, 1100), np.uint8))
    for path in folder.glob("*/*.tif"):
        path.unlink()
        path.hardlink_to("large.tif")
    order = Order(Site(memory_gb_per_node=1.3 if settings else 0.5), changes=settings)
    for plan in (
        lambda: plan_stack(Job("raw", "pre", Path("out.h5")), order),
        lambda: plan_stack(Job("raw", "pre", Path("out0.h5")), order, 4),
        lambda: plan_manifest(Path("stacks.tsv"), order),
    ):
        with pytest.raises(InputError, match=rf"OUT .*out0?\.h5: memory_gb_per_node.*; {said}$"):
            plan()
    assert not sent


def test_memory_of_a_manifest_is_that_of_its_widest_stack(folder: Path) -> None:
    """Not that of the one that takes longest."""
    for name in ("wide_raw", "wide_pre"):
        Path(name).mkdir()
        for z in range(2):
            image = np.full((2048, 2048), z + 1, np.uint8)
            tifffile.imwrite(Path(name, f"{z}.tif"), image)
    manifest = folder / "stacks.tsv"
    manifest.write_text(manifest.read_text() + "\nwide_raw\twide_pre\twide.h5")
    wide = estimate(2, (2048, 2048), "uint8", Config())
    assert f"--mem={wide.memory_mb * 5}M" in plan_manifest(manifest, Order(Site())).show()


def test_one_stack(folder: Path, sent: list[tuple[str, str]]) -> None:
    site = Site(partition="gpu", container="a.sif", container_options=("--nv",), gpus_per_node=2)
    job = Job("raw", "pre", Path("out.h5"))
    plan = plan_stack(job, Order(site, changes=("output.voxel_size_nm=[8, 4, 4]",)))
    text = plan.show()
    assert "#SBATCH --partition=gpu" in text
    assert "#SBATCH --gpus-per-node=2" in text
    assert "AMST=(apptainer exec --nv a.sif amst-hpc)" in text
    assert "OPTIONS=(--set 'output.voxel_size_nm=[8, 4, 4]')" in text
    assert not Path("out.slurm").exists()
    lines = send_plan(plan)
    assert sent == [("align.sbatch", "")]
    assert "follow: amst-hpc status out.h5" in lines
    assert Path("out.slurm/sent.tsv").read_text() == f"101\t\t{folder}/out.h5\n"


@pytest.mark.parametrize("blocks", [0, 4])
def test_overrides_go_with_the_scripts_as_they_are_now(
    folder: Path, sent: list[tuple[str, str]], blocks: int
) -> None:
    table = Path("bad.csv")
    job = Job("raw", "pre", Path("out.h5"), overrides=table)
    for rows, fault in (("40,blank", "slice '40': expected"), ("3,shift,2,1", "")):
        table.write_text(f"slice,action,x,y\n{rows}\n")
        if fault:
            with pytest.raises(InputError, match=fault):
                plan_stack(job, Order(Site()), blocks)
    send_plan(plan_stack(job, Order(Site()), blocks))
    table.unlink()
    script = Path("out.slurm", "blocks.sbatch" if blocks else "align.sbatch").read_text()
    assert "OPTIONS=(--overrides out.slurm/overrides.csv)" in script
    assert Path("out.slurm/overrides.csv").read_text().endswith("3,shift,2,1\n")
    if blocks:
        assert "--overrides" not in Path("out.slurm/merge.sbatch").read_text()


def test_an_output_is_not_sent_twice(
    folder: Path, sent: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job("raw", "pre", Path("out.h5"))
    send_plan(plan_stack(job, Order(Site())))
    monkeypatch.setattr(slurm, "queued", lambda: {("101", ""): "PENDING"})
    with pytest.raises(InputError, match="job 101 for it is in the queue"):
        plan_stack(job, Order(Site()))


@pytest.mark.parametrize("place", [("101", "3"), ("102", ""), ("103", "1"), ("104", "")])
def test_blocks_are_not_sent_twice(
    folder: Path, sent: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, place: slurm.TaskId
) -> None:
    """Not while any step of it is in the queue."""
    send_plan(plan_stack(Job("raw", "pre", Path("out.h5")), Order(Site()), 4))
    monkeypatch.setattr(slurm, "queued", lambda: {place: "RUNNING"})
    with pytest.raises(InputError, match=f"job {place[0]} for it is in the queue"):
        plan_stack(Job("raw", "pre", folder / "out.h5"), Order(Site()))


def test_a_refusal_midway_names_what_was_sent(
    folder: Path, sent: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_merge(script: Path, dependency: str) -> str:
        if dependency:
            raise InputError(f"{script}: Slurm refuses it: too many jobs")
        return "101"

    monkeypatch.setattr(slurm, "send", refuse_merge)
    with pytest.raises(InputError, match="too many jobs; sent before it: job 101"):
        send_plan(plan_stack(Job("raw", "pre", Path("out.h5")), Order(Site()), 4))


def test_paths_with_spaces_and_percent_signs(folder: Path, sent: list[tuple[str, str]]) -> None:
    Path("my 5% cells").mkdir()
    job = Job("raw", "pre", Path("my 5% cells/cell 3.h5"))
    text = plan_stack(job, Order(Site())).show()
    assert '#SBATCH --job-name="amst-cell 3"\n' in text
    assert '#SBATCH --output="my 5%% cells/cell 3.slurm/%x-%j.log"\n' in text
    assert "OUT='my 5% cells/cell 3.h5'" in text


def test_settings_of_a_file_go_into_the_script(folder: Path) -> None:
    Path("amst.toml").write_text(
        '[coarse]\nmethod = "xcorr"\n[output]\nvoxel_size_nm = [8, 5.5, 5]\nlegacy = true\n'
        '[refine.elastix]\nMetric = "AdvancedNormalizedCorrelation"\n'
    )
    changes = ("template.radius=3",)
    options = Order(Site(), Path("amst.toml"), changes).options
    assert "--config" not in options
    assert load_config(None, options[1::2]) == load_config(Path("amst.toml"), changes)
    with pytest.raises(InputError, match="template"):
        Order(Site(), Path("amst.toml"), ("template.radius=x",))


@pytest.mark.parametrize("blocks", [0, 4])
def test_the_shortest_time_limit_is_a_minute(folder: Path, blocks: int) -> None:
    plan = plan_stack(Job("raw", "pre", Path("out.h5")), Order(Site(hours=0.01)), blocks)
    for script in plan.scripts:
        assert "#SBATCH --time=00:01:00" in script.text


def test_a_settings_file_with_a_byte_order_mark(folder: Path) -> None:
    Path("mine.toml").write_text("[template]\nradius = 3\n", encoding="utf-8-sig")
    assert Order(Site(), Path("mine.toml")).options == ("--set", "template.radius=3")


def test_a_stopped_step_goes_back_into_the_queue(folder: Path) -> None:
    plan = plan_stack(Job("raw", "pre", Path("out.h5")), Order(Site(hours=0.4)), 4)
    assert all("  75) echo" in script.text for script in plan.scripts)
    assert "--time=00:24:00" in plan.scripts[1].text


def test_a_merge_follows_each_array_of_blocks(folder: Path, sent: list[tuple[str, str]]) -> None:
    plan = plan_stack(Job("raw", "pre", Path("out.h5")), Order(Site(), throttle=2), 4)
    assert "#SBATCH --array=1-4%2" in plan.show()
    send_plan(plan)
    chain = [("blocks.sbatch", ""), ("merge.sbatch", "afterok:101")]
    assert sent == [*chain, ("blocks.sbatch", "afterok:102"), ("merge.sbatch", "afterok:103")]
    with pytest.raises(InputError, match="41 blocks: expected 1 to 40"):
        plan_stack(Job("raw", "pre", Path("out.h5")), Order(Site()), 41)


def test_raw_alone_in_blocks_is_compared_and_placed_first(
    folder: Path, sent: list[tuple[str, str]]
) -> None:
    plan = plan_stack(Job("raw", "", Path("out.h5")), Order(Site()), 4)
    assert "raw alone, without PREALIGNED (--prealign): out.h5" in plan.reasons
    text = plan.scripts[0].text
    assert "\nPREALIGNED=''\n" in text
    assert 'align "$RAW" "${PREALIGNED:---prealign}" "$OUT" --block' in text
    send_plan(plan)
    assert [name for name, _ in sent] == ["blocks.sbatch", "merge.sbatch"] * 3
    assert [waits for _, waits in sent] == ["", *(f"afterok:{101 + n}" for n in range(5))]


def test_stacks_of_raw_alone_in_a_manifest_are_named(folder: Path) -> None:
    """A cell may have been forgotten."""
    manifest = folder / "stacks.tsv"
    assert "raw alone" not in plan_manifest(manifest, Order(Site())).show()
    manifest.write_text(manifest.read_text().replace("raw\tpre\tout3", "raw\t\tout3"))
    plan = plan_manifest(manifest, Order(Site()))
    assert "# raw alone, without PREALIGNED (--prealign): out3.h5\n" in plan.show()


def test_large_manifests_are_split_and_throttled_together(
    folder: Path, sent: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "largest_array", lambda: 2)
    plan = plan_manifest(Path("stacks.tsv"), Order(Site(), throttle=1))
    send_plan(plan)
    assert [name for name, _ in sent] == ["0001.sbatch", "0002.sbatch", "0003.sbatch"]
    assert [waits for _, waits in sent] == ["", "afterany:101", "afterany:102"]
    rows = Path("stacks.slurm/sent.tsv").read_text().splitlines()
    assert [row.split("\t")[:2] for row in rows] == [
        ["101", "1"], ["101", "2"], ["102", "1"], ["102", "2"], ["103", "1"],
    ]  # fmt: skip


def test_what_is_in_the_queue_is_not_sent_again(
    folder: Path, sent: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    send_plan(plan_manifest(Path("stacks.tsv"), Order(Site())))
    queue = {("101", "1"): "RUNNING", ("101", "2"): "PENDING"}
    monkeypatch.setattr(slurm, "queued", lambda: queue)
    monkeypatch.setattr(slurm, "ended", lambda place: "FAILED")
    plan = plan_manifest(Path("stacks.tsv"), Order(Site()))
    assert [out.name for out in plan.scripts[0].tasks] == ["out2.h5", "out3.h5", "out4.h5"]
    assert plan.scripts[0].name == "0002.sbatch"


def test_a_faulty_manifest_sends_nothing(folder: Path) -> None:
    (folder / "pre/39.tif").unlink()
    with pytest.raises(InputError, match=r"stacks.tsv line 2.*\n.*line 3"):
        plan_manifest(Path("stacks.tsv"), Order(Site()))
