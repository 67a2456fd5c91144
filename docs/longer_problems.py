"""Right answers on problems with more steps than training had, one decoder a column.

python docs/longer_problems.py lrd-tiny-refined
"""

import sys

import numpy as np

import lrd_jax
from lrd_jax import DecodeConfig
from lrd_jax.research.analyze.domains import task_domains
from lrd_jax.research.markdown import table, whole_percent
from lrd_jax.research.statistics import share

COUNT, SEED, CANVAS = 300, 1, 64
DECODERS = {
    "threshold 0.6": DecodeConfig.fast(CANVAS, threshold=0.6),
    "settled below 0.03 or sure of 0.8": DecodeConfig.settle(CANVAS),
    "threshold 0.9": DecodeConfig.fast(CANVAS, threshold=0.9),
    "plain, 1 a step": DecodeConfig.plain(CANVAS),
}


def main(name: str) -> None:
    loaded = lrd_jax.load(name, dtype="float32")
    rows = []
    for domain in task_domains(COUNT, SEED, CANVAS, loaded.tokenizer):
        if domain.trained:
            continue
        row = [domain.name]
        for config in DECODERS.values():
            answers = lrd_jax.Generator(loaded, config, batch=50).generate(domain.prompts)
            right = share(np.array([domain.right(i, answer.text) for i, answer in enumerate(answers)]))
            row.append(f"{whole_percent(right)}, {np.mean([answer.forwards for answer in answers]):.1f}")
        rows.append(row)
    print(table(["problems", *DECODERS], rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
