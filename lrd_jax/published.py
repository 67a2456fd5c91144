"""The settings that the field's decoders were published with, by checkpoint and benchmark, as data.

Read from their evaluation scripts and configs; where a script has several, its last. Windows are None where the whole
canvas is one block. Lengths are the caller's: what was published is for 256 positions, for 512 with dLLM-Cache on
LLaDA-8B-Instruct's HumanEval and MBPP.
"""

from collections.abc import Callable, Mapping

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.parts.cache.dllm import DLLMCache
from lrd_jax.decoding.parts.draw import Draw
from lrd_jax.errors import Refused

Published = tuple[Callable[[int], DecodeConfig], int | None]
"""The decoder as one block, and its window."""

USUAL = "llada-8b-instruct"  # whose settings NAME/BENCHMARK means
_WARM = Draw(temperature=0.2, top_p=0.95)  # of all that is published for Dream


def _kept(prompt_every: int, response_every: int, window: int | None = None) -> Published:
    cache = DLLMCache(prompt_every, response_every, rho=0.25)
    return lambda G: DecodeConfig.llada(G, cache=cache), window


def _kept_by_dream(prompt_every: int, response_every: int) -> Published:
    cache = DLLMCache(prompt_every, response_every, rho=0.25)
    return lambda G: DecodeConfig.dream(G, draw=_WARM, cache=cache), None


def _stable(confidence: float, kl: float) -> Published:
    return lambda G: DecodeConfig.klass(G, confidence=confidence, kl=kl), 64


def _stable_in_dream(confidence: float, kl: float) -> Published:
    return lambda G: DecodeConfig.klass(G, confidence=confidence, kl=kl, draw=_WARM), None


def _taken_back(threshold: float) -> Published:
    return lambda G: DecodeConfig.wino(G, threshold=threshold), 128


def _fed_back(threshold: float) -> Published:
    return lambda G: DecodeConfig.remix(G, threshold=threshold), 128


PUBLISHED: Mapping[str, Mapping[str, Mapping[str, Published]]] = {
    "dllm-cache": {  # maomaocun/dLLM-cache, scripts/
        "llada-8b-base": {
            "gsm8k": _kept(25, 5),
            "math": _kept(50, 8),
            "humaneval": _kept(50, 5),
            "mbpp": _kept(25, 4, 32),
            "bbh": _kept(50, 6),
            "gpqa": _kept(100, 8),
            "mmlu": _kept(100, 6),
            "mmlu-pro": _kept(100, 6),
        },
        "llada-8b-instruct": {
            "gsm8k": _kept(50, 7, 8),
            "math": _kept(50, 1),
            "humaneval": _kept(25, 5, 32),
            "mbpp": _kept(100, 5, 32),
            "bbh": _kept(50, 6),
            "gpqa": _kept(50, 6, 64),
            "mmlu": _kept(100, 7),
            "mmlu-pro": _kept(51, 3),
            "longbench": _kept(100, 8, 32),
        },
        "dream-7b-base": {
            "gsm8k": _kept_by_dream(100, 8),
            "math": _kept_by_dream(100, 4),
            "humaneval": _kept_by_dream(5, 1),
            "mbpp": _kept_by_dream(25, 8),
            "bbh": _kept_by_dream(25, 4),
            "gpqa": _kept_by_dream(100, 8),
            "mmlu": _kept_by_dream(100, 2),
            "mmlu-pro": _kept_by_dream(25, 2),
        },
        "dream-7b-instruct": {
            "gsm8k": _kept_by_dream(25, 2),
            "math": _kept_by_dream(50, 1),
            "humaneval": _kept_by_dream(50, 1),
            "mbpp": _kept_by_dream(10, 8),
            "bbh": _kept_by_dream(10, 2),
            "gpqa": _kept_by_dream(10, 8),
            "mmlu": _kept_by_dream(100, 8),
            "mmlu-pro": _kept_by_dream(5, 1),
        },
    },
    "klass": {  # shkim0116/KLASS, scripts/
        "llada-8b-instruct": {
            "gsm8k": _stable(0.6, 0.015),
            "math": _stable(0.6, 0.01),
            "humaneval": _stable(0.9, 0.01),
            "mbpp": _stable(0.7, 0.01),
        },
        "dream-7b-instruct": {
            "gsm8k": _stable_in_dream(0.9, 0.001),
            "math": _stable_in_dream(0.9, 0.005),
            "humaneval": _stable_in_dream(0.8, 0.001),
            "mbpp": _stable_in_dream(0.9, 0.001),
        },
    },
    "wino": {  # Feng-Hong/WINO-DLLM, LLaDA/configs/
        "llada-8b-instruct": {
            "gsm8k": _taken_back(0.6),
            "math500": _taken_back(0.7),
            "humaneval": _taken_back(0.7),
            "mbpp": _taken_back(0.8),
        },
    },
    "remix": {  # Serpientw/ReMix-DLLM, LLaDA/configs/
        "llada-8b-instruct": {
            "gsm8k": _fed_back(0.9),
            "math500": _fed_back(0.8),
            "humaneval": _fed_back(0.8),
            "mbpp": _fed_back(0.8),
        },
    },
    "prophet": {  # pixeli99/Prophet, eval.sh: the words behind the answer begin two places after its last given token
        "llada-8b-instruct": {"gsm8k": (lambda G: DecodeConfig.prophet(G, answer_start=204), 32)},
    },
}


def published(name: str, gen_length: int) -> tuple[DecodeConfig, int | None]:
    """The decoder called "NAME/BENCHMARK" or "NAME/CHECKPOINT/BENCHMARK", as one block, and its window.

    Raises:
      ValueError: nothing was published under that name; it says what was.
    """
    decoder, *between, benchmark = name.split("/")
    checkpoint = "/".join(between) if between else USUAL
    by_checkpoint = PUBLISHED.get(decoder, {})
    by_benchmark = by_checkpoint.get(checkpoint, {})
    for wanted, known in ((decoder, PUBLISHED), (checkpoint, by_checkpoint), (benchmark, by_benchmark)):
        if wanted not in known:
            raise Refused(f"preset {name!r}: settings were published for {', '.join(known)}, not for {wanted!r}")
    make, window = by_benchmark[benchmark]
    return make(gen_length), window
