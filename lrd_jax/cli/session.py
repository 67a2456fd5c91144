"""A loaded model and a decoder for it: a question in, an answer with its facts out."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrd_jax.checkpoint import embedded_models, load
from lrd_jax.cli.compile_cache import use_compile_cache
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.decoding.state import DecodeState, StopReason
from lrd_jax.options import Decoding
from lrd_jax.presets import adjusted, preset
from lrd_jax.tasks import TASKS, problems
from lrd_jax.text import answer_lengths, decode_text, encode_prompts, pad_to_bucket, unknown_words

_PATIENCE_SECONDS = 0.25  # longest wait for Ctrl-C, unless one forward takes longer

Watch = Callable[[DecodeState], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """One decoded answer.

    Attributes:
      tokens: generated ids, cut at the first end token.
      forwards, refine_forwards: see `DecodeResult`.
      stop_reason: "finished", "settled", "end-of-text", "step-limit" or "non-finite".
      seconds: of decoding alone: no loading, compiling or drawing.
      compile_seconds: of what came before the first forward; small where the compile was cached.
    """

    text: str
    tokens: list[int]
    forwards: int
    refine_forwards: int
    stop_reason: str
    seconds: float
    compile_seconds: float

    @property
    def tokens_per_second(self) -> float:
        return len(self.tokens) / self.seconds

    @property
    def complete(self) -> bool:
        return self.stop_reason != "non-finite"

    @property
    def facts(self) -> str:
        """One line for people."""
        return (
            f"{self.forwards} forwards ({self.refine_forwards} refining) | {self.stop_reason} | "
            f"{self.seconds:.2f} s (+ {self.compile_seconds:.1f} s compiling) | {self.tokens_per_second:.0f} tokens/s"
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {**dataclasses.asdict(self), "tokens_per_second": self.tokens_per_second}


class Session:
    """Answers questions with one model and one decoder, which compile once per bucket of prompt lengths."""

    def __init__(self, options: Decoding):
        """Loads the model.

        Raises:
          ValueError: numbers that the decoder refuses, before anything is loaded; or a model that cannot be.
        """
        config = decode_config(options)
        use_compile_cache()
        self.seed = options.seed
        # The models in the box are small enough for float32, in which padding a prompt cannot tip a close choice.
        dtype = "float32" if options.model in embedded_models() else None
        self.model, params, self.tokenizer, self.config = load(options.model, dtype=dtype)
        self.params = as_float32_on_cpu(params, _free_bytes())
        if self.tokenizer is None:
            raise ValueError(f"{options.model} has no tokenizer; copy tokenizer.json there from the model's release")
        self.decoder = make_decode(self.model, config)

    def answer(self, question: str, *, chat: bool = False, watch: Watch | None = None) -> Answer:
        """Decodes one question.

        Args:
          chat: put it into the model's chat template.
          watch: called with the state before the first forward and after every one.

        Raises:
          ValueError: an empty question, words that the model does not know, or too long a question.
        """
        if not question.strip():
            raise ValueError("the question is empty; ask something, in quotes")
        if words := unknown_words(self.tokenizer, question):
            raise ValueError(unknown_words_message(words))
        prompt, mask = encode_prompts(self.tokenizer, [question], chat=chat)
        prompt, mask = pad_to_bucket(prompt, mask, self.config.max_length - self.decoder.config.gen_length)

        began = time.perf_counter()
        state = self.decoder.start(self.params, prompt, mask, jax.random.key(self.seed))
        if watch is not None:
            watch(state)
        state = jax.block_until_ready(self.decoder.advance(self.params, state, 0))  # compiles, runs nothing
        compile_seconds = time.perf_counter() - began
        state, seconds = self._run(state, watch)
        return self._read(state, seconds, compile_seconds)

    def _run(self, state: DecodeState, watch: Watch | None) -> tuple[DecodeState, float]:
        """All forwards, one at a time where someone watches, else as many at once as keep Ctrl-C prompt."""
        count, seconds = 1, 0.0
        while bool(state.running[0]):
            began = time.perf_counter()
            state = jax.block_until_ready(self.decoder.advance(self.params, state, count))
            took = time.perf_counter() - began
            seconds += took
            if watch is not None:
                watch(state)
            elif 2 * took < _PATIENCE_SECONDS:
                count *= 2
        return state, seconds

    def _read(self, state: DecodeState, seconds: float, compile_seconds: float) -> Answer:
        result = self.decoder.result(state)
        tokens = np.asarray(result.tokens[0])
        (length,) = answer_lengths(tokens[None], self.config.end_ids)
        return Answer(
            text=decode_text(self.tokenizer, tokens[None], self.config)[0],
            tokens=tokens[:length].tolist(),
            forwards=int(result.forwards[0]),
            refine_forwards=int(result.refine_forwards[0]),
            stop_reason=StopReason(int(result.stop_reason[0])).name.lower().replace("_", "-"),
            seconds=seconds,
            compile_seconds=compile_seconds,
        )


def decode_config(options: Decoding) -> DecodeConfig:
    """The decoder that the options name, with their numbers in place of the preset's."""
    structure = {} if options.block_length is None else {"block_length": options.block_length}
    config = preset(options.preset, options.gen_length, **structure)
    return adjusted(
        config,
        r_f=options.r_f,
        top_p=options.top_p,
        tau=options.tau,
        threshold=options.threshold,
        temperature=options.temperature,
    )


def unknown_words_message(words: list[str]) -> str:
    """What to tell someone whose question holds words that the model was not trained on."""
    examples = [problems(task, "held-out", seed=0, count=1, grade=2)[0].prompt for task in TASKS]
    return "\n".join(
        [
            f"the model does not know {', '.join(map(repr, words))}; it answers questions such as",
            *(f'  "{example}"' for example in examples),
        ]
    )


def as_float32_on_cpu(params: Any, free_bytes: int) -> Any:
    """The parameters in float32 if they live on a CPU in bfloat16 and there is room; says so on standard error.

    A CPU's matmuls take longer in bfloat16 (docs/performance.md), and the values are the same in float32.
    """
    leaves = jax.tree.leaves(params)
    wanted = 4 * sum(leaf.size for leaf in leaves)
    on_cpu = all(device.platform == "cpu" for leaf in leaves for device in leaf.devices())
    if not on_cpu or all(leaf.dtype != jnp.bfloat16 for leaf in leaves):
        return params
    gib = f"{wanted / 2**30:.1f} GiB"
    if wanted > free_bytes:
        print(f"note: bfloat16 is slow on a CPU; the weights in float32 would need {gib} more memory", file=sys.stderr)
        return params
    print(f"note: weights go from bfloat16 to float32 ({gib}), which a CPU multiplies faster", file=sys.stderr)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)


def _free_bytes() -> int:
    """Memory that nobody uses now; all there is where the system does not say."""
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
