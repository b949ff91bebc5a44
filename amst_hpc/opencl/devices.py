"""OpenCL devices: which there are, which one a rank takes, and proof that it computes.

A node's GPUs are dealt to its ranks in turn (node-local rank modulo the GPUs that the rank may
see); without a GPU the CPU runs OpenCL. A device counts only after a kernel was built and run on
it: drivers that are listed but broken are common (two copies of pocl, a processor newer than the
compiler).
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import signal
import subprocess
import sys
from ctypes import CDLL, RTLD_GLOBAL
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amst_hpc import __version__
from amst_hpc.config import InputError
from amst_hpc.opencl.compiling import build, compiled_once
from amst_hpc.parallel.node_cache import SCRATCH, node_folder, use_scratch
from amst_hpc.parallel.signals import keeping_handlers
from amst_hpc.software import library_version

log = logging.getLogger(__name__)
SYSTEM_VENDORS = Path("/etc/OpenCL/vendors")
CPU_RUNTIME = "intel-opencl-rt"
CPU_RUNTIME_LIBRARIES = ("libintlc.so.5", "libirng.so", "libimf.so", "libsvml.so", "libtbb.so.12")
CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)

PROBE = (
    "__kernel void probe(__global float *a) "
    "{ int i = get_global_id(0); a[i] = a[i] + sqrt((float)i); }"
)


class NoDeviceError(Exception):
    """No OpenCL device computes; the message says what was tried."""


@dataclass(frozen=True)
class Device:
    """An OpenCL device; `platform` and `index` are the numbers that `--device P:D` takes."""

    platform: int
    index: int
    platform_name: str
    name: str
    kind: str
    memory: int
    identity: str

    def __str__(self) -> str:
        where = f", {self.identity}" if self.identity else ""
        return f"{self.platform}:{self.index} {self.name} ({self.platform_name}{where})"


_contexts: dict[Device, Any] = {}
"""Proven ones of this process."""


def prepare(cache: Path, threads: int) -> None:
    """Make OpenCL ready in this process: before the first import of pyopencl.

    cache : node-local folder of this rank alone, for compiled kernels and the list of drivers.
    threads : processor cores of this rank; CPU OpenCL takes no more.
    """
    for variable in ("CL_CONFIG_CPU_TBB_NUM_WORKERS", "POCL_MAX_PTHREAD_COUNT"):
        os.environ.setdefault(variable, str(threads))
    use_scratch(cache)
    for variable, folder in (
        ("POCL_CACHE_DIR", cache / "pocl"),
        ("CUDA_CACHE_PATH", (node_folder() or cache) / "cuda"),  # made for many processes
    ):
        os.environ[variable] = str(folder)
    # pyopencl reads this variable, without a default, when it cannot use what is in its cache
    os.environ.setdefault("PYOPENCL_CACHE_FAILURE_FATAL", "")
    runtime, vendors = _cpu_runtime(), cache / "vendors"
    if runtime is None or os.environ.get("OCL_ICD_VENDORS", str(vendors)) != str(vendors):
        return
    for name in CPU_RUNTIME_LIBRARIES:
        if (runtime.parent / name).exists():
            CDLL(str(runtime.parent / name), RTLD_GLOBAL)
    vendors.mkdir(parents=True, exist_ok=True)
    for icd in sorted(SYSTEM_VENDORS.glob("*.icd")):
        (vendors / icd.name).write_text(icd.read_text())
    (vendors / "amst_hpc_cpu.icd").write_text(f"{runtime}\n")
    os.environ["OCL_ICD_VENDORS"] = str(vendors)


def runs_without_crash(statement: str, device: Device) -> bool:
    """Run a Python statement that compiles for a device in a process of its own, once per node.

    OpenCL and its cache are as here. What was compiled is in the cache then, and the memory of the
    compiler is free again. False if a driver crashed.
    """
    import pyopencl as cl

    opened = cl.get_platforms()[device.platform].get_devices()[device.index]
    try:
        with compiled_once(opened, __version__, library_version("silx")) as there:
            if not there:
                _run_apart(statement)
    except ChildProcessError as error:
        log.warning("kernels were not compiled beforehand: %s", error)
        return -(error.errno or 0) not in CRASHES
    return True


def _run_apart(statement: str) -> None:
    """Raises ChildProcessError, with the exit status, if it fails."""
    code = (
        "from pathlib import Path\nfrom amst_hpc.opencl import devices\n"
        f"devices.prepare(Path({os.environ[SCRATCH]!r}), 1)\n{statement}"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", code], capture_output=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ChildProcessError(done.returncode, (said or ["no reason"])[-1])


def _cpu_runtime() -> Path | None:
    """The CPU OpenCL that PyPI brings, which no system folder names."""
    try:
        files = importlib.metadata.files(CPU_RUNTIME) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(f.locate())).resolve() for f in files if f.name == "libintelocl.so"]
    return found[0] if found and found[0].exists() else None


def find_devices() -> list[Device]:
    """All devices of all platforms, GPUs first. Empty where OpenCL is not there."""
    try:
        import pyopencl as cl

        platforms = cl.get_platforms()
    except Exception as error:
        log.debug("no OpenCL: %s", error)
        return []
    found = []
    for p, platform in enumerate(platforms):
        try:
            devices = platform.get_devices()
        except cl.Error:
            continue
        found += [_describe(cl, p, i, platform, device) for i, device in enumerate(devices)]
    order = {"gpu": 0, "accelerator": 1, "cpu": 2}
    return sorted(
        found,
        key=lambda d: (order[d.kind], not d.platform_name.startswith("Intel"), d.platform, d.index),
    )


def _describe(cl: Any, p: int, i: int, platform: Any, device: Any) -> Device:
    kinds = cl.device_type
    kind = "gpu" if device.type & kinds.GPU else "cpu" if device.type & kinds.CPU else "accelerator"
    identity = ""
    if kind == "gpu":
        try:
            identity = f"PCI {device.pci_bus_id_nv:02x}:{device.pci_slot_id_nv:02x}"
        except (cl.Error, AttributeError):
            try:
                identity = f"PCI {device.topology_amd.bus:02x}"
            except (cl.Error, AttributeError):
                identity = ""
    return Device(
        p, i, platform.name.strip(), device.name.strip(), kind, device.global_mem_size, identity
    )


def candidates(wanted: str, local_rank: int, devices: list[Device]) -> list[Device]:
    """The devices that a rank should try, best first.

    wanted : auto, gpu, cpu, PLATFORM:DEVICE or part of a name. Raises `InputError` if nothing fits.
    """
    gpus = [d for d in devices if d.kind == "gpu"]
    others = [d for d in devices if d.kind != "gpu"]
    turn = local_rank % len(gpus) if gpus else 0
    dealt = gpus[turn : turn + 1]
    if wanted == "auto":
        return dealt + others
    chosen = (
        dealt
        if wanted == "gpu"
        else [d for d in others if d.kind == "cpu"]
        if wanted == "cpu"
        else [d for d in devices if wanted == f"{d.platform}:{d.index}"]
        or [d for d in devices if wanted.lower() in d.name.lower()]
    )
    if not chosen:
        there = "; ".join(map(str, devices)) or "no OpenCL device"
        raise InputError(f"coarse.device = {wanted!r}: no such device; there is {there}")
    return chosen


def check_device(wanted: str) -> None:
    """Raises `InputError` if a device is named and there is none of that name."""
    if wanted != "auto":
        candidates(wanted, 0, find_devices())


def ranks_sharing(ranks_on_node: int) -> int:
    """How many ranks of this node take the same GPU."""
    gpus = sum(device.kind == "gpu" for device in find_devices())
    return -(-ranks_on_node // max(1, gpus))


def open_device(wanted: str, local_rank: int, fresh: bool = False) -> tuple[Any, Device]:
    """A context on the rank's device, proven by a kernel.

    The same one as before, since many processes take seconds to make theirs on one GPU; a new one
    if `fresh`: an error may have spoilt the other. Raises `InputError` for a device that does not
    exist, `NoDeviceError` if none computes.
    """
    devices = find_devices()
    tried = []
    for device in candidates(wanted, local_rank, devices):
        try:
            if fresh or device not in _contexts:
                _contexts[device] = prove(device)
            return _contexts[device], device
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            tried.append(f"{device}: {reason[-1][:120]}")
            log.warning("OpenCL device %s does not compute: %s", device, reason[0][:120])
    raise NoDeviceError("; ".join(tried) or "no OpenCL device found")


def prove(device: Device) -> Any:
    """A context on which a kernel was built and gave the right numbers. Raises on failure."""
    with keeping_handlers():  # at its first use Intel's OpenCL sets its own, which swallow all
        return _prove(device)


def _prove(device: Device) -> Any:
    import pyopencl as cl

    context = cl.Context([cl.get_platforms()[device.platform].get_devices()[device.index]])
    queue = cl.CommandQueue(context)
    values = np.ones(64, np.float32)
    flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
    buffer = cl.Buffer(context, flags, hostbuf=values)
    program = build(context, PROBE)
    program.probe(queue, (values.size,), None, buffer)
    cl.enqueue_copy(queue, values, buffer)
    if not np.allclose(values, 1 + np.sqrt(np.arange(values.size))):
        raise RuntimeError("a test kernel gave wrong numbers")
    return context
