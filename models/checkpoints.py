"""Released checkpoints: sizes, special tokens, chat format, and where their weights live."""

import dataclasses

from lrd_jax.models.config import LogitAlignment, ModelConfig

_LLADA_8B = ModelConfig(
    family="llada",
    vocab_size=126464,
    num_layers=32,
    embed_dim=4096,
    mlp_dim=12288,
    num_heads=32,
    num_kv_heads=32,
    max_length=4096,
    rope_theta=500000.0,
    rope_full_precision=True,
    norm_eps=1e-5,
    qkv_bias=False,
    tied_head=False,
    scale_logits=False,
    alignment=LogitAlignment.SAME_POSITION,
    mask_id=126336,
    eos_id=126081,
    pad_id=126081,
    bos_id=126080,
    eot_id=126348,
)

_DREAM_7B = ModelConfig(
    family="dream",
    vocab_size=152064,
    num_layers=28,
    embed_dim=3584,
    mlp_dim=18944,
    num_heads=28,
    num_kv_heads=4,
    max_length=131072,
    rope_theta=1000000.0,
    rope_full_precision=False,
    norm_eps=1e-6,
    qkv_bias=True,
    tied_head=False,
    scale_logits=False,
    alignment=LogitAlignment.SHIFTED,
    mask_id=151666,
    eos_id=151643,
    pad_id=151643,
    bos_id=151665,
    eot_id=151645,
)

_ILLADA_8B = ModelConfig(
    family="illada",
    vocab_size=155136,
    num_layers=32,
    embed_dim=4096,
    mlp_dim=14336,
    num_heads=32,
    num_kv_heads=8,
    max_length=8192,
    rope_theta=500000.0,  # this and norm_eps: not seen in a released file, whose own are taken where one is read
    rope_full_precision=False,
    norm_eps=1e-6,
    qkv_bias=False,
    tied_head=True,
    scale_logits=False,
    alignment=LogitAlignment.SAME_POSITION,
    mask_id=5,
    eos_id=2,
    pad_id=1,
    bos_id=0,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A released checkpoint.

    Attributes:
      hub_id: where its weights are published.
      config: sizes and special tokens.
      chat: whether it was tuned on conversations, so that a prompt goes through the family's chat template.
    """

    hub_id: str
    config: ModelConfig
    chat: bool


CHECKPOINTS = {
    "llada-8b-base": Checkpoint(hub_id="GSAI-ML/LLaDA-8B-Base", config=_LLADA_8B, chat=False),
    "llada-8b-instruct": Checkpoint(hub_id="GSAI-ML/LLaDA-8B-Instruct", config=_LLADA_8B, chat=True),
    "llada-1.5": Checkpoint(hub_id="GSAI-ML/LLaDA-1.5", config=_LLADA_8B, chat=True),
    "dream-7b-base": Checkpoint(hub_id="Dream-org/Dream-v0-Base-7B", config=_DREAM_7B, chat=False),
    "dream-7b-instruct": Checkpoint(hub_id="Dream-org/Dream-v0-Instruct-7B", config=_DREAM_7B, chat=True),
    "illada-8b-base": Checkpoint(hub_id="GSAI-ML/iLLaDA-8B-Base", config=_ILLADA_8B, chat=False),
    "illada-8b-instruct": Checkpoint(hub_id="GSAI-ML/iLLaDA-8B-Instruct", config=_ILLADA_8B, chat=True),
    "d3llm-llada": Checkpoint(hub_id="d3LLM/d3LLM_LLaDA", config=_LLADA_8B, chat=True),
    "d3llm-dream": Checkpoint(hub_id="d3LLM/d3LLM_Dream", config=_DREAM_7B, chat=True),
    "dream-coder-7b-base": Checkpoint(hub_id="Dream-org/Dream-Coder-v0-Base-7B", config=_DREAM_7B, chat=False),
    "dream-coder-7b-instruct": Checkpoint(hub_id="Dream-org/Dream-Coder-v0-Instruct-7B", config=_DREAM_7B, chat=True),
    "diffucoder-7b-base": Checkpoint(hub_id="apple/DiffuCoder-7B-Base", config=_DREAM_7B, chat=False),
    "diffucoder-7b-instruct": Checkpoint(hub_id="apple/DiffuCoder-7B-Instruct", config=_DREAM_7B, chat=True),
    "diffucoder-7b-cpgrpo": Checkpoint(hub_id="apple/DiffuCoder-7B-cpGRPO", config=_DREAM_7B, chat=True),
    "dreamon-7b": Checkpoint(hub_id="Dream-org/DreamOn-v0-7B", config=_DREAM_7B, chat=False),
}
