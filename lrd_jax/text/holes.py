"""A canvas of given text and holes: "Tom has {4} apples." is a text, four open positions, and a text."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lrd_jax.errors import Refused
from lrd_jax.text.prompts import check_text

if TYPE_CHECKING:
    from lrd_jax.text.tokenizer import Tokenizer

Piece = str | int  # a given text, or a hole of so many positions
_MOST = 2**20  # open positions; no canvas has more
_HOLE = re.compile(r"\{\{|\}\}|\{(\d+)\}|[{}]")


def parse_holes(template: str) -> list[Piece]:
    """The pieces of a template: `{4}` is a hole of four positions, `{{` and `}}` are braces.

    Raises:
      Refused: a brace that is neither.
    """
    pieces: list[Piece] = [""]
    end = 0
    for found in _HOLE.finditer(template):
        given = template[end : found.start()]
        end = found.end()
        if found[0] in "{}":
            wanted = "a hole of four positions is {4}, a brace {{ or }}"
            raise Refused(f"the canvas has a lone {found[0]!r} at {found.start()}: {wanted}")
        given += found[0][0] if found[1] is None else ""
        pieces[-1] = f"{pieces[-1]}{given}"
        if found[1] is not None:
            if len(found[1]) > 7:
                raise Refused(f"the canvas has a hole of {found[1]:.20} positions at {found.start()}, too many for any")
            pieces += [int(found[1]), ""]
    pieces[-1] = f"{pieces[-1]}{template[end:]}"
    return [piece for piece in pieces if piece != ""]


def encode_holes(tokenizer: "Tokenizer", pieces: Sequence[Piece], name: str) -> np.ndarray:
    """Token ids int32 `[l]` of the pieces one after another, -1 where a hole is open.

    Args:
      name: of the canvas, for messages.

    Raises:
      Refused: pieces that are neither texts nor numbers of positions, or no hole among them.
    """
    if isinstance(pieces, str) or not isinstance(pieces, Sequence):
        raise Refused(f"{name} must be a list of texts and of numbers of open positions, got {pieces!r:.80}")
    ids: list[int] = []
    for piece in pieces:
        if isinstance(piece, str):
            check_text(piece, name)
            ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
        elif isinstance(piece, int) and not isinstance(piece, bool) and 0 < piece <= _MOST:
            ids += [-1] * piece
        else:
            raise Refused(
                f"{name} holds {piece!r:.80}: texts and numbers of open positions, from 1 to {_MOST}, were wanted"
            )
        if len(ids) > _MOST:
            raise Refused(f"{name} has more than {_MOST} positions, too many for any")
    if -1 not in ids:
        raise Refused(f"{name} has no hole: nothing is left to generate")
    return np.array(ids, np.int32)


def texts_of_holes(tokenizer: "Tokenizer", given: np.ndarray, tokens: np.ndarray) -> tuple[str, ...]:
    """What each hole of a canvas `[l]` was filled with, of its final tokens `[l]`."""
    edges = np.flatnonzero(np.diff(np.pad((given < 0).astype(np.int8), 1)))
    return tuple(
        tokenizer.decode(tokens[start:stop].tolist(), skip_special_tokens=True) for start, stop in edges.reshape(-1, 2)
    )
