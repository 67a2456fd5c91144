"""The canvas on a terminal while it settles: masked, soft with its best guess so far, committed."""

import time
from typing import TYPE_CHECKING, Self

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from lrd_jax.answer import Canvas
from lrd_jax.models import ModelConfig

if TYPE_CHECKING:
    from lrd_jax.text import Tokenizer

# Each kind of position has a style and a sign of its own, so that it is told apart without colour too.
MASKED, SOFT, END = "░", "~", "·"
STYLES = {"masked": "bright_black", "soft": "italic cyan", "committed": "bold", "end": "bold green"}

_FRAME_SECONDS = 0.07  # a small model's forwards are faster than the eye
_WIDEST = 100
_FRAME_LINES = 4  # borders, legend, and the line that the cursor rests on


class CanvasView:
    """Shows a decode of one row; a context manager whose `show` takes its canvases.

    Leaving it, by an exception or Ctrl-C too, takes the picture away and gives the cursor back.
    """

    def __init__(self, console: Console, tokenizer: "Tokenizer", model: ModelConfig, title: str):
        self.console = console
        self.title = title
        self._pieces = Pieces(tokenizer, model)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._next_frame = 0.0

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._live.__exit__(*error)

    def show(self, canvas: Canvas) -> None:
        """Draws the canvas, no sooner than a frame after the one before."""
        frame = self.frame(canvas)
        time.sleep(max(0.0, self._next_frame - time.monotonic()))
        self._live.update(frame, refresh=True)
        self._next_frame = time.monotonic() + _FRAME_SECONDS

    def frame(self, canvas: Canvas) -> RenderableType:
        """The picture of a canvas, and a line of what the loop is doing."""
        width = min(self.console.width, _WIDEST)
        tokens, masked = canvas.tokens, canvas.masked
        lines = self._pieces.canvas(tokens, masked, canvas.guesses).wrap(self.console, width - 4)
        room = max(1, self.console.height - _FRAME_LINES)
        if len(lines) > room:  # keep the first open position in sight
            first = int(np.argmax(masked)) if masked.any() else 0
            above = self._pieces.canvas(tokens[:first], masked[:first], canvas.guesses).wrap(self.console, width - 4)
            start = min(max(0, len(above) - room // 2), len(lines) - room)
            lines = lines[start : start + room]
        panel = Panel(
            Text("\n").join(lines),
            title=self.title,
            title_align="left",
            subtitle=_status(canvas),
            subtitle_align="left",
            width=width,
        )
        return Group(panel, legend())


class Pieces:
    """How tokens look on one line."""

    def __init__(self, tokenizer: "Tokenizer", model: ModelConfig):
        self._tokenizer = tokenizer
        self._ends = model.end_ids
        # a vocabulary of whole words has its spaces between the tokens, one of word pieces inside them
        self._space = " " if type(tokenizer.backend_tokenizer.model).__name__ == "WordLevel" else ""

    def canvas(self, tokens: np.ndarray, masked: np.ndarray, guesses: np.ndarray) -> Text:
        """One text of a whole canvas.

        Args:
          tokens: int `[G]`; ids where committed.
          masked: bool `[G]`.
          guesses: int `[G]`, negative where there is none.
        """
        text = Text()
        for i, (token, is_masked) in enumerate(zip(tokens.tolist(), masked.tolist(), strict=True)):
            if i and self._space:
                text.append(self._space)
            if not is_masked:
                text.append(self.of(token), STYLES["end" if token in self._ends else "committed"])
            elif guesses[i] < 0:
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


def _status(canvas: Canvas) -> str:
    G = len(canvas.masked)
    committed = f"{G - int(canvas.masked.sum())}/{G}"
    if canvas.steps == 0:
        return f"compiling, {committed}"
    phase = "done" if not canvas.running else "refining" if canvas.refining else "committing"
    return f"forward {canvas.steps}, {phase}, {committed}"
