"""Wrong files, a line each: JSON lines, presets, recipes, and what stands beside a model's weights."""

import json
import os
import shutil

import pytest
from small_run import recipe

from lrd_jax import cli
from lrd_jax.models import CHECKPOINTS
from lrd_jax.text import load_tokenizer

pytestmark = pytest.mark.slow

DEEP = "[" * 100_000

# A line of JSON, words of the message for it where its words are to be known, and those of `generate --input`.
NOT_PROMPTS = {
    "no JSON": ("{prompt: Tom}", "not JSON", "not JSON"),
    "cut short": ('{"prompt": "To', "not JSON", "not JSON"),
    "a list": ("[1]", "an object was wanted", "not a JSON object"),
    "a number": ("1", "an object was wanted", "not a JSON object"),
    "nothing": ("null", "an object was wanted", "not a JSON object"),
    "no prompt": ("{}", "prompt is missing or empty", "not a JSON object with"),
    "another key": ('{"question": "Tom"}', "prompt is missing or empty", "not a JSON object with"),
    "prompt a number": ('{"prompt": 1}', "prompt must be text", '"prompt" must be a text, got 1'),
    "prompt a list": ('{"prompt": ["Tom"]}', "prompt must be text", '"prompt" must be a text'),
    "prompt NaN": ('{"prompt": NaN}', "prompt must be text", '"prompt" must be a text, got nan'),
    "prompt empty": ('{"prompt": ""}', "prompt is missing or empty", "is empty"),
    "prompt blank": ('{"prompt": " \\n"}', "prompt is missing or empty", "is empty"),
    "unknown words": ('{"prompt": "Zebras"}', "the model does not know 'Zebras'", "does not know 'Zebras'"),
    "half a pair": ('{"prompt": "\\ud800"}', "is half a pair", "is half a pair"),
    "a null byte": ('{"prompt": "\\u0000"}', "does not know", "does not know"),
    "too long": (json.dumps({"prompt": "Tom has 14 apples. " * 40}), "context of 128", "context of 128"),
    "nested": (f'{{"prompt": {DEEP}', "not JSON", "not JSON"),
    "a number of 5000 digits": (f'{{"prompt": {"9" * 5000}}}', "not JSON", "not JSON"),
    "not UTF-8": (b'{"prompt": "\xff"}', "not UTF-8 at byte 12", "not UTF-8 at byte 12"),
    "UTF-16": ('{"prompt": "Tom"}'.encode("utf-16"), "not UTF-8 at byte 0", "not UTF-8 at byte 0"),
    "two in a line": ('{"prompt": "Tom"} {"prompt": "Tom"}', "not JSON", "not JSON"),
    "a word beyond U+2028": ('{"prompt": "Tom\u2028Zebras"}', "does not know", "does not know"),
    "a word beyond U+0085": ('{"prompt": "Tom\x85Zebras"}', "does not know", "does not know"),
}


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("case", NOT_PROMPTS)
@pytest.mark.parametrize("command", ["calibrate", "analyze --output out"])
def test_a_line_that_is_no_prompt_is_named_before_anything_runs(refuses, desk, command, case):
    content, words, _ = NOT_PROMPTS[case]
    put(desk / "q.jsonl", content)
    refuses(f"{command} --data q.jsonl --model {{word}} --gen-length 16", words)


@pytest.mark.parametrize("case", NOT_PROMPTS)
def test_a_batch_run_of_a_bad_line_alone_says_why(desk, models, capsys, case):
    """A file without a single prompt is refused; a prompt that cannot be answered is a record."""
    content, _, words = NOT_PROMPTS[case]
    put(desk / "q.jsonl", content)
    status = cli.main(["run", "q.jsonl", "out", "--model", models["word"], "--gen-length", "16"])
    err = capsys.readouterr().err
    if status == cli.USER_ERROR:
        assert "q.jsonl holds no prompt: line 1: " in err and words in err and not (desk / "out").exists()
    else:
        assert status == cli.INCOMPLETE and "1 answers, 1 of them errors" in err
        (answer,) = map(json.loads, (desk / "out" / "answers.jsonl").read_text().splitlines())
        assert words in answer["error"] and answer["line"] == 1


