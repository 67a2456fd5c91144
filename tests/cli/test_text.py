"""Tokenizers and chat templates: Dream's from its vocabulary files, LLaDA's format, padding, ends, unknown words."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lrd_jax.models import CHECKPOINTS, ModelConfig
from lrd_jax.text import (
    CHAT_TEMPLATES,
    Tokenizer,
    decode_text,
    encode_prompts,
    has_tokenizer,
    load_tokenizer,
    pad_to_bucket,
    unknown_words,
)

SHARED = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
DREAM = CHECKPOINTS["dream-7b-instruct"].config
WORDS = ("<|endoftext|>", "<|mdm_mask|>", "<|unk|>", "how", "many", "apples", "?", "user", "assistant", "\n")
CHAT = ("<|startoftext|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def model_config(vocab_size, family="llada", **ids):
    fields = CHECKPOINTS["llada-8b-base"].config.to_json()
    known = {"eos_id": 0, "pad_id": 0, "mask_id": 1, "bos_id": None, "eot_id": None}
    return ModelConfig.from_json(fields | {"vocab_size": vocab_size, "family": family} | known | ids)


def write_words(folder, words=WORDS, **settings):
    """A word-level tokenizer.json over `words`."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|\n|[^\w\s]"), behavior="removed", invert=True)
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in words if word.startswith("<|")])
    tokenizer.save(str(folder / "tokenizer.json"))
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    """A folder with Dream's vocab.json and merges.txt."""
    if not SHARED.is_dir():
        pytest.skip("the Qwen2 vocabulary lies in ../shared, which is not here")
    folder = tmp_path_factory.mktemp("dream")
    for name in ("vocab.json", "merges.txt"):
        packed = SHARED / f"qwen2_{name}.gz"
        (folder / name).write_bytes(gzip.decompress(packed.read_bytes()))
    return folder


@pytest.fixture(scope="module")
def dream(qwen2):
    return load_tokenizer(qwen2, DREAM)


@pytest.fixture
def words(tmp_path):
    return load_tokenizer(write_words(tmp_path), model_config(len(WORDS)))


def test_dream_byte_pairs(dream):
    assert dream("Hello world")["input_ids"] == [9707, 1879]
    assert dream(" Hello world")["input_ids"] == [21927, 1879]
    text = "Zwölf 12 + 34\n\n  def f(x):\treturn x  # naïve 東京 🙂"
    assert dream.decode(dream(text)["input_ids"]) == text


def test_dream_special_tokens(dream):
    assert dream.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<|file_sep|>"]) == [151644, 151645, 151664]
    assert (dream.eos_token_id, dream.pad_token_id, dream.bos_token_id, dream.mask_token_id) == (
        *(151643, 151643),
        *(151665, 151666),
    )
    assert dream("a<|mask|>")["input_ids"] == [64, 151666]


def test_dream_chat(dream):
    prompt, mask = encode_prompts(dream, ["Hello world"], chat=True)
    assert dream.decode(prompt[0]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHello world<|im_end|>\n<|im_start|>assistant\n"
    )
    system = [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198]
    assert prompt[0].tolist() == [*system, 151644, 872, 198, 9707, 1879, 151645, 198, 151644, 77091, 198]
    assert mask.all()


