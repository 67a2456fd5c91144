"""Peak host memory of a conversion and of an export, on a generated checkpoint of LLaDA's architecture.

    python benchmarks/convert_memory.py [--gigabytes 2] [--folder SCRATCH]

Each measured command runs in a process of its own. Counted is the growth of that process's VmHWM (Linux: the largest
resident set, file pages that it maps included) over what it was when python, jax, flax, orbax and this package were
imported. The page cache of files that are read and written is the kernel's and is not counted.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np

from lrd_jax.convert.hf_config import to_hf
from lrd_jax.convert.tables import param_shapes, tensors
from lrd_jax.convert.writer import MAX_SHARD_BYTES, write_tensors
from lrd_jax.models import CHECKPOINTS, ModelConfig

MEASURED = """
import json, sys, time
from pathlib import Path
from lrd_jax.convert import convert, export
source, dest, verify = sys.argv[2:]

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

before, start = peak(), time.perf_counter()
if sys.argv[1] == "convert":
    convert(source, Path(dest), verify=verify == "True")
else:
    export(Path(source), Path(dest))
print(json.dumps({"imported": before, "peak": peak(), "seconds": time.perf_counter() - start}))
"""


def generate(folder: Path, config: ModelConfig) -> None:
    """Random bfloat16 weights for the config, one slab at a time."""
    noise = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32).astype(ml_dtypes.bfloat16)
    dtype = noise.dtype

    def read(tensor, slab):
        shape = np.broadcast_to(np.empty((), dtype), param_shapes(config)[tensor.path])[slab.index].shape
        return np.resize(noise, shape)

    dtypes = {path: dtype for path in param_shapes(config)}
    folder.mkdir()
    write_tensors(tensors(config), dtypes, read, folder, max_shard_bytes=MAX_SHARD_BYTES, progress=None)
    (folder / "config.json").write_text(json.dumps(to_hf(config, "bfloat16")))


def config_of(gigabytes: float) -> ModelConfig:
    """LLaDA's vocabulary and as many narrower blocks as make a checkpoint of about that size in bfloat16."""
    sizes = CHECKPOINTS["llada-8b-base"].config.to_json() | {"embed_dim": 2048, "mlp_dim": 5632, "num_heads": 16}
    sizes["num_kv_heads"] = 16
    one, two = (_nbytes(ModelConfig.from_json(sizes | {"num_layers": n})) for n in (1, 2))
    layers = max(1, round((gigabytes * 1e9 - one) / (two - one)) + 1)
    return ModelConfig.from_json(sizes | {"num_layers": layers})


def measure(command: str, source: Path, dest: Path, verify: bool = False) -> dict[str, float]:
    run = [sys.executable, "-c", MEASURED, command, str(source), str(dest), str(verify)]
    return json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the checkpoint; its blocks are added up")
    parser.add_argument("--folder", type=Path, help="where to work; the system's temporary folder otherwise")
    args = parser.parse_args()
    config = config_of(args.gigabytes)
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        work = Path(scratch)
        generate(work / "hf", config)
        orbax = f"orbax-checkpoint {importlib.metadata.version('orbax-checkpoint')}"
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        print(f"{_nbytes(config) / 1e9:.2f} GB bfloat16, {config.num_layers} blocks; {orbax}, {machine}")
        for name, command, source, dest, verify in (
            ("convert", "convert", "hf", "orbax", False),
            ("convert --verify", "convert", "hf", "verified", True),
            ("export", "export", "orbax", "back", False),
        ):
            found = measure(command, work / source, work / dest, verify)
            above = (found["peak"] - found["imported"]) / 1e9
            imported = found["imported"] / 1e9
            print(f"{name:17} {above:.2f} GB above the {imported:.2f} GB imported, {found['seconds']:.1f} s")


def _nbytes(config: ModelConfig) -> int:
    return 2 * sum(int(np.prod(shape)) for shape in param_shapes(config).values())


if __name__ == "__main__":
    main()
