"""Draws docs/settling.svg, the README's picture: moments of one decode, as `lrd-jax generate` shows them.

python docs/make_settling.py [MODEL]
"""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lrd_jax import DecodeConfig, Generator, load
from lrd_jax.cli.live import CanvasView

QUESTION = (
    "Tom has 14 apples. Ann takes 5 apples. The number is doubled. Tom sells 7 apples. "
    "Ann brings 3 apples. The number is halved. Tom finds 6 apples. How many are left?"
)
MOMENTS = (0.02, 0.5, 0.93)  # shares of all forwards
WIDTH = 88


def main(model: str = "lrd-tiny-soft") -> None:
    generator = Generator(load(model), DecodeConfig.lrd(64))
    updates = list(generator.stream([QUESTION]))[1:]
    answer = updates[-1].answer
    console = Console(record=True, width=WIDTH, height=40, force_terminal=True, file=io.StringIO())
    view = CanvasView(console, generator.loaded.tokenizer, generator.loaded.config, f"{model}, lrd")
    console.print(Text(f'$ lrd-jax generate "{QUESTION}"'))
    for moment in MOMENTS:
        console.print(view.frame(updates[int(moment * len(updates))].canvas))
    console.print(Text(answer.text, "bold"))
    console.print(Text(answer.facts, "dim"))
    svg = console.export_svg(title="lrd-jax")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # no fonts from elsewhere
    Path(__file__).with_name("settling.svg").write_text(svg)


if __name__ == "__main__":
    main(*sys.argv[1:])