def test_dream_tokens_listed_in_the_folder_win(qwen2, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).symlink_to(qwen2 / name)
    listed = {"151643": {"content": "<|end|>", "special": True}, "151644": {"content": "<|m|>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    config = ModelConfig.from_json(DREAM.to_json() | {"mask_id": 151644, "bos_id": None, "eot_id": None})
    assert load_tokenizer(tmp_path, config).mask_token == "<|m|>"
    listed["151646"] = {"content": "<|gap|>", "special": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    with pytest.raises(ValueError, match=r"'<\|gap\|>' should have id 151646, but the vocabulary makes it 151645"):
        load_tokenizer(tmp_path, config)


def test_llada_chat(tmp_path):
    vocabulary = (*WORDS, *CHAT)
    config = model_config(len(vocabulary), bos_id=len(WORDS), eot_id=len(WORDS) + 3)
    tokenizer = load_tokenizer(write_words(tmp_path, vocabulary), config)
    turns = [{"role": "user", "content": "  how many apples? \n"}]
    assert tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False) == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nhow many apples?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    prompt, _ = encode_prompts(tokenizer, ["how many apples?"], chat=True)
    bos, start, end, eot = range(len(WORDS), len(vocabulary))
    assert prompt.tolist() == [[bos, start, 7, end, 9, 9, 3, 4, 5, 6, eot, start, 8, end, 9, 9]]


def test_llada_chat_of_several_turns_begins_once(tmp_path):
    tokenizer = load_tokenizer(
        write_words(tmp_path, (*WORDS, *CHAT)), model_config(len(WORDS) + len(CHAT), bos_id=len(WORDS))
    )
    turns = [{"role": role, "content": "how"} for role in ("user", "assistant", "user")]
    assert tokenizer.apply_chat_template(turns, tokenize=False).count("<|startoftext|>") == 1


ODD_TEMPLATE = """{%- set ns = namespace(n=0) %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
{% generation %}{{ message.content }}{% endgeneration %}
    {%- else %}
{{ loop.index }} {{ message | tojson }}{{ eos_token }}
        {%- set ns.n = ns.n + 1 %}
    {%- endif %}
    {%- if ns.n == 3 %}{% break %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}[{{ ns.n }}]{% endif %}{{ tools is none }}
"""


@pytest.mark.slow
@pytest.mark.parametrize("template", [*CHAT_TEMPLATES.values(), ODD_TEMPLATE])
@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_templates_are_rendered_as_transformers_does(dream, template, add_generation_prompt):
    tokenizer = Tokenizer(dream.backend_tokenizer, dream.special_tokens_map, template)
    messages = [{"role": role, "content": f" <{role}> 'é' "} for role in ("system", "user", "assistant", "user")]
    asked = {"add_generation_prompt": add_generation_prompt, "tokenize": False}
    assert tokenizer.apply_chat_template(messages, **asked) == tokenizer.hf.apply_chat_template(messages, **asked)


def test_a_template_that_refuses_says_why_and_reaches_nothing(dream):
    for template, message in (
        ("{{ raise_exception('roles must alternate') }}", "refuses the conversation: roles must alternate"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{% for %}", "refuses the conversation"),
    ):
        tokenizer = Tokenizer(dream.backend_tokenizer, dream.special_tokens_map, template)
        with pytest.raises(ValueError, match=message):
            encode_prompts(tokenizer, ["x"], chat=True)


def test_ids_and_text_are_those_of_transformers(dream, words):
    for tokenizer, text in ((dream, "naïve 東京 🙂 <|im_end|><tool_call> x"), (words, "<|mdm_mask|> how many plums?")):
        hf = tokenizer.hf
        ids = tokenizer(text)["input_ids"]
        assert ids == hf(text)["input_ids"]
        for skip in (False, True):
            decoded = tokenizer.decode(ids, skip_special_tokens=skip)
            assert decoded == hf.decode(ids, skip_special_tokens=skip)
        assert tokenizer.convert_ids_to_tokens(ids) == hf.convert_ids_to_tokens(ids)
        assert (tokenizer.eos_token_id, tokenizer.mask_token) == (hf.eos_token_id, hf.mask_token)
        assert tokenizer.special_tokens_map == {k: v for k, v in hf.special_tokens_map.items() if isinstance(v, str)}


def test_a_folder_may_bring_its_own_template(tmp_path):
    config = model_config(len(WORDS))
    folder = write_words(tmp_path, chat_template="settings")
    assert load_tokenizer(folder, config).chat_template == "settings"
    (folder / "chat_template.jinja").write_text("file")
    assert load_tokenizer(folder, config).chat_template == "file"


def test_chat_without_a_template_is_refused(words):
    assert words.chat_template is None  # the vocabulary lacks the tokens of the family's format
    with pytest.raises(ValueError, match="no chat template"):
        encode_prompts(words, ["how"], chat=True)


def test_every_family_has_a_template():
    """But iLLaDA, whose tokenizer brings its own."""
    assert set(CHAT_TEMPLATES) == {preset.config.family for preset in CHECKPOINTS.values()} - {"illada"}


def test_prompts_are_padded_on_the_left(words):
    prompt, mask = encode_prompts(words, ["how many apples?", "how"], chat=False)
    np.testing.assert_array_equal(prompt, np.array([[3, 4, 5, 6], [0, 0, 0, 3]], np.int32), strict=True)
    np.testing.assert_array_equal(mask, np.array([[True] * 4, [False] * 3 + [True]]), strict=True)


def test_empty_prompts_are_refused(words):
    with pytest.raises(ValueError, match="prompt 1, 2 is empty"):
        encode_prompts(words, ["how", "", "  "], chat=False)
    with pytest.raises(ValueError, match="no prompts"):
        encode_prompts(words, [], chat=False)


def test_text_is_cut_at_the_first_end(tmp_path):
    vocabulary = (*WORDS, *CHAT)
    config = model_config(len(vocabulary), eot_id=len(vocabulary) - 1)
    tokenizer = load_tokenizer(write_words(tmp_path, vocabulary), config)
    eos, mask, eot = 0, 1, config.eot_id
    rows = np.array([[3, 4, eos, 5], [3, eot, 4, eos], [3, 4, 5, mask], [eos, 3, 4, 5]])
    assert decode_text(tokenizer, rows, config) == ["how many", "how", "how many apples", ""]


def test_unknown_words(words):
    assert unknown_words(words, "how many pears, plums and pears?") == ["pears", ",", "plums", "and"]
    assert unknown_words(words, "how many apples?") == []


def test_bytes_know_every_word(dream):
    assert unknown_words(dream, "qzxj 東京") == []


def test_a_folder_without_a_tokenizer(tmp_path):
    assert not has_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"has no tokenizer: tokenizer\.json was wanted"):
        load_tokenizer(tmp_path, model_config(10))
    with pytest.raises(ValueError, match=r"tokenizer\.json, or vocab\.json and merges\.txt was wanted"):
        load_tokenizer(tmp_path, DREAM)


@pytest.mark.parametrize("use", [lambda t: encode_prompts(t, ["how"], chat=False), lambda t: unknown_words(t, "how")])
def test_text_without_a_tokenizer_is_refused(use):
    with pytest.raises(ValueError, match="the model's folder has no tokenizer"):
        use(None)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    write_words(tmp_path)
    with pytest.raises(ValueError, match="has 10 tokens and none for eos_id 126081, pad_id 126081, mask_id 126336"):
        load_tokenizer(tmp_path, CHECKPOINTS["llada-8b-base"].config)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_is_named(tmp_path, name):
    write_words(tmp_path)
    (tmp_path / name).write_text("{")
    with pytest.raises(ValueError, match=name):
        load_tokenizer(tmp_path, model_config(10))


def test_import_is_cheap_and_loading_is_silent(tmp_path):
    write_words(tmp_path)
    script = f"""
import sys
import lrd_jax.text
assert not {{"jax", "transformers", "tokenizers", "torch"}} & set(sys.modules)
from lrd_jax.models import ModelConfig
config = ModelConfig.from_json({model_config(10).to_json()!r})
tokenizer = lrd_jax.text.load_tokenizer({str(tmp_path)!r}, config)
lrd_jax.text.encode_prompts(tokenizer, ["how"], chat=False)
assert not {{"transformers", "torch"}} & set(sys.modules)
tokenizer.hf
assert "torch" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_prompts_are_padded_on_the_left_to_powers_of_two_within_the_context():
    prompt, mask = pad_to_bucket(np.arange(1, 21)[None], np.ones((1, 20), bool), room=128)
    assert prompt.shape == mask.shape == (1, 32)
    assert prompt[0, 12:].tolist() == list(range(1, 21))
    assert mask[0].tolist() == [False] * 12 + [True] * 20
    assert pad_to_bucket(prompt, mask, room=128)[0].shape == (1, 32)
    assert pad_to_bucket(prompt[:, :5], mask[:, :5], room=128)[0].shape == (1, 16)
    assert pad_to_bucket(prompt, mask, room=20)[0].shape == (1, 32)  # too long already: the decoder says so
    assert pad_to_bucket(prompt[:, 12:], mask[:, 12:], room=25)[0].shape == (1, 25)
