"""Prints, forward by forward, how much of 6 x 6 Sudoku is solved under decoders of docs/front.md.

python docs/solved_cells.py MODEL [MODEL ...]
"""

import sys

import jax.numpy as jnp
import numpy as np

from lrd_jax import DecodeConfig, Refine, load, make_decode
from lrd_jax.tasks import problems
from lrd_jax.text import encode_prompts

CELLS, PUZZLES, FORWARDS = 36, 300, 4
DECODERS = {
    "settled below 0.03": DecodeConfig.settle(CELLS, refine=Refine(0.03)),
    "threshold 0.95": DecodeConfig.fast(CELLS, threshold=0.95),
    "threshold 0.8": DecodeConfig.fast(CELLS, threshold=0.8),
}


def guesses(forward):
    """The token of every position `[B, G]`: the likeliest one where it was masked."""
    return jnp.where(forward.before.masked, forward.sight.proposal.token, forward.after.tokens)


def main(*models: str) -> None:
    asked = problems("sudoku6", "held-out", 1, PUZZLES)
    empty = np.array([[n == "0" for n in problem.prompt.split(": ")[1].split()] for problem in asked])
    for name in models:
        loaded = load(name, dtype="float32")
        prompts = encode_prompts(loaded.tokenizer, [problem.prompt for problem in asked], chat=False)
        answers = np.array([loaded.tokenizer(problem.answer)["input_ids"] for problem in asked])
        for decoder, config in DECODERS.items():
            result, seen = make_decode(loaded.model, config).watch(guesses, loaded.params, *prompts)
            forwards = np.asarray(result.forwards)
            right = [
                np.asarray(seen)[np.arange(PUZZLES), np.minimum(t, forwards - 1)] == answers for t in range(FORWARDS)
            ]
            steps = (f"{100 * ok[empty].mean():.1f} ({100 * ok.all(axis=1).mean():.1f})" for ok in right)
            end = 100 * (np.asarray(result.tokens) == answers).all(axis=1).mean()
            print(f"{name}, {decoder}: {', '.join(steps)}; in the end {end:.1f} % after {forwards.mean():.2f} forwards")


if __name__ == "__main__":
    main(*sys.argv[1:])
