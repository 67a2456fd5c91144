"""Peak host memory of loading a checkpoint, on generated weights of LLaDA's architecture.

    python benchmarks/load_memory.py [--gigabytes 5.5] [--folder SCRATCH]
    python benchmarks/load_memory.py --llada-8b  # and a decode of eight forwards: 17 GiB of memory, 32 GB of disk

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
said = {"params": params, "peak": peak(), "seconds": time.perf_counter() - start}
if decode == "True":
    config = lrd_jax.DecodeConfig(gen_length=8)
    run = lrd_jax.make_decode(loaded.model, config)
    start = time.perf_counter()
    result = jax.block_until_ready(run(loaded.params, jnp.arange(32)[None]))
    said |= {"forwards": int(result.forwards[0]), "decoded": time.perf_counter() - start, "decode_peak": peak()}
print(json.dumps(said))
"""


def measure(folder: Path, dtype: str | None, decode: bool = False) -> dict[str, float]:
    run = [sys.executable, "-c", MEASURED, str(folder), str(dtype), str(decode)]
    done = subprocess.run(run, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"loading {folder} ended with status {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def report(name: str, found: dict[str, float]) -> None:
    above = (found["peak"] - found["params"]) / GIB
    print(f"{name:40} {found['params'] / GIB:6.2f} GiB + {above:.2f} GiB at the peak, {found['seconds']:.1f} s")
    if "forwards" in found:
        peak = found["decode_peak"] / GIB
        print(f"{'':40} {found['forwards']} forwards with their compile: {found['decoded']:.1f} s, peak {peak:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5.5, help="size of the checkpoint in bfloat16")
    parser.add_argument("--folder", type=Path, help="where to work; the system's temporary folder otherwise")
    parser.add_argument("--llada-8b", action="store_true", help="LLaDA-8B's own sizes, in bfloat16, and a decode")
    args = parser.parse_args()
    config = CHECKPOINTS["llada-8b-base"].config if args.llada_8b else config_of(args.gigabytes)
    print(
        f"{config.num_layers} blocks of {config.embed_dim}; {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        hf, orbax = Path(scratch) / "hf", Path(scratch) / "orbax"
        generate(hf, config)
        convert(hf, orbax)
        if args.llada_8b:
            shutil.rmtree(hf)
            report("converted", measure(orbax, None, decode=True))
            return
        for name, folder in (("converted", orbax), ("Hugging Face", hf)):
            report(name, measure(folder, None))
            report(f"{name}, bfloat16 -> float32", measure(folder, "float32"))
            report(f"{name}, bfloat16 -> float16", measure(folder, "float16"))


if __name__ == "__main__":
    main()
