"""Reads the golden data: what its README and LRD.md describe, as runs that a decoder can be asked to repeat.

It lies in `tests/golden`, or in the folder that LRD_GOLDEN names: another set of the same layout runs as well.
"""

import functools
import json
import os
from pathlib import Path

import numpy as np

GOLDEN = Path(os.environ.get("LRD_GOLDEN") or Path(__file__).parent / "golden")


@functools.cache
def arrays(name: str) -> np.lib.npyio.NpzFile:
    """An archive of `goldens/`, by its name without the ending."""
    return np.load(GOLDEN / "goldens" / f"{name}.npz")


@functools.cache
def lrd_runs() -> dict[str, dict]:
    """The runs of Latent Refinement Decoding, by key; their arrays are in `arrays("lrd")`."""
    runs = json.loads((GOLDEN / "goldens" / "lrd_manifest.json").read_text())["runs"]
    return {run["key"]: run for run in runs}


@functools.cache
def reference_runs() -> dict[str, dict]:
    """Every run of the reference samplers, by key."""
    runs = json.loads((GOLDEN / "goldens" / "manifest.json").read_text())["runs"]
    kinds = (".official.", ".fast.", ".plain.", ".block.")
    return {key: run for key, run in runs.items() if any(kind in key for kind in kinds)}


@functools.cache
def field_runs(decoder: str) -> dict[str, dict]:
    """The runs of one decoder of the field ("wino"), by key; their arrays are in `field_array(key, name)`."""
    runs = json.loads((GOLDEN / "field" / "manifest.json").read_text())["runs"]
    return {key: run for key, run in runs.items() if run["decoder"] == decoder}


@functools.cache
def _field_archive(file: str) -> np.lib.npyio.NpzFile:
    return np.load(GOLDEN / "field" / file)


def field_array(key: str, name: str) -> np.ndarray:
    """An array of a run of the field, "canvases" or another that the manifest's `run_arrays` tells of."""
    return _field_archive(f"{key.rpartition('.')[0]}.npz")[f"{key}.{name}"]


def prompts(key: str) -> tuple[np.ndarray, np.ndarray]:
    """Prompt ids `[B, P]` of a reference run and where they are not padding."""
    stored = arrays(reference_runs()[key]["file"].removesuffix(".npz"))
    ids = stored[f"{key}.prompt"]
    mask = stored.get(f"{key}.attention_mask", np.ones_like(ids))
    return ids, mask.astype(bool)


def canvases(key: str) -> np.ndarray:
    """The canvas before the first call of a reference run and after every call, `[n + 1, B, G]`."""
    stored = arrays(reference_runs()[key]["file"].removesuffix(".npz"))
    return stored[f"{key}.canvases"][:, :, stored[f"{key}.prompt"].shape[1] :]


def cache_of(key: str) -> tuple[str, None] | None:
    """The cache of a reference run as the twin knows it: "prefix" or "dual" and no refresh within a block; or None."""
    params = reference_runs()[key]["params"]
    kind = {True: "dual", False: "prefix"}.get(params.get("dual_cache"), params.get("fn", ""))
    return ("dual", None) if "dual" in kind else ("prefix", None) if "prefix" in kind else None


def empty_calls(key: str) -> np.ndarray:
    """bool `[n]`: the calls of a reference run whose block held no mask any more; our loop makes none of them."""
    params = reference_runs()[key]["params"]
    before = canvases(key)[:-1]
    if ".official." in key:  # it runs the planned steps of every block
        blocks = before.reshape(len(before), -1, params["gen_length"] // params["block_length"], params["block_length"])
        active = np.arange(len(before)) // (params["steps"] // blocks.shape[2])
        return ~(blocks[np.arange(len(before)), :, active] == params["mask_id"]).any(axis=(1, 2))
    if cache_of(key) is None:
        return np.zeros(len(before), bool)
    starts = arrays(reference_runs()[key]["file"].removesuffix(".npz"))[f"{key}.call_start"] - prompts(key)[0].shape[1]
    block = starts[:, None] + np.arange(params["block_length"])
    masked = before[np.arange(len(before))[:, None], 0, np.maximum(block, 0)] == params["mask_id"]
    return (starts >= 0) & ~masked.any(axis=1)


def uniforms(key: str, mask_id: int) -> np.ndarray:
    """The draws of a Dream "origin" run by position, `[steps, B, G]`; 1 where none was made."""
    stored = arrays(reference_runs()[key]["file"].removesuffix(".npz"))[f"{key}.uniforms"]
    masked = canvases(key)[:-1] == mask_id
    placed = np.ones(masked.shape, np.float32)
    for step, where in enumerate(masked):
        placed[step][where] = stored[step, : where.sum()]  # recorded row after row, masked positions only
    return placed
