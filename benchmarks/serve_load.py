"""A closed loop of clients on a running `lrd-jax serve` with a model of the box: answers a second, and times of texts.

    lrd-jax serve --port 8123 &
    python benchmarks/serve_load.py --clients 1 8 32 128 --seconds 12

One request in ten is broken off by its client, one in ten asks for too much and must get a 400. Every request is
accounted for, and two answers to one prompt must be equal. Needs httpx.
"""

import asyncio
import collections
import dataclasses
import json
import random
import sys
import time

import httpx
import numpy as np
import tyro

from lrd_jax.tasks import problems


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked."""

    url: str = "http://127.0.0.1:8123"
    clients: tuple[int, ...] = (1, 8, 32, 128)
    seconds: float = 12.0
    prompts: int = 64
    max_tokens: int = 64


class Load:
    """One number of clients, and what they saw."""

    def __init__(self, options: Options):
        self.options = options
        self.prompts = [problem.prompt for problem in problems("words", "held-out", 0, options.prompts)]
        self.answers: dict[str, set[str]] = collections.defaultdict(set)
        self.counts: collections.Counter[str] = collections.Counter()
        self.first: list[float] = []
        self.whole: list[float] = []

    async def run(self, clients: int) -> float:
        """The seconds that it took."""
        start = time.monotonic()
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self.options.url, timeout=300, limits=limits) as http:
            await asyncio.gather(*(self._client(http, random.Random(i), start) for i in range(clients)))
        return time.monotonic() - start

    async def _client(self, http: httpx.AsyncClient, rng: random.Random, start: float) -> None:
        while time.monotonic() < start + self.options.seconds:
            prompt, kind = rng.choice(self.prompts), rng.random()
            if kind < 0.1:
                await self._refused(http, prompt)
            else:
                await self._asked(http, prompt, broken_off=kind < 0.2)

    async def _refused(self, http: httpx.AsyncClient, prompt: str) -> None:
        response = await http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 9999})
        self.counts["refused" if response.status_code == 400 else f"status {response.status_code}"] += 1

    async def _asked(self, http: httpx.AsyncClient, prompt: str, broken_off: bool) -> None:
        start, text = time.monotonic(), ""
        body = {"prompt": prompt, "max_tokens": self.options.max_tokens, "stream": True}
        async with http.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                self.counts[f"status {response.status_code}"] += 1
                return
            async for line in response.aiter_lines():
                if broken_off:
                    self.counts["broken off"] += 1
                    return
                if line == "data: [DONE]":
                    self.counts["answered"] += 1
                    self.whole.append(time.monotonic() - start)
                    self.answers[prompt].add(text)
                    return
                if line.startswith("data: "):
                    more = json.loads(line.removeprefix("data: "))["choices"][0]["text"]
                    if more and not text:
                        self.first.append(time.monotonic() - start)
                    text += more
        self.counts["lost"] += 1

    def times(self) -> list[tuple[str, list[float]]]:
        """Seconds to the first text, and to the end."""
        return [("first text", self.first or [0.0]), ("end", self.whole or [0.0])]


def main(options: Options) -> int:
    failed = False
    for clients in options.clients:
        load = Load(options)
        took = asyncio.run(load.run(clients))
        times = (f"{name} p50 {np.median(s):.2f} p99 {np.quantile(s, 0.99):.2f} s" for name, s in load.times())
        differing = sum(len(texts) > 1 for texts in load.answers.values())
        print(f"{clients} clients: {load.counts['answered'] / took:.1f} answers/s, {', '.join(times)}")
        print(f"  {dict(load.counts)}, prompts with differing answers: {differing}", flush=True)
        failed |= bool(differing or set(load.counts) - {"answered", "broken off", "refused", "status 429"})
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
