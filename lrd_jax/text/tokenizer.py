"""Tokenizers from a checkpoint's own files, by the tokenizers library alone: transformers takes a second to import."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrd_jax.errors import Refused
from lrd_jax.text.chat import Message, render
from lrd_jax.text.formats import CHAT_TEMPLATES, CHAT_TOKENS, dream_tokenizer

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    from lrd_jax.models import ModelConfig


class Tokenizer:
    """Text to ids and back: what decoding needs of transformers' `PreTrainedTokenizerFast`, under the same names.

    Whatever else is asked of it, `hf` answers, which imports transformers.

    Attributes:
      backend_tokenizer: the tokenizers library's own.
      chat_template: Jinja; None: the model was not tuned on chats.
      special_tokens_map: text by name, as "eos_token", of those that the model has.
    """

    eos_token: str
    eos_token_id: int
    pad_token: str
    pad_token_id: int
    mask_token: str
    mask_token_id: int
    bos_token: str | None = None
    bos_token_id: int | None = None
    unk_token: str | None = None
    unk_token_id: int | None = None

    def __init__(
        self, backend: "tokenizers.Tokenizer", special_tokens: dict[str, str], chat_template: str | None = None
    ):
        from tokenizers import AddedToken

        self.backend_tokenizer = backend
        self.chat_template = chat_template
        self.special_tokens_map = special_tokens
        backend.no_padding()
        backend.no_truncation()
        known = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
        missing = [token for token in dict.fromkeys(special_tokens.values()) if token not in known]
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
        for name, token in special_tokens.items():
            setattr(self, name, token)
            setattr(self, f"{name}_id", backend.token_to_id(token))

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """The "input_ids" of a text."""
        if not isinstance(text, str):
            raise Refused(f"a text was wanted, got {text!r:.80}")
        return {"input_ids": self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of ids; those that the vocabulary lacks have none.

        Raises:
          Refused: no row of ids, or a switch that is no boolean.
        """
        if not isinstance(skip_special_tokens, bool):
            raise Refused(f"skip_special_tokens={skip_special_tokens!r:.80} must be True or False")
        return self.backend_tokenizer.decode(_ids(ids), skip_special_tokens=skip_special_tokens)

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> Any:
        """The vocabulary's own spelling of an id, or a list of them; None of what it lacks.

        Raises:
          Refused: neither an id nor a row of ids.
        """
        if isinstance(ids, int):
            return self.convert_ids_to_tokens([ids])[0]
        return [self.backend_tokenizer.id_to_token(i) for i in _ids(ids)]

    @property
    def added_tokens_decoder(self) -> "dict[int, tokenizers.AddedToken]":
        """The tokens beside the vocabulary, by id."""
        return self.backend_tokenizer.get_added_tokens_decoder()

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        **options: Any,
    ) -> Any:
        """The conversation as the model was trained on it.

        Without `tokenize` and other options it is rendered here; else transformers does it.
        """
        if tokenize or options or self.chat_template is None:
            asked = {"add_generation_prompt": add_generation_prompt, "tokenize": tokenize, **options}
            return self.hf.apply_chat_template([dict(message) for message in messages], **asked)
        return render(
            self.chat_template, messages, self.special_tokens_map, add_generation_prompt=add_generation_prompt
        )

    @functools.cached_property
    def hf(self) -> "PreTrainedTokenizerFast":
        """The same tokenizer as transformers has it."""
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(
            tokenizer_object=self.backend_tokenizer,
            chat_template=self.chat_template,
            clean_up_tokenization_spaces=False,
            padding_side="left",
            **self.special_tokens_map,
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("backend_tokenizer", "hf"):  # copies ask before anything is set
            raise AttributeError(name)
        return getattr(self.hf, name)


def _ids(ids: Any) -> list[int]:
    try:
        row = np.asarray(ids)
    except ValueError:  # lists of several lengths
        row = np.empty((), object)
    if row.shape == (0,):
        return []
    if row.ndim != 1 or not np.issubdtype(row.dtype, np.integer) or row.min() < 0 or row.max() >= 2**32:
        raise Refused(f"ids must be a row of token ids, integers from 0 on, got {ids!r:.80}")
    return row.tolist()


def has_tokenizer(folder: str | Path) -> bool:
    """Whether the folder brings a tokenizer."""
    return any((Path(folder) / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def load_tokenizer(folder: str | Path, config: "ModelConfig") -> Tokenizer:
    """The tokenizer in a checkpoint's folder: from tokenizer.json, or for Dream from vocab.json and merges.txt.

    Its special tokens are those of `config`; its chat template is the folder's, else the family's where the vocabulary
    has the tokens for it, else None.

    Raises:
      ValueError: the folder has no tokenizer, or one that lacks the config's mask or end-of-text token.
    """
    import tokenizers

    folder = Path(folder)
    settings = _read_json(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file():
        try:
            backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more specific
            raise Refused(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
    elif config.family == "dream" and all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        backend = dream_tokenizer(folder, settings)
    else:
        wanted = "tokenizer.json" + (", or vocab.json and merges.txt" if config.family == "dream" else "")
        raise Refused(f"{folder} has no tokenizer: {wanted} was wanted; copy it there from the model's release")
    ids = {"eos": config.eos_id, "pad": config.pad_id, "mask": config.mask_id, "bos": config.bos_id}
    special = {f"{name}_token": backend.id_to_token(i) for name, i in ids.items() if i is not None}
    if missing := [f"{name}_id {ids[name]}" for name in ("eos", "pad", "mask") if special[f"{name}_token"] is None]:
        raise Refused(
            f"the tokenizer in {folder} has {backend.get_vocab_size()} tokens and none for {', '.join(missing)}: "
            "it belongs to another model"
        )
    special["unk_token"] = getattr(backend.model, "unk_token", None)
    special = {name: token for name, token in special.items() if token is not None}
    return Tokenizer(backend, special, _chat_template(folder, settings, config, backend))


def _chat_template(folder: Path, settings: dict[str, Any], config: "ModelConfig", backend) -> str | None:
    if (folder / "chat_template.jinja").is_file():
        try:
            return (folder / "chat_template.jinja").read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise Refused(f"{folder / 'chat_template.jinja'} is not UTF-8 at byte {error.start}") from None
    if isinstance(settings.get("chat_template"), str):
        return settings["chat_template"]
    tokens = CHAT_TOKENS.get(config.family, ())
    known = tokens and all(backend.token_to_id(token) is not None for token in tokens)
    return CHAT_TEMPLATES[config.family] if known else None


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise Refused(f"{file} must hold an object, got {content!r:.80}; copy it from the model's release")
    return content
