"""How good an answer to one of the prompts is."""

import numpy as np

from lrd_jax.research.prompts import Example
from lrd_jax.tasks import check
from lrd_jax.text import decode_text


class Judge:
    """Texts of decoded tokens, and whether they are right; each distinct one is looked at once."""

    def __init__(self, tokenizer, model_config, examples: list[Example]):
        self._tokenizer, self._model_config, self._examples = tokenizer, model_config, examples
        self._texts: dict[bytes, str] = {}
        self._right: dict[tuple[int, str], bool] = {}

    @property
    def checks(self) -> bool:
        """Whether answers can be checked."""
        return self._examples[0].task is not None

    def text(self, tokens: np.ndarray) -> str:
        """The text of tokens `[G]`, cut at the first end token."""
        key = tokens.tobytes()
        if key not in self._texts:
            self._texts[key] = decode_text(self._tokenizer, tokens[None], self._model_config)[0]
        return self._texts[key]

    def right(self, row: int, text: str) -> bool:
        """Whether the text answers prompt `row`, where answers can be checked."""
        if (row, text) not in self._right:
            self._right[row, text] = check(self._examples[row].problem, text)
        return self._right[row, text]
