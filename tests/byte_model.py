"""A tiny LLaDA of random weights whose tokenizer takes any text: one token a byte."""

import jax
import jax.numpy as jnp

from lrd_jax.convert import write_hf
from lrd_jax.models import CHECKPOINTS, Model, ModelConfig

SPECIAL = ("<|endoftext|>", "<|mdm_mask|>", "<|startoftext|>")
CHAT = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def write_byte_model(folder, *, chat=False, max_length=4096):
    """A Hugging Face folder; with `chat` its vocabulary has the tokens of LLaDA's chat format."""
    special = SPECIAL + (CHAT if chat else ())
    folder.mkdir(parents=True, exist_ok=True)
    write_byte_tokenizer(folder / "tokenizer", special)
    sizes = {"num_layers": 1, "embed_dim": 16, "mlp_dim": 16, "num_heads": 1, "num_kv_heads": 1}
    ids = {"eos_id": 0, "pad_id": 0, "mask_id": 1, "bos_id": 2, "eot_id": len(special) - 1 if chat else None}
    fields = CHECKPOINTS["llada-8b-base"].config.to_json() | sizes | ids
    config = ModelConfig.from_json(fields | {"vocab_size": len(special) + 256, "max_length": max_length})
    params = jax.tree.map(lambda leaf: 4 * leaf, Model(config).init(jax.random.key(3), jnp.float32))
    write_hf(params, config, folder / "model", tokenizer=folder / "tokenizer")
    return folder / "model"


def write_byte_tokenizer(folder, special=SPECIAL):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
