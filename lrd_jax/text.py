"""Text to tokens and back: tokenizers from a checkpoint's own files, and the families' chat templates.

Neither torch nor a checkpoint's remote code is needed. transformers is imported on first use, because it is slow.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from lrd_jax.models import ModelConfig

# Written for this package from the formats that the models were trained on; used where a folder brings no template.
CHAT_TEMPLATES = {
    "llada": (
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
        "{{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "dream": (
        "{% if messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
}
_CHAT_TOKENS = {
    "llada": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "dream": ("<|im_start|>", "<|im_end|>"),
}

# What Dream's vocabulary has beyond the byte pairs of vocab.json, in the order of the ids: Qwen2.5's, then its own two.
_DREAM_ADDED = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>"),
    *("<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|beginoftext|>", "<|mask|>"),
)
_DREAM_PLAIN = _DREAM_ADDED[14:22]  # tools, fill-in-the-middle and files: words of the text, kept when it is decoded
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_SHORTEST_PROMPT = 16  # smallest bucket of prompt lengths


def has_tokenizer(folder: str | Path) -> bool:
    """Whether the folder brings a tokenizer."""
    return any((Path(folder) / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def load_tokenizer(folder: str | Path, config: "ModelConfig") -> "PreTrainedTokenizerFast":
    """The tokenizer in a checkpoint's folder: from tokenizer.json, or for Dream from vocab.json and merges.txt.

    Its special tokens are those of `config`; its chat template is the folder's, else the family's where the vocabulary
    has the tokens for it, else None.

    Raises:
      ValueError: the folder has no tokenizer, or one that lacks the config's mask or end-of-text token.
    """
    from tokenizers import Tokenizer

    folder = Path(folder)
    settings = _read_json(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file():
        try:
            backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more specific
            raise ValueError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
    elif config.family == "dream" and all((folder / name).is_file() for name in ("vocab.json", "merges.txt")):
        backend = _dream_tokenizer(folder, settings)
    else:
        wanted = "tokenizer.json" + (", or vocab.json and merges.txt" if config.family == "dream" else "")
        raise ValueError(f"{folder} has no tokenizer: {wanted} was wanted; copy it there from the model's release")
    ids = {"eos": config.eos_id, "pad": config.pad_id, "mask": config.mask_id, "bos": config.bos_id}
    special = {f"{name}_token": backend.id_to_token(i) for name, i in ids.items() if i is not None}
    if missing := [f"{name}_id {ids[name]}" for name in ("eos", "pad", "mask") if special[f"{name}_token"] is None]:
        raise ValueError(
            f"the tokenizer in {folder} has {backend.get_vocab_size()} tokens and none for {', '.join(missing)}: "
            "it belongs to another model"
        )
    return _import_transformers().PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=getattr(backend.model, "unk_token", None),
        chat_template=_chat_template(folder, settings, config, backend),
        clean_up_tokenization_spaces=bool(settings.get("clean_up_tokenization_spaces", False)),
        padding_side="left",
        **{name: token for name, token in special.items() if token is not None},
    )


def encode_prompts(
    tokenizer: "PreTrainedTokenizerFast", texts: list[str], *, chat: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Left-padded prompts and their mask.

    Args:
      texts: B prompts.
      chat: put each into the tokenizer's chat template, as the user's turn with the answer to follow.

    Returns:
      prompt: int32 `[B, P]`.
      prompt_mask: bool `[B, P]`, False where a row is padded.

    Raises:
      ValueError: no tokenizer (None), no prompts, an empty one, or a chat without a chat template.
    """
    _require(tokenizer)
    if not texts:
        raise ValueError("no prompts were given; at least one was wanted")
    if chat:
        if tokenizer.chat_template is None:
            raise ValueError("the model has no chat template: it was not tuned on chats; decode without chat")
        turns = [[{"role": "user", "content": text}] for text in texts]
        texts = [str(tokenizer.apply_chat_template(t, add_generation_prompt=True, tokenize=False)) for t in turns]
        rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]  # a template has its own
    else:
        rows = [encode_text(tokenizer, text) for text in texts]
    if empty := [str(i) for i, row in enumerate(rows) if not row]:
        raise ValueError(f"prompt {', '.join(empty)} is empty: at least one token was wanted")
    return left_pad(rows, cast(int, tokenizer.pad_token_id))


