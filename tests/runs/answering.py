"""Answers lines with their own numbers into a run's folder, a part for every fifth: a program to be killed."""

import sys
import time
from pathlib import Path

from lrd_jax.runs import store as stores
from lrd_jax.runs.shards import parse_shard


def main(folder: str, shard: str, count: str) -> None:
    stores._MOST = 5
    lines = range(1, int(count) + 1)
    own = parse_shard(shard)
    store = stores.Store(Path(folder), own, {"model": "m"}).look()
    with store.open():
        for line in [line for line in lines if own.has(line) and line not in store.done]:
            time.sleep(0.001)
            store.add({"id": f"p{line}", "line": line, "text": f"{line}", "stop_reason": "finished", "error": None})
    store.merge(list(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