@pytest.mark.parametrize("case", [case for case in NOT_PROMPTS if case != "UTF-16"])  # refused as a whole
def test_a_file_of_bad_lines_alone_is_answered_with_their_errors(desk, models, capsys, case):
    content, _, words = NOT_PROMPTS[case]
    put(desk / "q.jsonl", content)
    args = ["--input", "q.jsonl", "--model", models["word"], "--gen-length", "16", "--output", "out.txt"]
    assert cli.main(["generate", *args]) == cli.INCOMPLETE
    out, err = capsys.readouterr()
    assert out == "" and words in err and "q.jsonl line 1" in err and err.count("error: ") == 1
    assert (desk / "out.txt").read_text() == "\n"


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"messages": []}, "must be a text, or a list of messages"),
        ({"messages": 5}, "must be a text, or a list of messages"),
        ({"messages": "Tom"}, '"messages" must be a list of them'),
        ({"messages": {"role": "user"}}, "must be a text, or a list of messages"),
        ({"messages": ["Tom"]}, "must have a role and a content"),
        ({"messages": [{"role": "user"}]}, "must have a role and a content"),
        ({"messages": [{"role": "robot", "content": "Tom"}]}, "role 'robot' in"),
        ({"messages": [{"role": ["user"], "content": "Tom"}]}, "is unknown; it may be system"),
        ({"messages": [{"role": "user", "content": 5}]}, "must be a text, got 5"),
        ({"messages": [{"role": "user", "content": None}]}, "must be a text, got None"),
        ({"messages": [{"role": "user", "content": ""}]}, "is empty"),
        ({"messages": [{"role": "assistant", "content": "Tom"}]}, "the user's must come last"),
        ({"messages": [{"role": "user", "content": "Tom"}]}, "has no chat template"),
        ({"prompt": "Tom", "messages": []}, "not a JSON object with"),
        ({"prompt": "Tom", "canvas": 5}, '"canvas" must be a text with holes'),
        ({"prompt": "Tom", "canvas": "{99}"}, "canvas"),
        ({"prompt": "Tom", "length": float("nan")}, 'reads no "length" of one: leave it out, or answer the file with'),
        ({"prompt": "Tom", "seed": -1}, 'reads no "seed" of one'),
        ({"prompt": "Tom", "id": 1, "stop": [""], "numbers": {}}, 'reads no "stop" or "numbers" of one'),
    ],
)
@pytest.mark.parametrize("system", [[], ["--system", "Tom"]])
def test_a_line_that_is_no_conversation_gets_its_error(desk, models, capsys, record, words, system):
    put(desk / "q.jsonl", json.dumps(record))
    args = ["generate", "--input", "q.jsonl", "--model", models["word"], "--gen-length", "16", *system]
    assert cli.main(args) == cli.INCOMPLETE
    err = capsys.readouterr().err
    assert err.count("error: ") == 1
    assert system or words in err


@pytest.mark.parametrize(
    ("line", "file", "content", "words"),
    [
        ("analyze --output out --model {word}", "out/stops.json", "{", "out/stops.json is none that was written here"),
        ("analyze --output out --model {word}", "out/stops.json", "[]", "out/stops.json is none that was written here"),
        ("analyze --output out --model {word}", "out/stops.json", b"\xff", "is none that was written here"),
        ("analyze --output out --model {word}", "out/stops.json", DEEP, "is none that was written here"),
        (
            "analyze --output out --model {word}",
            "out/stops.json",
            '{"settings": {}, "data": {}}',
            "measured with another",
        ),
        ("reproduce --redraw --output out", "out/cells.jsonl", "{}\n", "out/cells.jsonl, line 1 is no record"),
        ("reproduce --redraw --output out", "out/cells.jsonl", "[1]\n", "line 1 is no record"),
        ("reproduce --redraw --output out", "out/cells.jsonl", b"\xff\n", "line 1 is no record"),
        ("reproduce --redraw --cells out/c", "out/c", '{"model": 1}\n', "out/c, line 1 is no record"),
        ("reproduce --redraw --cells out/c", "out/c", f"{DEEP}\n", "line 1 is no record"),
    ],
)
def test_what_an_earlier_run_cannot_have_left_is_named(refuses, desk, line, file, content, words):
    (desk / "out").mkdir()
    put(desk / file, content)
    refuses(line, words)


