"""LLaDA, iLLaDA and Dream in NumPy, float64: the network of the slow twin, straight from Hugging Face safetensors.

One row, no batch, no padding. Axes: L length, D embed, N heads, K kv heads, H head dim, V vocab.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

_LLADA = {
    "table": "model.transformer.wte.weight",
    "final_norm": "model.transformer.ln_f.weight",
    "head": "model.transformer.ff_out.weight",
    "block": "model.transformer.blocks.{}.",
    "names": "attn_norm q_proj k_proj v_proj attn_out ff_norm ff_proj up_proj ff_out",
    "sizes": "n_layers n_heads n_kv_heads",
}
_LLAMA_NAMES = {
    "table": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
    "block": "model.layers.{}.",
    "names": "input_layernorm self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj "
    "post_attention_layernorm mlp.gate_proj mlp.up_proj mlp.down_proj",
    "sizes": "num_hidden_layers num_attention_heads num_key_value_heads",
}


class TwinModel:
    """A checkpoint of LLaDA, iLLaDA or Dream in Hugging Face layout, as float64 arrays."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.dream = self.config["model_type"] in ("Dream", "Fast_dLLM_Qwen")
        self.attention_block = self.config.get("bd_size")
        layout = _LLADA if self.config["model_type"] == "llada" else _LLAMA_NAMES
        tensors = {}
        for file in sorted(folder.glob("*.safetensors")):
            tensors |= {name: tensor.astype(np.float64) for name, tensor in load_file(file).items()}
        layers, self.N, self.K = (self.config[size] for size in layout["sizes"].split())
        self.table, self.final_norm = (tensors[layout[name]] for name in ("table", "final_norm"))
        tied = self.config.get("tie_word_embeddings", self.config.get("weight_tying"))
        self.head = self.table if tied else tensors[layout["head"]]
        self.blocks = []
        for i in range(layers):
            names = [layout["block"].format(i) + name for name in layout["names"].split()]
            weights = [tensors[f"{name}.weight"] for name in names]
            biases = [tensors.get(f"{name}.bias", 0.0) for name in names[1:4]]
            self.blocks.append((weights, biases))
        self.mask_id, self.eps = self.config["mask_token_id"], self.config["rms_norm_eps"]

    def norm(self, x, scale):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + self.eps) * scale

    def rope(self, x, positions):
        """Rotates heads `[L, heads, H]`: the halves of a head are the two coordinates, position i turns by i."""
        H = x.shape[-1]
        frequencies = self.config["rope_theta"] ** (-np.arange(0, H, 2) / H)
        angles = (positions[:, None] * frequencies)[:, None, :]
        left, right = x[..., : H // 2], x[..., H // 2 :]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)

    def attend(self, q, k, v, sees):
        """Queries see the keys that `sees` `[L, S]` says; head n reads kv head n // (N / K)."""
        out = np.empty_like(q)
        for n in range(self.N):
            kv = n // (self.N // self.K)
            scores = q[:, n] @ k[:, kv].T / np.sqrt(q.shape[-1])
            out[:, n] = softmax(np.where(sees, scores, -np.inf)) @ v[:, kv]
        return out

    def logits(self, x):
        """Aligned logits `[L, V]` of embeddings `[L, D]`: row i speaks of position i, in every family."""
        return self.forward(x)[0]

    def forward(self, x, old=None, fresh=None):
        """Aligned logits, and the keys and values of every block.

        Given `old`, another forward's keys and values, they stand in for this one's outside of `fresh`, bool `[L]`.
        Everything is recomputed all the same: what is not fresh is only not seen.
        """
        L = len(x)
        blocks = np.arange(L) // (self.attention_block or L)
        raw, seen = self.run(x, np.arange(L), blocks <= blocks[:, None], old, fresh)
        return np.concatenate([raw[:1], raw[:-1]]) if self.dream else raw, seen

    def shadows(self, x, start, width, old=None, fresh=None):
        """Logits `[W, V]` of a [MASK] row behind all others for each position from `start` on, to which it is hidden.

        Shadows see each other, and nobody else sees them. Each stands where the logits of its position stand.
        """
        L, W = len(x), width
        at = start + np.arange(W)
        sees = np.zeros((L + W, L + W), bool)
        sees[:, :L], sees[L:, L:] = True, True
        sees[L + np.arange(W), at] = False
        positions = np.concatenate([np.arange(L), at - self.dream])
        x = np.concatenate([x, np.tile(self.table[self.mask_id], (W, 1))])
        if old is not None:
            old = [[np.concatenate([kept, np.zeros((W, *kept.shape[1:]))]) for kept in pair] for pair in old]
            fresh = np.concatenate([fresh, np.ones(W, bool)])
        return self.run(x, positions, sees, old, fresh)[0][L:]

    def run(self, x, positions, sees, old=None, fresh=None):
        """Raw logits, every row its own, and the keys and values of every block."""
        L, D = x.shape
        seen = []
        for block, ((norm1, q, k, v, out, norm2, gate, up, down), (q_bias, k_bias, v_bias)) in enumerate(self.blocks):
            h = self.norm(x, norm1)
            heads = [(h @ w.T + b).reshape(L, -1, D // self.N) for w, b in ((q, q_bias), (k, k_bias), (v, v_bias))]
            keys, values = self.rope(heads[1], positions), heads[2]
            if old is not None:
                keys, values = (
                    np.where(fresh[:, None, None], *pair) for pair in zip((keys, values), old[block], strict=True)
                )
            seen.append((keys, values))
            x = x + self.attend(self.rope(heads[0], positions), keys, values, sees).reshape(L, D) @ out.T
            h = self.norm(x, norm2)
            gated = h @ gate.T
            x = x + (gated / (1 + np.exp(-gated)) * (h @ up.T)) @ down.T
        return self.norm(x, self.final_norm) @ self.head.T, seen


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
