"""What stands between the Enter key and the first answer of `lrd-jax generate`: imports, loading, compiling, decoding.

    python benchmarks/first_answer.py
    python benchmarks/first_answer.py --runs 5 --model lrd-tiny

Every run is a process of its own; the first finds an empty cache of compiled programs (cold), the others what it left
(warm). Seconds of the clock, and of the processor in brackets: on a busy machine the second say more.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile

QUESTION = "Tom has 14 apples. Ann takes 5 apples. The number is doubled. How many are left?"
PARTS = ("command line", "JAX", "the rest", "weights", "compiling", "decoding", "all")

ONE_RUN = """
import json, sys, time
model, question = sys.argv[1:]
marks = [(time.perf_counter(), time.process_time())]
mark = lambda: marks.append((time.perf_counter(), time.process_time()))
import lrd_jax.cli
from lrd_jax.cli.options import Generate
mark()
import jax.numpy
mark()
from lrd_jax.cli import session
mark()
generator = session.generator_for(Generate(question=question, model=model))
mark()
updates = generator.stream([question])
next(updates), next(updates)  # before the first forward, and after it
mark()
for update in updates:
    pass
mark()
assert update.answer.complete
print(json.dumps(marks))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lrd-tiny-soft")
    parser.add_argument("--runs", type=int, default=3, help="warm ones")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        rows = [one_run(options.model, cache) for _ in range(options.runs + 1)]
    cold, warm = rows[0], rows[1:]
    print(f"{'':14}{'cold':>16}{'warm, least':>18}")
    for name in PARTS:
        best = tuple(min(row[name][i] for row in warm) for i in range(2))
        print(f"{name:14}{said(cold[name]):>16}{said(best):>18}")


def one_run(model: str, cache: str) -> dict[str, tuple[float, float]]:
    """Seconds of each part: of the clock, of the processor."""
    run = subprocess.run(
        [sys.executable, "-c", ONE_RUN, model, QUESTION],
        env={**os.environ, "XDG_CACHE_HOME": cache},
        stdout=subprocess.PIPE,
        check=True,
    )
    marks = json.loads(run.stdout)
    pairs = [*itertools.pairwise(marks), (marks[0], marks[-1])]
    return {name: (b[0] - a[0], b[1] - a[1]) for name, (a, b) in zip(PARTS, pairs, strict=True)}


def said(seconds: tuple[float, float]) -> str:
    return f"{seconds[0]:.2f} ({seconds[1]:.2f})"


if __name__ == "__main__":
    main()
