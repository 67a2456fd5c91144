"""The canvas on a terminal while it settles: masked, soft with its best guess so far, committed."""

import time
from typing import TYPE_CHECKING, Self

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.state import DecodeState
from lrd_jax.models import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Each kind of position has a style and a sign of its own, so that it is told apart without colour too.
MASKED, SOFT, END = "░", "~", "·"
STYLES = {"masked": "bright_black", "soft": "italic cyan", "committed": "bold", "end": "bold green"}

_FRAME_SECONDS = 0.07  # a small model's forwards are faster than the eye
_WIDEST = 100
_FRAME_LINES = 4  # borders, legend, and the line that the cursor rests on


class CanvasView:
    """Shows a decode of one row; a context manager whose `show` takes the states.

    Leaving it, by an exception or Ctrl-C too, takes the picture away and gives the cursor back.
    """

    def __init__(
        self,
        console: Console,
        tokenizer: "PreTrainedTokenizerFast",
        model: ModelConfig,
        decoding: DecodeConfig,
        title: str,
    ):
        self.console = console
        self.title = title
        self._pieces = Pieces(tokenizer, model)
        self._decoding = decoding
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._next_frame = 0.0

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._live.__exit__(*error)

    def show(self, state: DecodeState) -> None:
        """Draws the state, no sooner than a frame after the one before."""
        frame = self.frame(state)
        time.sleep(max(0.0, self._next_frame - time.monotonic()))
        self._live.update(frame, refresh=True)
        self._next_frame = time.monotonic() + _FRAME_SECONDS

    def frame(self, state: DecodeState) -> RenderableType:
        """The picture of a state: the canvas, and a line of what the loop is doing."""
        width = min(self.console.width, _WIDEST)
        tokens, masked = np.asarray(state.tokens[0]), np.asarray(state.masked[0])
        canvas = self._pieces.canvas(tokens, masked, best_guesses(state, self._decoding))
        lines = canvas.wrap(self.console, width - 4)
        room = max(1, self.console.height - _FRAME_LINES)
        if len(lines) > room:  # keep the first open position in sight
            first = int(np.argmax(masked)) if masked.any() else 0
            above = self._pieces.canvas(tokens[:first], masked[:first], None).wrap(self.console, width - 4)
            start = min(max(0, len(above) - room // 2), len(lines) - room)
            lines = lines[start : start + room]
        panel = Panel(
            Text("\n").join(lines),
            title=self.title,
            title_align="left",
            subtitle=_status(state),
            subtitle_align="left",
            width=width,
        )
        return Group(panel, legend())


class Pieces:
    """How tokens look on one line."""

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", model: ModelConfig):
        self._tokenizer = tokenizer
        self._ends = model.end_ids
        # a vocabulary of whole words has its spaces between the tokens, one of word pieces inside them
        self._space = " " if type(tokenizer.backend_tokenizer.model).__name__ == "WordLevel" else ""

    def canvas(self, tokens: np.ndarray, masked: np.ndarray, guesses: np.ndarray | None) -> Text:
        """One text of a whole canvas.

        Args:
          tokens: int `[G]`; ids where committed.
          masked: bool `[G]`.
          guesses: int `[G]`, negative where there is none; None: there is none anywhere.
        """
        text = Text()
        for i, (token, is_masked) in enumerate(zip(tokens.tolist(), masked.tolist(), strict=True)):
            if i and self._space:
                text.append(self._space)
            if not is_masked:
                text.append(self.of(token), STYLES["end" if token in self._ends else "committed"])
            elif guesses is None or guesses[i] < 0:
                text.append(MASKED, STYLES["masked"])
            else:
                piece = self.of(int(guesses[i]))
                lead = piece[: len(piece) - len(piece.lstrip(" "))]
                text.append(lead).append(SOFT + piece[len(lead) :], STYLES["soft"])
        return text

    def of(self, token: int) -> str:
        """A token as something printable; an end token is one sign."""
        if token in self._ends:
            return END
        text = self._tokenizer.convert_ids_to_tokens(token) if self._space else self._tokenizer.decode([token])
        return "".join("↵" if c == "\n" else c if c.isprintable() else "?" for c in text)


def best_guesses(state: DecodeState, config: DecodeConfig) -> np.ndarray | None:
    """int `[G]` of row 0: the likeliest token of each position of the active window, -1 elsewhere.

    None where no forward's belief is kept, or it belongs to another block.
    """
    if int(state.block_forwards[0]) == 0:
        return None
    start = int(state.block[0]) * config.window
    guesses = np.full(config.gen_length, -1)
    guesses[start : start + config.window] = np.asarray(state.belief.token[0])
    return guesses


def legend() -> Text:
    """What the signs mean."""
    return Text.assemble(
        "  ",
        (f"{MASKED} masked", STYLES["masked"]),
        "  ",
        (f"{SOFT}guess", STYLES["soft"]),
        "  ",
        ("committed", STYLES["committed"]),
        "  ",
        (f"{END} end", STYLES["end"]),
        no_wrap=True,
        overflow="crop",
    )


def _status(state: DecodeState) -> str:
    G = state.masked.shape[1]
    committed = f"{G - int(state.masked[0].sum())}/{G}"
    if int(state.forwards[0]) == 0:
        return f"compiling, {committed}"
    phase = "done" if not bool(state.running[0]) else "committing" if bool(state.committing[0]) else "refining"
    return f"forward {int(state.forwards[0])}, {phase}, {committed}"
