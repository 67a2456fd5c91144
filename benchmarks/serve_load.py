"""Clients on a running `lrd-jax serve` with a model of the box: answers a second, and times of texts.

    lrd-jax serve --port 8123 &
    python benchmarks/serve_load.py --pid $!                          # closed loops of 1, 8, 32 and 128 clients
    python benchmarks/serve_load.py --pid $! --open --clients 8 32    # so many requests a second, whoever is done
    python benchmarks/serve_load.py --engine --clients 32             # the engine alone, in this process

One request in ten is broken off by its client, at any moment, one in ten asks for too much and must get a 400. Every
request is accounted for, and every answer must be what a `Generator` answers in a batch of one. Needs httpx.
"""

import asyncio
import collections
import dataclasses
import json
import os
import random
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import tyro

from lrd_jax import Generator, load
from lrd_jax.engine import Engine, Request
from lrd_jax.presets import preset
from lrd_jax.tasks import problems


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked.

    Attributes:
      open: clients come, so many a second, and do not wait for each other.
      seconds: for each number of clients.
      faults: share of requests that are broken off or ask for too much, half and half.
      whole: answers come whole, not as streams.
      idle: connections beside them that say nothing.
      pid: of the server, whose memory and time are told.
      engine: ask an engine of 16 slots, without a server.
    """

    url: str = "http://127.0.0.1:8123"
    model: str = "lrd-tiny-refined"
    clients: tuple[int, ...] = (1, 8, 32, 128)
    open: bool = False
    seconds: float = 60.0
    faults: float = 0.2
    whole: bool = False
    idle: int = 0
    prompts: int = 64
    max_tokens: int = 64
    pid: int | None = None
    engine: bool = False


class Load:
    """One number of clients, and what they saw.

    Attributes:
      wrong: answers that are not those of a batch of one.
    """

    def __init__(self, options: Options, wanted: dict[str, str]):
        self.options, self.wanted, self.prompts = options, wanted, list(wanted)
        self.counts: collections.Counter[str] = collections.Counter()
        self.first: list[float] = []
        self.whole: list[float] = []
        self.wrong = 0

    async def run(self, clients: int) -> float:
        """The seconds that it took."""
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self.options.url, timeout=300, limits=limits) as http:
            start, rng = time.monotonic(), random.Random(clients)
            end = start + self.options.seconds
            if self.options.open:
                tasks = []
                while time.monotonic() < end:
                    tasks.append(asyncio.create_task(self._request(http, random.Random(rng.random()))))
                    await asyncio.sleep(rng.expovariate(clients))
                await asyncio.gather(*tasks)
            else:
                await asyncio.gather(*(self._client(http, random.Random(i), end) for i in range(clients)))
        return time.monotonic() - start

    async def _client(self, http: httpx.AsyncClient, rng: random.Random, end: float) -> None:
        while time.monotonic() < end:
            await self._request(http, rng)

    async def _request(self, http: httpx.AsyncClient, rng: random.Random) -> None:
        prompt, kind = rng.choice(self.prompts), rng.random()
        body = {"prompt": prompt, "max_tokens": self.options.max_tokens, "stream": not self.options.whole}
        if kind < self.options.faults / 2:
            response = await http.post("/v1/completions", json={**body, "max_tokens": 9999})
            self.counts["refused" if response.status_code == 400 else f"status {response.status_code}"] += 1
        elif kind < self.options.faults:
            try:
                await asyncio.wait_for(self._asked(http, body), rng.expovariate(2))
            except TimeoutError:
                self.counts["broken off"] += 1
        else:
            await self._asked(http, body)

    async def _asked(self, http: httpx.AsyncClient, body: dict) -> None:
        start, text = time.monotonic(), ""
        async with http.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                self.counts[f"status {response.status_code}"] += 1
            elif self.options.whole:
                self._ended(start, body["prompt"], json.loads(await response.aread())["choices"][0]["text"])
            else:
                async for line in response.aiter_lines():
                    if line == "data: [DONE]":
                        return self._ended(start, body["prompt"], text)
                    if line.startswith("data: "):
                        more = json.loads(line.removeprefix("data: "))["choices"][0]["text"]
                        if more and not text:
                            self.first.append(time.monotonic() - start)
                        text += more
                self.counts["lost"] += 1

    def _ended(self, start: float, prompt: str, text: str) -> None:
        self.counts["answered"] += 1
        self.whole.append(time.monotonic() - start)
        self.wrong += text != self.wanted[prompt]

    @property
    def told(self) -> str:
        """Seconds to the first text, and to the end."""
        times = (("first text", self.first), ("end", self.whole))
        return ", ".join(f"{n} p50 {np.median(s):.2f} p99 {np.quantile(s, 0.99):.2f} s" for n, s in times if s)


def answered(generator: Generator, options: Options) -> dict[str, str]:
    """Each prompt's answer in a batch of one."""
    prompts = [problem.prompt for problem in problems("words", "held-out", 0, options.prompts)]
    return {prompt: generator.generate([prompt])[0].text for prompt in prompts}


def bare(generator: Generator, options: Options, prompts: list[str]) -> None:
    """An engine with as many requests at a time as there were clients."""
    with Engine(generator.loaded, generator.config, slots=16, prompt_length=128) as engine:
        for clients in options.clients:
            rng, handles, count = random.Random(clients), collections.deque(), 0
            start, before = time.monotonic(), time.process_time()
            while time.monotonic() < start + options.seconds:
                while len(handles) < clients:
                    handles.append(engine.submit(Request(prompt=rng.choice(prompts))))
                handles.popleft().result()
                count += 1
            took, used = time.monotonic() - start, time.process_time() - before
            for handle in handles:
                handle.result()
            print(
                f"{clients} at a time: {count / took:.1f} answers/s, {1e3 * used / count:.1f} ms of CPU each",
                flush=True,
            )


def resident(pid: int) -> float:
    """Of a process, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def worked(pid: int) -> float:
    """Seconds of CPU of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def loaded(options: Options, clients: int, one: Load) -> float:
    idle = [
        await asyncio.open_connection(*httpx.URL(options.url).netloc.decode().split(":")) for _ in range(options.idle)
    ]
    try:
        return await one.run(clients)
    finally:
        for _, writer in idle:
            writer.close()


def main(options: Options) -> int:
    config = preset("lrd", options.max_tokens, model=options.model)
    generator = Generator(load(options.model), config)
    wanted = answered(generator, options)
    if options.engine:
        bare(generator, options, list(wanted))
        return 0
    failed = False
    for clients in options.clients:
        one = Load(options, wanted)
        before = 0.0 if options.pid is None else worked(options.pid)
        took = asyncio.run(loaded(options, clients, one))
        unit = "requests a second" if options.open else "clients"
        print(f"{clients} {unit}: {one.counts['answered'] / took:.1f} answers/s, {one.told}")
        print(f"  {dict(one.counts)}, not those of a batch of one: {one.wrong}", flush=True)
        if options.pid is not None:
            each = (worked(options.pid) - before) / max(1, one.counts["answered"])
            print(
                f"  the server holds {resident(options.pid):.0f} MiB and took {1e3 * each:.1f} ms of CPU an answer",
                flush=True,
            )
        failed |= bool(one.wrong or set(one.counts) - {"answered", "broken off", "refused", "status 429"})
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