NOT_PRESETS = {
    "empty": ("", "lrd_jax_preset is missing"),
    "no TOML": ("x = [", "Invalid value"),
    "nested": (f"x = {DEEP}", ""),
    "not UTF-8": (b"\xff", "utf-8"),
    "no version": ("base = 'lrd'\n[decoder]\n", "lrd_jax_preset is missing"),
    "a later version": ("lrd_jax_preset = 3\n[decoder]\n", "lrd_jax_preset=3 is a version that is not known here"),
    "version a flag": ("lrd_jax_preset = true\n[decoder]\n", "lrd_jax_preset=True is a version"),
    "version a text": ("lrd_jax_preset = '2'\n[decoder]\n", "lrd_jax_preset='2' is a version"),
    "no decoder": ("lrd_jax_preset = 2\nbase = 'lrd'\n", "decoder is missing"),
    "decoder a list": ("lrd_jax_preset = 2\ndecoder = []\n", "decoder must be a table, got []"),
    "base a number": ("lrd_jax_preset = 2\nbase = 1\n[decoder]\n", "base must be a name, got 1"),
    "base unknown": ("lrd_jax_preset = 2\nbase = 'best'\n[decoder]\n", "preset 'best' is unknown"),
    "base a file": ("lrd_jax_preset = 2\nbase = 'p.toml'\n[decoder]\n", "is a file; a named preset was wanted"),
    "another table": ("lrd_jax_preset = 2\n[decoder]\n[notes]\n", "notes is unknown; known:"),
    "another field": ("lrd_jax_preset = 2\nbase = 'lrd'\n[decoder]\nspeed = 9\n", "speed is unknown; known:"),
    "another part's field": ("lrd_jax_preset = 2\nbase = 'lrd'\n[decoder.mix]\ntau = 1\n", "mix.tau is unknown"),
    "r_f NaN": ("lrd_jax_preset = 2\nbase = 'lrd'\n[decoder.mix]\nr_f = nan\n", "mix.r_f=nan must be in"),
    "r_f a text": ("lrd_jax_preset = 2\nbase = 'lrd'\n[decoder.mix]\nr_f = '0.2'\n", "mix.r_f='0.2' must be a number"),
    "r_f a flag": ("lrd_jax_preset = 2\nbase = 'lrd'\n[decoder.mix]\nr_f = true\n", "mix.r_f=True must be a number"),
    "r_f a date": ("lrd_jax_preset = 2\nbase = 'lrd'\n[decoder.mix]\nr_f = 2020-01-01\n", "must be a number"),
    "r_f of rows": ("lrd_jax_preset = 2\nbase = 'lrd'\n[decoder.mix]\nr_f = [0.1, 0.2]\n", "r_f has shape [2]"),
    "block 0": ("lrd_jax_preset = 2\nbase = 'lrd'\n[decoder]\nblock_length = 0\n", "block_length=0 must be an integer"),
    "block 5": ("lrd_jax_preset = 2\nbase = 'lrd'\n[decoder]\nblock_length = 5\n", "must be a multiple of"),
    "kind": ("lrd_jax_preset = 2\n[decoder.commit]\nkind = 'magic'\n", "commit='magic' is unknown"),
    "kind a list": ("lrd_jax_preset = 2\n[decoder.commit]\nkind = ['threshold']\n", "is unknown; choose one of"),
    "version 1 without its settings": ("lrd_jax_preset = 1\nbase = 'lrd'\n[decoder]\n", "decoder.r_f is missing"),
}


@pytest.mark.parametrize("case", NOT_PRESETS)
def test_a_preset_file_that_is_none_is_named(refuses, desk, case):
    content, words = NOT_PRESETS[case]
    put(desk / "p.toml", content)
    refuses("generate Q --model {word} --gen-length 16 --preset p.toml", words)


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_a_preset_file_says_nothing_twice(refuses, desk, suffix):
    twice = {
        "json": '{"lrd_jax_preset": 2, "base": "lrd", "decoder": {"mix": {"r_f": 0.1}}, "decoder": {}}',
        "toml": "lrd_jax_preset = 2\nbase = 'lrd'\n[decoder]\n[decoder]\n",
    }
    words = {"json": "the key 'decoder' comes twice", "toml": "Cannot declare ('decoder',) twice"}
    put(desk / f"p.{suffix}", twice[suffix])
    refuses(f"generate Q --model {{word}} --preset p.{suffix}", f"preset file p.{suffix}: {words[suffix]}")


