"""The families' own formats: chat templates, and Dream's byte pairs where a folder brings no tokenizer.json."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrd_jax.errors import Refused

if TYPE_CHECKING:
    import tokenizers

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
CHAT_TOKENS = {
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


def dream_tokenizer(folder: Path, settings: dict[str, Any]) -> "tokenizers.Tokenizer":
    """Qwen2's byte-level BPE, with Dream's added tokens (from the folder's settings where they are listed there)."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    try:
        vocab, merges = BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
        tokenizer = Tokenizer(BPE(vocab, merges))
    except Exception as error:  # the library raises nothing more specific
        raise Refused(f"vocab.json and merges.txt in {folder} cannot be read: {error}") from error
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    listed = _listed_tokens(folder, settings.get("added_tokens_decoder", {}))
    wanted = listed or {len(vocab) + i: (t, t not in _DREAM_PLAIN) for i, t in enumerate(_DREAM_ADDED)}
    for i, (content, special) in sorted(wanted.items()):
        tokenizer.add_tokens([AddedToken(content, special=special, normalized=False)])
        if (got := tokenizer.token_to_id(content)) != i:
            raise Refused(
                f"{folder}: the added token {content!r} should have id {i}, but the vocabulary makes it {got}"
            )
    return tokenizer


def _listed_tokens(folder: Path, listed: Any) -> dict[int, tuple[str, bool]]:
    """Content and whether it is special, by id, of the settings' "added_tokens_decoder"."""
    try:
        tokens = {int(i): (token["content"], token["special"]) for i, token in listed.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        tokens = {-1: ("", False)}
    if any(i < 0 or not isinstance(text, str) or type(special) is not bool for i, (text, special) in tokens.items()):
        raise Refused(
            f'{folder / "tokenizer_config.json"}: added_tokens_decoder must hold {{"ID": {{"content": TEXT, "special": '
            f"true or false}}}}, got {listed!r:.80}"
        )
    return tokens
