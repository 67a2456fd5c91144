"""What the sandbox adds to a program: an empty one, bare, in the sandbox, and there with a test, in turn.

python benchmarks/sandbox_cost.py [--repeats 20] [--unsafe-code]
"""

import argparse
import statistics
import subprocess
import time

from lrd_jax.research.sandbox import Exam, Sandbox, SandboxError
from lrd_jax.research.sandbox.bubblewrap import interpreter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--unsafe-code", action="store_true")
    args = parser.parse_args()
    try:
        sandbox = Sandbox(unsafe=args.unsafe_code)
    except SandboxError as error:
        parser.error(str(error))
    bare, inside, examined = [], [], []
    exam = Exam(program="def f(): return 1", tests="assert f() == 1")
    for _ in range(args.repeats):
        start = time.perf_counter()
        subprocess.run([interpreter(), "-S", "-c", ""], check=True)
        bare.append(time.perf_counter() - start)
        start = time.perf_counter()
        sandbox.run("")
        inside.append(time.perf_counter() - start)
        start = time.perf_counter()
        sandbox.examine(exam)
        examined.append(time.perf_counter() - start)
    where = "in bubblewrap" if sandbox.isolated else "without bubblewrap"
    print(f"bare interpreter: {1000 * statistics.median(bare):.0f} ms, median of {args.repeats}")
    print(f"{where}: {1000 * statistics.median(inside):.0f} ms")
    print(f"{where}, a program and its test: {1000 * statistics.median(examined):.0f} ms")


if __name__ == "__main__":
    main()