RECIPE = recipe("out", steps=4)
MODEL = RECIPE[RECIPE.index("[model]") : RECIPE.index("[data]")]
NOT_RECIPES = {  # what is replaced in the recipe, by what, and the message
    "nothing": (RECIPE, "", "output is missing; steps is missing"),
    "no TOML": (RECIPE, "x = [", "Invalid value"),
    "nested": (RECIPE, f"x = {DEEP}", "nested too deeply"),
    "not UTF-8": (RECIPE, "\udcff", "not UTF-8"),
    "unknown": ("steps = 4", "steps = 4\nsped = 1", "sped is unknown; known:"),
    "unknown below": ("mlp_dim", "mlpdim", "model.mlpdim is unknown"),
    "output empty": ('"out"', '""', "output='' is no name of a file"),
    "output a number": ('"out"', "3", "output must be of type str, got 3"),
    "output a null byte": ('"out"', '"a\\u0000b"', "is no name of a file"),
    "output a file": ('"out"', '"file"', "file"),
    "output in a file": ('"out"', '"file/run"', "file"),
    "output of others": ('"out"', '"other"', "other holds files, and none of a run; name a new or an empty folder"),
    "steps 0": ("steps = 4", "steps = 0", "steps=0 must be positive"),
    "steps 4.5": ("steps = 4", "steps = 4.5", "steps must be of type int, got 4.5"),
    "steps huge": ("steps = 4", "steps = 10000000000", "steps=10000000000 must be at most"),
    "seed": ("steps = 4", "steps = 4\nseed = -1", "seed=-1 must be from 0"),
    "dtype": ("steps = 4", 'steps = 4\ndtype = "int8"', "dtype='int8' must be one of"),
    "min_mask_ratio": ("steps = 4", "steps = 4\nmin_mask_ratio = nan", "min_mask_ratio=nan must be above 0"),
    "init too": ("steps = 4", 'steps = 4\ninit = "lrd-tiny"', "set exactly one of init"),
    "no such init": (f"steps = 4\n{MODEL}", 'steps = 4\ninit = "no"\n', "there is no model 'no'"),
    "embed_dim": ("embed_dim = 8", "embed_dim = 6", "embed_dim=6 must be num_heads=2 times an even"),
    "embed_dim a text": ("embed_dim = 8", 'embed_dim = "8"', "model.embed_dim must be of type int, got '8'"),
    "num_layers": ("num_layers = 1", "num_layers = -1", "num_layers=-1 must be positive"),
    "impossible": ("mlp_dim = 16", "mlp_dim = 1000000000000000", ""),
    "tokenizer": ("max_length = 64", 'max_length = 64\ntokenizer = "folder"', "is no folder with a tokenizer.json"),
    "tasks": ('["words"]', '["bogus"]', "data.tasks: bogus unknown; known: words"),
    "tasks a text": ('["words"]', '"words"', "data.tasks must be a list, got 'words'"),
    "no tasks": ('["words"]', "[]", "set exactly one of jsonl and tasks"),
    "jsonl": ('tasks = ["words"]', 'jsonl = "no.jsonl"', "a new model on jsonl data needs a folder with tokenizer"),
    "chat": ('["words"]', '["words"]\nchat = true', "chat"),
    "bucket too long": ("prompt = 32", "prompt = 320", "exceeds the model's context of 64"),
    "bucket too short": ("prompt = 32", "prompt = 1", "make it longer"),
    "batch 0": ("batch = 2", "batch = 0", "batch=0 must be positive"),
    "share inf": ("batch = 2", "batch = 2\nshare = inf", "share=inf must be positive and finite"),
    "peak_lr inf": ("1e-3", "inf", "peak_lr=inf must be positive and finite"),
    "peak_lr 0": ("1e-3", "0", "peak_lr=0.0 must be positive"),
    "peak_lr a flag": ("1e-3", "true", "peak_lr must be of type float, got True"),
    "warmup": ("warmup_steps = 1", "warmup_steps = -1", "warmup_steps=-1 must be from 0"),
    "warmup too long": ("warmup_steps = 1", "warmup_steps = 9", "warmup_steps=9 must be from 0"),
    "weight decay": ("1e-3", "1e-3\nweight_decay = nan", "weight_decay=nan must be 0 or positive"),
    "b2": ("1e-3", "1e-3\nb2 = 1.0", "b2=1.0 must be in [0, 1)"),
    "r_f": ("[data]", "[soft_inputs]\nmin_r_f = 2.0\n[data]", "min_r_f=2.0 must be in [0, 1]"),
    "refinements": ("[data]", "[soft_inputs]\nrefinements = 99\n[data]", "refinements=99 must be from 1 to 16"),
    "mesh": ("[data]", "[mesh]\ntensor = 0\n[data]", "tensor=0 must be positive"),
    "mesh too large": ("[data]", "[mesh]\ntensor = 64\n[data]", "64"),
    "a list for a table": ("[model]", "[[model]]", "model must be a table"),
}


