"""Peak host memory of loading a checkpoint, on generated weights of LLaDA's architecture.

    python benchmarks/load_memory.py [--gigabytes 5.5] [--folder SCRATCH]
    python benchmarks/load_memory.py --llada-8b  # and a few forwards: 19 GiB of memory, 32 GB of disk
    python benchmarks/load_memory.py --llada-8b --quantize int8  # 13 GiB of memory, 26 GB of disk

Each load runs in a process of its own. Counted is that process's VmHWM (Linux: the largest resident set, whatever was
imported included); wanted is at most the parameters as loaded and 1 GiB. The page cache of files that are read is the
kernel's and is not counted.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from convert_memory import config_of, generate

from lrd_jax.convert import convert
from lrd_jax.models import CHECKPOINTS

GIB = 2**30

MEASURED = """
import json, sys, time
from pathlib import Path
import jax, jax.numpy as jnp
import lrd_jax

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

folder, dtype, decode = sys.argv[1:]
start = time.perf_counter()
loaded = lrd_jax.load(folder, dtype=None if dtype == "None" else dtype)
params = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded.params))
print(json.dumps({"params": params, "peak": peak(), "seconds": time.perf_counter() - start}), flush=True)
if decode == "True":
    start = time.perf_counter()
    run = lrd_jax.make_decode(loaded.model, lrd_jax.DecodeConfig(gen_length=4))
    result = jax.block_until_ready(run(loaded.params, jnp.arange(16)[None]))
    said = {"forwards": int(result.forwards[0]), "peak": peak(), "seconds": time.perf_counter() - start}
    print(json.dumps(said), flush=True)
"""


def measure(name: str, folder: Path, dtype: str | None, decode: bool = False) -> None:
    """Loads in a process of its own and prints what it took; `decode`: and then decodes four positions."""
    run = [sys.executable, "-c", MEASURED, str(folder), str(dtype), str(decode)]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            said = json.loads(line)
            if "params" in said:
                params = said["params"] / GIB
                above = said["peak"] / GIB - params
                print(f"{name:32} {params:6.2f} GiB + {above:.2f} GiB at the peak, {said['seconds']:.1f} s", flush=True)
            else:
                peak = said["peak"] / GIB
                print(f"{said['forwards']} forwards and their compile: {peak:.2f} GiB, {said['seconds']:.1f} s")
    if process.returncode:
        raise SystemExit(f"loading {folder} ended with status {process.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5.5, help="size of the checkpoint in bfloat16")
    parser.add_argument("--folder", type=Path, help="where to work; the system's temporary folder otherwise")
    parser.add_argument("--llada-8b", action="store_true", help="LLaDA-8B's own sizes, in bfloat16, and a decode")
    parser.add_argument("--quantize", choices=["int8"], help="convert so")
    args = parser.parse_args()
    config = CHECKPOINTS["llada-8b-base"].config if args.llada_8b else config_of(args.gigabytes)
    print(
        f"{config.num_layers} blocks of {config.embed_dim}; {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        hf, orbax = Path(scratch) / "hf", Path(scratch) / "orbax"
        generate(hf, config)
        convert(hf, orbax, quantize=args.quantize)
        if args.llada_8b:
            shutil.rmtree(hf)
            measure("converted", orbax, None, decode=True)
            return
        for name, folder in (("converted", orbax), ("Hugging Face", hf)):
            measure(name, folder, None)
            measure(f"{name}, bfloat16 -> float32", folder, "float32")
            measure(f"{name}, bfloat16 -> float16", folder, "float16")


if __name__ == "__main__":
    main()
