"""What the pod of `commands.py` is asked, command by command."""

QUESTIONS = ("Tom has 14 apples. Ann takes 5 apples. How many are left?", "Tom has 12 apples. How many are left?")
SPOKEN = QUESTIONS[0] + "\n"
DECODER = ["--gen-length", "16", "--mesh", "data=2,tensor=2"]  # the boxed model's 145 tokens become 146

TRAINING = """
steps = 4
checkpoint_every = 2
log_every = 1
[model]
num_layers = 1
embed_dim = 16
mlp_dim = 32
num_heads = 2
max_length = 64
[data]
tasks = ["sums"]
[[data.buckets]]
prompt = 4
canvas = 2
batch = 8
share = 1.0
[optimizer]
peak_lr = 1e-3
warmup_steps = 1
"""

COMMANDS = {
    "generate": ["generate", "--input", "questions.txt", "--output", "answers.txt", "--temperature", "0.7", *DECODER],
    "chat": ["chat", "--no-chat", *DECODER],
    "convert": ["convert", "hf", "converted"],
    "verify": ["verify", "converted"],
    "export": ["export", "converted", "exported"],
    "train": ["train", "train.toml", "--mesh", "data=2,tensor=2"],  # 2 heads, a vocabulary that 2 may not divide
    "resume": ["train", "resume.toml", "--mesh", "fsdp=4"],
}
DIFFERENT = [["generate", question, *DECODER] for question in QUESTIONS]
