"""Runs the datasets' own answers in the sandbox: every problem of HumanEval and MBPP should pass.

    python benchmarks/gold_programs.py HUMANEVAL.jsonl.gz MBPP.jsonl.gz ... [--workers 2] [--unsafe-code]

Printed for each file: how many pass, the slowest, and which fail and how; the exit status is 1 if any does. For
HumanEval each answer is given twice: as a continuation of the prompt, and as the whole function in a fence.
"""

import argparse
import gzip
import json
import sys
from concurrent.futures import ThreadPoolExecutor

from lrd_jax.research.sandbox import Sandbox, SandboxError, judge


def answers(record: dict) -> list[str]:
    """What a model that is always right could reply."""
    if "canonical_solution" in record:
        whole = record["prompt"] + record["canonical_solution"]
        return [record["canonical_solution"], f"Here it is:\n```python\n{whole}\n```\nIt works."]
    return [record["code"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--unsafe-code", action="store_true")
    args = parser.parse_args()
    try:
        sandbox = Sandbox(unsafe=args.unsafe_code)
    except SandboxError as error:
        parser.error(str(error))
    print("in bubblewrap" if sandbox.isolated else "without bubblewrap")
    failed = False
    for path in args.files:
        with gzip.open(path, "rt") as file:
            cases = [(record, answer) for record in map(json.loads, file) for answer in answers(record)]
        with ThreadPoolExecutor(args.workers) as pool:
            verdicts = list(pool.map(lambda case: judge(sandbox, *case), cases))
        passed = sum(verdict.passed for verdict in verdicts)
        slowest, task = max((v.outcome.seconds, str(r["task_id"])) for v, (r, _) in zip(verdicts, cases, strict=True))
        print(f"{path}: {passed} of {len(cases)} pass; slowest: {task}, {slowest:.1f} s", flush=True)
        for verdict, (record, _) in zip(verdicts, cases, strict=True):
            if not verdict.passed:
                failed = True
                last = verdict.outcome.output.strip().splitlines()[-1:]
                print(f"  {record['task_id']} failed: {verdict.outcome.status}, {verdict.outcome.exit_code} {last}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
