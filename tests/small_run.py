"""The text of a small training run on word problems, for tests that change a line of it."""


def recipe(output: str, *, steps: int, batch: int = 2, warmup_steps: int = 1, embed_dim: int = 8) -> str:
    return f"""
output = "{output}"
steps = {steps}
[model]
num_layers = 1
embed_dim = {embed_dim}
mlp_dim = 16
num_heads = 2
max_length = 64
[data]
tasks = ["words"]
[[data.buckets]]
prompt = 32
canvas = 20
batch = {batch}
[optimizer]
peak_lr = 1e-3
warmup_steps = {warmup_steps}
"""
