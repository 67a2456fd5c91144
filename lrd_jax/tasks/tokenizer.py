"""The embedded models' tokenizer: one token a word, a number from 0 to 20, or a sign; built from the tasks' own text.

Text is read in lower case, so prompts may be written in ordinary English. A word that no problem uses becomes
`<|unk|>`. A name is one token with the bracket that follows it ("sum("), a line break is one with its indentation.
"""

import itertools

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lrd_jax.tasks.problem import Task, stream
from lrd_jax.tasks.words import LARGEST

END, MASK, UNKNOWN = "<|endoftext|>", "<|mdm_mask|>", "<|unk|>"
_TOKEN = r"\n    |::-1|-x|[a-z]+[(\[]?|[0-9]+|//|[^\sa-z0-9]"
_TIGHT = (("( ", "("), (" )", ")"), ("[ ", "["), (" ]", "]"), (" :", ":"), ("[: ", "[:"))


def build_tokenizer(tasks: tuple[Task, ...], sample: int = 3000) -> PreTrainedTokenizerFast:
    """A fast tokenizer that knows every word of the tasks' problems; ids 0, 1, 2 are end-of-text, mask, unknown.

    Args:
      sample: problems of each task whose words make the vocabulary; enough for every template to occur.
    """
    splitter = _pre_tokenizer()
    words = {str(n) for n in range(LARGEST + 1)}
    for task in tasks:
        for problem in itertools.islice(stream(task, "train", seed=0), sample):
            for text in (problem.prompt, problem.answer):
                words.update(word for word, _ in splitter.pre_tokenize_str(text.lower()))
    ordered = [END, MASK, UNKNOWN, *sorted(words, key=lambda w: (w.isdigit(), int(w) if w.isdigit() else 0, w))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(ordered)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = _decoder()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        mask_token=MASK,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(_TOKEN), behavior="removed", invert=True)


def _decoder() -> decoders.Decoder:
    """Words joined by spaces, then the spaces that Python's habits leave out are taken away."""
    spaced = decoders.WordPiece(prefix="##", cleanup=False)  # no token has the prefix: this only puts the spaces
    tight = [decoders.Replace(Regex(r" ?\n +"), "\n    "), *(decoders.Replace(a, b) for a, b in _TIGHT)]
    return decoders.Sequence([spaced, decoders.Fuse(), *tight])