def encode_text(tokenizer: "PreTrainedTokenizerFast", text: str) -> list[int]:
    """Token ids; a text that begins with a special token has been through a chat template, which brings its own."""
    return tokenizer(text, add_special_tokens=not starts_special(tokenizer, text))["input_ids"]


def starts_special(tokenizer: "PreTrainedTokenizerFast", text: str) -> bool:
    """Whether the text begins with a special token of the vocabulary."""
    special = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return text.startswith(tuple(special))


def left_pad(rows: list[list[int]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of token ids as one array int32 `[B, P]`, and its mask bool `[B, P]`, False where a row is padded."""
    length = max(map(len, rows))
    prompt = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        prompt[i, length - len(row) :] = row
        mask[i, length - len(row) :] = True
    return prompt, mask


def pad_to_bucket(prompt: np.ndarray, mask: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Pads prompts on the left to a power of two, so that few lengths are compiled, but to no more than `room`.

    Args:
      prompt, mask: `[B, P]`, as `encode_prompts` gives them.
      room: tokens that the model's context leaves beside the canvas.
    """
    length = prompt.shape[1]
    bucket = max(_SHORTEST_PROMPT, 1 << (length - 1).bit_length())
    pad = ((0, 0), (max(0, min(bucket, room) - length), 0))
    return np.pad(prompt, pad), np.pad(mask, pad)


def answer_lengths(tokens: Any, end_ids: Sequence[int]) -> np.ndarray:
    """int `[B]`: tokens of each row of `[B, G]` before its first end token; G where there is none."""
    ends = np.isin(tokens, end_ids)
    return np.where(ends.any(axis=1), ends.argmax(axis=1), ends.shape[1])


def decode_text(tokenizer: "PreTrainedTokenizerFast", tokens: Any, config: "ModelConfig") -> list[str]:
    """The text of generated tokens int `[B, G]`, each row cut at its first end-of-text or end-of-turn."""
    tokens = np.asarray(tokens)
    lengths = answer_lengths(tokens, config.end_ids)
    return [
        str(tokenizer.decode(row[:length], skip_special_tokens=True))
        for row, length in zip(tokens, lengths, strict=True)
    ]


def unknown_words(tokenizer: "PreTrainedTokenizerFast", text: str) -> list[str]:
    """The words of the text that the vocabulary lacks, each once; none where it has no token for the unknown.

    Raises:
      ValueError: no tokenizer (None).
    """
    backend = _require(tokenizer).backend_tokenizer
    unknown = getattr(backend.model, "unk_token", None)
    if unknown is None:
        return []
    encoded = backend.encode(text, add_special_tokens=False)
    spans = zip(encoded.tokens, encoded.offsets, strict=True)
    return list(dict.fromkeys(text[start:stop] for token, (start, stop) in spans if token == unknown))


def _require(tokenizer: "PreTrainedTokenizerFast | None") -> "PreTrainedTokenizerFast":
    if tokenizer is None:
        raise ValueError("the model's folder has no tokenizer: copy its tokenizer files there to decode text")
    return tokenizer


def _import_transformers():
    """transformers, without its advice on standard error that torch is missing: only tokenizers are wanted."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        import transformers
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    return transformers


def _dream_tokenizer(folder: Path, settings: dict[str, Any]):
    """Qwen2's byte-level BPE, with Dream's added tokens (from the folder's settings where they are listed there)."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    vocab, merges = BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer = Tokenizer(BPE(vocab, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    listed = {int(i): (t["content"], t["special"]) for i, t in settings.get("added_tokens_decoder", {}).items()}
    wanted = listed or {len(vocab) + i: (t, t not in _DREAM_PLAIN) for i, t in enumerate(_DREAM_ADDED)}
    for i, (content, special) in sorted(wanted.items()):
        tokenizer.add_tokens([AddedToken(content, special=special, normalized=False)])
        if (got := tokenizer.token_to_id(content)) != i:
            raise ValueError(
                f"{folder}: the added token {content!r} should have id {i}, but the vocabulary makes it {got}"
            )
    return tokenizer


def _chat_template(folder: Path, settings: dict[str, Any], config: "ModelConfig", backend) -> str | None:
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text()
    if isinstance(settings.get("chat_template"), str):
        return settings["chat_template"]
    known = all(backend.token_to_id(token) is not None for token in _CHAT_TOKENS[config.family])
    return CHAT_TEMPLATES[config.family] if known else None


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
