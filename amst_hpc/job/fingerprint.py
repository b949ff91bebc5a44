"""What the records in a run folder belong to: `journal/fingerprint.json`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from amst_hpc.config import Config
from amst_hpc.images.pairing import Inputs
from amst_hpc.registration.elastix import elastix_version
from amst_hpc.settings import to_tree


def fingerprint(inputs: Inputs, config: Config) -> dict[str, Any]:
    """What the results depend on.

    `inputs` and `parameters` those of the registration, `solution` those of what is made of it,
    `output` those of the file. Another `solution` registers no slice again: pairs and
    layers have keys of their own.
    """
    tree = to_tree(config)
    for key in ("writer", "stripes", "report"):
        tree["output"].pop(key)
    stacks = {"raw": inputs.raw} | ({} if inputs.alone else {"prealigned": inputs.prealigned})
    solution = ("neighbours", "drift", *(["prealign"] if inputs.alone else []))
    return {
        "inputs": {name: {"slices": len(s.names)} for name, s in stacks.items()},
        "parameters": dict(inputs.applied) or _parameters(tree, config),
        "solution": {} if inputs.applied else {key: tree[key] for key in solution},
        "output": tree["output"]
        | {"range": [inputs.select.start, inputs.select.stop], "names": _names(inputs, config)},
        "voxel_source": inputs.voxel_source,
    }


def _parameters(tree: dict[str, Any], config: Config) -> dict[str, Any]:
    """Of the registration."""
    found = {key: tree[key] for key in ("template", "registration", "coarse", "refine")}
    found["coarse"].pop("device")
    path = config.refine.parameter_file
    content = Path(path).read_bytes() if path else b""
    found["refine"]["parameter_file"] = hashlib.sha256(content).hexdigest()[:16] if path else ""
    found["refine"]["version"] = elastix_version(config.refine)
    return found


def _names(inputs: Inputs, config: Config) -> str:
    """A digest of the names that the slices of the output get from those of raw."""
    names = inputs.raw.names if config.output.format == "tif" else []
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] if names else ""