@pytest.mark.parametrize("case", NOT_RECIPES)
def test_a_recipe_that_cannot_be_meant_is_named_by_its_field(refuses, desk, case):
    old, new, words = NOT_RECIPES[case]
    assert old in RECIPE
    put(desk / "t.toml", RECIPE.replace(old, new).encode(errors="surrogateescape"))
    refuses("train t.toml", words)


# Beside the weights: a file, what it holds, and the message; of a model that is asked in a chat.
TEMPLATE = "chat_template.jinja"
BESIDE = {
    "tokenizer no JSON": ("tokenizer.json", "{", "tokenizer.json cannot be read"),
    "tokenizer a list": ("tokenizer.json", "[]", "tokenizer.json cannot be read"),
    "tokenizer nested": ("tokenizer.json", DEEP, "tokenizer.json cannot be read"),
    "tokenizer empty": ("tokenizer.json", "", "tokenizer.json cannot be read"),
    "tokenizer not UTF-8": ("tokenizer.json", b"\xff", "tokenizer.json cannot be read"),
    "settings no JSON": ("tokenizer_config.json", "{", "tokenizer_config.json is not JSON"),
    "settings a list": ("tokenizer_config.json", "[]", "tokenizer_config.json must hold an object, got []"),
    "settings a text": ("tokenizer_config.json", '"chat"', "tokenizer_config.json must hold an object, got 'chat'"),
    "settings nothing": ("tokenizer_config.json", "null", "tokenizer_config.json must hold an object, got None"),
    "settings nested": ("tokenizer_config.json", DEEP, "tokenizer_config.json is not JSON"),
    "settings not UTF-8": ("tokenizer_config.json", b"\xff", "tokenizer_config.json is not JSON"),
    "template not UTF-8": (TEMPLATE, b"\xff", "chat_template.jinja is not UTF-8 at byte 0"),
    "template does not parse": (TEMPLATE, "{% if %}", "chat template refuses the conversation"),
    "template open": (TEMPLATE, "{% for m in messages %}", "chat template refuses the conversation"),
    "template raises": (
        "chat_template.jinja",
        "{{ raise_exception('roles!') }}",
        "refuses the conversation: roles!",
    ),
    "template divides": (TEMPLATE, "{{ 1 // 0 }}", "ZeroDivisionError"),
    "template adds": (TEMPLATE, "{{ 'a' + 1 }}", "TypeError"),
    "template misses": (
        "chat_template.jinja",
        "{{ messages[9].content.x }}",
        "has no element 9",
    ),
    "template includes": (TEMPLATE, "{% include 'other' %}", "refuses the conversation"),
    "template breaks out": (
        "chat_template.jinja",
        "{{ ''.__class__.__mro__ }}",
        "is unsafe",
    ),
    "template counts": (TEMPLATE, "{% for i in range(999999999) %}{% endfor %}", "OverflowError"),
    "template nested": (TEMPLATE, "{{ " + "(" * 5000, "refuses the conversation"),
    "template writes nothing": (TEMPLATE, "{# #}", "the tokenizer makes no token of it"),
    "template half a pair": (TEMPLATE, "{{ '\\ud800' }}", "half a pair"),
    "config nested": ("config.json", DEEP, "config.json"),
    "config a list": ("config.json", "[]", "config.json"),
    "config with a mark": ("config.json", "\ufeff{}", "is not JSON: it begins with a byte-order mark; save it"),
}


@pytest.fixture
def talker(desk, models):
    return shutil.copytree(models["byte"], desk / "talker")


