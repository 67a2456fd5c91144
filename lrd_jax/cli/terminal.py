"""What `generate` and `chat` share of the terminal: waiting, the live view, the answer with its facts."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lrd_jax.options import Decoding

if TYPE_CHECKING:
    from lrd_jax.answer import Answer
    from lrd_jax.generate import Generator


def open_generator(
    options: Decoding, *, batch: int = 1, check: Callable[["Generator"], Any] = lambda empty: None
) -> "Generator":
    """The generator that the options ask for, with a sign of life on a terminal while it loads."""
    with Console(stderr=True).status(f"loading {options.model}"):
        from lrd_jax.cli.session import generator_for  # JAX and the rest take seconds to import: the user waits in here

        return generator_for(options, batch=batch, check=check)


def ask(generator: "Generator", prompt: Any, options: Decoding, **asked: Any) -> "Answer":
    """Answers a prompt, with the canvas in view where the output is a terminal and the options allow it.

    Args:
      asked: what `Generator.generate` and `stream` can be asked beside the prompt.
    """
    from lrd_jax.pods import from_first

    console = Console()
    if not from_first(lambda: options.live and sys.stdout.isatty() and not console.is_dumb_terminal):
        return generator.generate([prompt], **asked)[0]
    from lrd_jax.cli.live import CanvasView

    title = f"{options.model}, {options.preset}"
    with contextlib.closing(generator.stream([prompt], **asked)) as updates:
        update = next(updates)  # refuses what cannot be asked before the picture stands
        with CanvasView(console, generator.loaded.tokenizer, generator.loaded.config, title) as view:
            view.show(update.canvas)
            for update in updates:
                view.show(update.canvas)
    return update.answer


def say(answer: "Answer", seed: int | None) -> None:
    """The answer on standard output, the facts on standard error."""
    text = answer.text
    if sys.stdout.isatty():  # a model may write escape sequences
        text = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
    failed = complain([answer])
    if text or not failed:
        print(text, flush=True)
    if not failed:
        tell(answer.facts, seed)


def complain(answers: Sequence["Answer"]) -> bool:
    """Says on standard error, once, where logits were not finite; whether any were."""
    count = sum(answer.stop_reason == "non-finite" for answer in answers)
    if count:
        whose = "" if len(answers) == 1 else f" of {count} of {len(answers)} answers"
        words = f"the model's logits{whose} were not finite: weights hold NaN or infinity, or overflow in this dtype"
        print(f"error: {words}; try --dtype float32, or lrd-jax verify on a converted folder", file=sys.stderr)
    return bool(count)


def tell(facts: str, seed: int | None) -> None:
    """Facts on standard error, with the seed of what was drawn."""
    line = facts if seed is None else f"{facts} | seed {seed}"
    Console(stderr=True, highlight=False).print(line, style="dim", soft_wrap=True)
