"""From a folder of prompts to a folder of answers, both JSON lines, on a Ray cluster or on this machine.

In a clone:

pip install -e '.[ray]'
python docs/ray_batch.py prompts/ answers/ --model lrd-tiny-soft --workers 2
"""

import dataclasses
from pathlib import Path

import ray
import ray.data
import tyro
from tyro.conf import Positional

from lrd_jax.engine import BatchDecoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Answers a folder of prompts; a worker that dies is replaced, and its batch is answered again.

    Attributes:
      prompts: folder of JSON lines, each with a "prompt" or "messages"; on a cluster, one that all machines see.
      answers: folder of the answers; must be new.
      workers: processes, each with the model in its memory.
      cpus: of each worker, as Ray counts them; reading and writing want one of their own.
      gpus: of each worker.
      tpus: of each worker, as Ray counts them: chips.
      batch: prompts that a worker is handed at a time.
      address: of a running cluster; by default one is started on this machine.
    """

    prompts: Positional[Path]
    answers: Positional[Path]
    model: str = "lrd-tiny-soft"
    preset: str = "lrd"
    gen_length: int = 64
    chat: bool = False
    slots: int = 16
    workers: int = 2
    cpus: float = 1
    gpus: float = 0
    tpus: float = 0
    batch: int = 128
    address: str | None = None


def answer(options: Options, decoder: type = BatchDecoder) -> None:
    if options.answers.exists():
        raise SystemExit(f"{options.answers} exists; name a new folder")
    ray.init(address=options.address, ignore_reinit_error=True)
    prompts = ray.data.read_json(str(options.prompts), lines=True, file_extensions=None)
    answers = prompts.map_batches(
        decoder,
        fn_constructor_kwargs={
            "model": options.model,
            "preset": options.preset,
            "gen_length": options.gen_length,
            "chat": options.chat,
            "slots": options.slots,
        },
        batch_size=options.batch,
        concurrency=options.workers,
        num_cpus=options.cpus,
        num_gpus=options.gpus or None,
        resources={"TPU": options.tpus} if options.tpus else None,
    )
    answers.write_json(str(options.answers))


if __name__ == "__main__":
    answer(tyro.cli(Options))