@pytest.mark.parametrize("case", BESIDE)
def test_what_stands_beside_the_weights_is_read_before_them(refuses, talker, case):
    name, content, words = BESIDE[case]
    put(talker / name, content)
    (weights,) = talker.glob("*.safetensors")
    refuses("generate hi --chat --model talker --gen-length 8", words)
    assert weights.exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"added_tokens_decoder": []}, "added_tokens_decoder must hold"),
        ({"added_tokens_decoder": {"x": {"content": "a", "special": True}}}, "added_tokens_decoder must hold"),
        ({"added_tokens_decoder": {"1": "a"}}, "added_tokens_decoder must hold"),
        ({"added_tokens_decoder": {"1": {"content": "a"}}}, "added_tokens_decoder must hold"),
        ({"added_tokens_decoder": {"1": {"content": 5, "special": True}}}, "added_tokens_decoder must hold"),
        ({"added_tokens_decoder": {"1": {"content": "a", "special": "yes"}}}, "added_tokens_decoder must hold"),
        ({"added_tokens_decoder": {"-1": {"content": "a", "special": True}}}, "added_tokens_decoder must hold"),
        ({"added_tokens_decoder": {"9": {"content": "a", "special": True}}}, "should have id 9"),
    ],
)
def test_dreams_own_settings_are_checked(tmp_path, settings, words):
    put(tmp_path / "vocab.json", '{"a": 0, "b": 1}')
    put(tmp_path / "merges.txt", "#version: 0.2\n")
    put(tmp_path / "tokenizer_config.json", json.dumps(settings))
    with pytest.raises(ValueError, match=words):
        load_tokenizer(tmp_path, CHECKPOINTS["dream-7b-base"].config)


@pytest.mark.parametrize(("name", "content"), [("vocab.json", "["), ("merges.txt", "a b c d")])
def test_dreams_own_files_are_checked(tmp_path, name, content):
    put(tmp_path / "vocab.json", '{"a": 0, "b": 1}')
    put(tmp_path / "merges.txt", "#version: 0.2\n")
    put(tmp_path / name, content)
    with pytest.raises(ValueError, match=r"vocab\.json and merges\.txt in .* cannot be read"):
        load_tokenizer(tmp_path, CHECKPOINTS["dream-7b-base"].config)


INDEX = "model.safetensors.index.json"
SPECIAL = {  # what is put in the place of a file
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a circle": lambda path: path.symlink_to(path.name),
    "a lost link": lambda path: path.symlink_to("nowhere"),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", "config.json is absent"),
        (INDEX, "neither model.safetensors nor"),
        ("model-00001-of-00001.safetensors", "which is absent"),
        ("tokenizer.json", "the model has no tokenizer"),
    ],
)
def test_what_is_no_file_is_not_read(refuses, talker, name, words, kind):
    (talker / name).unlink()
    SPECIAL[kind](talker / name)
    refuses("generate hi --model talker --gen-length 8", words)
    refuses("convert talker out", "tokenizer.json is no file" if name == "tokenizer.json" else words)


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("[]", "an object was wanted"),
        ("{}", "an object was wanted"),
        ('{"weight_map": []}', "an object was wanted"),
        ('{"weight_map": null}', "an object was wanted"),
        ('{"weight_map": {}}', "an object was wanted"),
        ('{"weight_map": {"a": 5}}', "an object was wanted"),
        ('{"weight_map": {"a": ""}}', "it names '', which is no file of this folder"),
        ('{"weight_map": {"a": "."}}', "it names '.', which is no file of this folder"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "it names '/etc/passwd', which is no file of this folder"),
        ('{"weight_map": {"a": "../x"}}', "it names '../x', which is no file of this folder"),
        ('{"weight_map": {"a": "x\\u0000"}}', "which is absent"),
        (f'{{"weight_map": {{"a": "{"x" * 5000}"}}}}', "File name too long"),
        (DEEP, "it is nested too deep"),
    ],
)
@pytest.mark.parametrize("command", ["generate hi --model talker --gen-length 8", "convert talker out"])
def test_an_index_that_is_none_is_named(refuses, talker, command, index, words):
    put(talker / INDEX, index)
    refuses(command, words)


@pytest.mark.parametrize("case", [case for case in BESIDE if case.startswith("tokenizer")])
def test_a_tokenizer_that_cannot_be_read_is_not_converted(refuses, talker, case):
    name, content, words = BESIDE[case]
    put(talker / name, content)
    refuses("convert talker out", words)
