"""The command line: what it prints where, what it refuses and how, and the live view of the canvas."""

import dataclasses
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from byte_model import write_byte_model
from rich.console import Console
from word_model import write_word_model

from lrd_jax import Threshold, checkpoint, cli, generate
from lrd_jax.checkpoint import load
from lrd_jax.cli import compile_cache, main, session
from lrd_jax.cli.commands import COMMANDS
from lrd_jax.cli.live import END, MASKED, SOFT, CanvasView
from lrd_jax.cli.options import Chat, Generate
from lrd_jax.cli.session import generator_for
from lrd_jax.decoding.config import DecodeConfig
from lrd_jax.decoding.loop import make_decode
from lrd_jax.generate import Generator
from lrd_jax.tasks import problems
from lrd_jax.text import unknown_words

pytestmark = pytest.mark.slow

COMMAND = str(Path(sys.executable).parent / "lrd-jax")
QUESTION = problems("words", "held-out", seed=0, count=1, grade=2)[0].prompt
SHORT = ("--gen-length", "16")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A Hugging Face folder of random weights with the embedded models' tokenizer."""
    return write_word_model(tmp_path_factory.mktemp("cli"))


@pytest.fixture(autouse=True)
def no_compile_cache(monkeypatch):
    """The cache is a setting of the whole process, so in here it would outlive its test."""
    monkeypatch.setattr(session, "use_compile_cache", lambda: None)


# Weights.


@pytest.mark.parametrize(("free", "dtype"), [(10**9, "float32"), (0, "bfloat16")])
def test_bfloat16_weights_become_float32_on_a_cpu_with_room_for_them(free, dtype, tmp_path, monkeypatch, capsys):
    stored = write_word_model(tmp_path, lambda leaf: leaf.astype(jnp.bfloat16))
    monkeypatch.setattr(checkpoint, "_free_bytes", lambda: free)
    got = generator_for(Generate(question=QUESTION, model=stored, gen_length=16)).loaded.params
    wanted = load(stored, dtype="bfloat16").params
    assert {leaf.dtype.name for leaf in jax.tree.leaves(got)} == {dtype}
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.astype(jnp.float32), b.astype(jnp.float32)), got, wanted)
    assert "note: " in capsys.readouterr().err


def test_a_dtype_that_is_asked_for_wins_and_float32_weights_stay_as_they_are(folder, capsys):
    said = []
    assert {leaf.dtype.name for leaf in jax.tree.leaves(load(folder, note=said.append).params)} == {"float32"}
    assert load(folder, dtype="bfloat16", note=said.append).params["table"].dtype == jnp.bfloat16
    assert load("lrd-tiny", note=said.append).params["table"].dtype == jnp.float32  # stored in bfloat16
    assert load("lrd-tiny", dtype="bfloat16", note=said.append).params["table"].dtype == jnp.bfloat16
    assert said == []


# What is printed.


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from lrd_jax.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'jax', 'numpy', 'flax', 'transformers', 'orbax', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_streams_may_be_unbuffered(unbuffered):
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    result = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stderr) == (0, "") and result.stdout.startswith("lrd-jax ")


def pipe(monkeypatch, text):
    """Gives standard input a text, or bytes."""
    data = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_piped_output_is_the_answer_alone_and_the_facts_go_to_standard_error(folder, capsys):
    assert main(["generate", QUESTION, "--model", folder, *SHORT]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert "\x1b" not in out + err
    for fact in ("forwards (", " refining) | finished |", "s compiling)", "tokens/s"):
        assert fact in err


def test_the_model_in_the_box_answers_the_readmes_question(capsys):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (question,) = re.findall(r'^python3 -m venv .*/lrd-jax generate "(.*)"$', readme, re.MULTILINE)
    assert main(["generate", question]) == 0
    assert capsys.readouterr().out.strip().endswith("# 18")


def test_json_is_one_object_that_tells_what_the_library_decodes(folder, capsys):
    assert main(["generate", QUESTION, "--model", folder, "--json", "--r-f", "0.3", *SHORT]) == 0
    out, err = capsys.readouterr()
    got = json.loads(out)
    loaded = load(folder)
    model, params, tokenizer = loaded.model, loaded.params, loaded.tokenizer
    config = DecodeConfig.lrd(16)
    config = config.replace(mix=type(config.mix)(r_f=0.3))
    wanted = make_decode(model, config)(params, np.array([tokenizer(QUESTION)["input_ids"]]))  # without padding
    assert got["tokens"] == wanted.tokens[0].tolist()  # random weights: no end token among them
    assert got["text"] == tokenizer.decode(wanted.tokens[0])
    assert (got["forwards"], got["refine_forwards"]) == (int(wanted.forwards[0]), int(wanted.refine_forwards[0]))
    assert got["stop_reason"] == "finished"
    assert got["tokens_per_second"] == pytest.approx(len(got["tokens"]) / got["seconds"])
    assert (got["model"], got["preset"], got["gen_length"]) == (folder, "lrd", 16)
    assert got["compile_seconds"] > 0
    assert err == ""


def test_chat_answers_line_by_line(folder, capsys, monkeypatch):
    pipe(monkeypatch, f"{QUESTION}\n\n{QUESTION} {QUESTION}\n")
    assert main(["chat", "--model", folder, *SHORT]) == 0
    assert capsys.readouterr().out.count("\n") == 2


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """A folder of random weights over bytes, with LLaDA's chat tokens."""
    return str(write_byte_model(tmp_path_factory.mktemp("bytes"), chat=True, max_length=256))


def test_chat_keeps_the_conversation_of_a_model_with_a_template(talker, capsys, monkeypatch):
    pipe(monkeypatch, "Hi\nAnd?\n/reset\nHi\n")
    assert main(["chat", "--model", talker, "--system", "Be short.", "--gen-length", "4"]) == 0
    asked = Generator(load(talker), DecodeConfig.lrd(4))
    messages, wanted = [{"role": "system", "content": "Be short."}], ""
    for question in ("Hi", "And?"):
        messages.append({"role": "user", "content": question})
        answer = asked.generate([messages])[0].text
        messages.append({"role": "assistant", "content": answer})
        wanted += answer + "\n"
    first = asked.generate([messages[:2]])[0].text
    assert capsys.readouterr().out == wanted + first + "\n"


def test_chat_without_a_conversation_answers_each_question_alone(talker, capsys, monkeypatch):
    pipe(monkeypatch, "Hi\nHi\n")
    assert main(["chat", "--model", talker, "--no-chat", "--gen-length", "4"]) == 0
    assert capsys.readouterr().out == 2 * (Generator(load(talker), DecodeConfig.lrd(4)).generate(["Hi"])[0].text + "\n")


def test_a_piped_chat_goes_on_after_a_bad_line(talker, capsys, monkeypatch):
    pipe(monkeypatch, b"x" * 300 + b"\n\xff\nHi\n")
    assert main(["chat", "--model", talker, "--no-chat", "--gen-length", "4"]) == cli.INCOMPLETE
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert "error: prompt 0 of 300 tokens" in err and "error: not UTF-8 at byte 0" in err


def test_the_mark_before_a_piped_chat_is_no_part_of_it(folder, capsys, monkeypatch):
    pipe(monkeypatch, f"\ufeff{QUESTION}\n\ufeff{QUESTION}\n")
    assert main(["chat", "--model", folder, *SHORT]) == cli.INCOMPLETE
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and err.count("the model does not know '\\ufeff") == 1


def test_a_piped_chat_in_utf_16_is_one_error(folder, capsys, monkeypatch):
    pipe(monkeypatch, f"{QUESTION}\n{QUESTION}\n".encode("utf-16"))
    said = refused(capsys, "chat", "--model", folder, *SHORT)
    assert said.count("error: ") == 1 and "begins with the byte-order mark of UTF-16 or UTF-32" in said


@pytest.mark.parametrize("args", [[], ["-"]])
def test_a_question_comes_by_a_pipe(folder, capsys, monkeypatch, args):
    pipe(monkeypatch, f"{QUESTION}\n")
    assert main(["generate", *args, "--model", folder, *SHORT]) == 0
    piped = capsys.readouterr().out
    assert main(["generate", QUESTION, "--model", folder, *SHORT]) == 0
    assert capsys.readouterr().out == piped


def test_without_a_question_or_a_pipe_nothing_is_waited_for(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert "no question was given" in refused(capsys, "generate")


def test_a_question_beside_a_file_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["generate", "x", "--input", "prompts.txt"])
    assert "a question and --input were both given" in " ".join(capsys.readouterr().err.split())


def test_a_file_of_prompts_has_an_answer_a_line_and_a_bad_line_its_error(talker, tmp_path, capsys):
    lines = [
        json.dumps({"prompt": "Hi\u2028there", "answer": "so", "task": "words", "seed": None}),
        "{",
        json.dumps({"messages": [{"role": "user", "content": "Hi"}]}),
        json.dumps({"messages": [{"role": "robot", "content": "Hi"}]}),
        json.dumps({"text": "Hi"}),
        json.dumps({"prompt": "y" * 300}),
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    output = tmp_path / "out.jsonl"
    args = ["--input", str(tmp_path / "in.jsonl"), "--output", str(output), "--json", "--batch", "2"]
    assert main(["generate", *args, "--model", talker, "--gen-length", "8"]) == cli.INCOMPLETE
    got = [json.loads(line) for line in output.read_bytes().split(b"\n")[:-1]]
    asked = Generator(load(talker), DecodeConfig.lrd(8))
    first, third = asked.generate(["Hi\u2028there", [{"role": "user", "content": "Hi"}]])
    assert [record["line"] for record in got] == [1, 2, 3, 4, 5, 6]
    assert (got[0]["text"], got[2]["text"]) == (first.text, third.text)
    for line, word in ((1, "not JSON"), (3, "'robot'"), (4, '"prompt"'), (5, "context of 256")):
        assert word in got[line]["error"]
    out, err = capsys.readouterr()
    assert out == "" and err.count("error: ") == 4 and "line 2: not JSON" in err and "2 answers, 4 errors" in err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_text_file_is_split_at_line_feeds_alone_and_so_are_its_answers(talker, tmp_path, capsys):
    prompts = ["One\u2028line", "Zwölf\x0b", "a\rb"]
    (tmp_path / "in.txt").write_bytes(("\n".join(prompts) + "\r\n").encode())
    assert main(["generate", "--input", str(tmp_path / "in.txt"), "--model", talker, "--gen-length", "8"]) == 0
    answers = Generator(load(talker), DecodeConfig.lrd(8)).generate(prompts)
    assert capsys.readouterr().out == "".join(a.text.replace("\n", "\\n") + "\n" for a in answers)


def test_a_file_of_prompts_may_be_a_pipe(talker, capsys):
    reader, writer = os.pipe()
    with open(writer, "w") as file:
        file.write("Hi\nHo\n")
    with open(reader):
        assert main(["generate", "--input", f"/dev/fd/{reader}", "--model", talker, "--gen-length", "8"]) == 0
    assert capsys.readouterr().out.count("\n") == 2


def test_an_output_whose_run_fails_is_not_there(talker, tmp_path, capsys):
    output = str(tmp_path / "out.txt")
    assert "is empty" in refused(capsys, "generate", " ", "--model", talker, "--output", output)
    assert "exceed" in refused(capsys, "generate", "x" * 300, "--model", talker, "--output", output)
    missing = str(tmp_path / "no" / "out.txt")
    assert "there is no folder" in refused(capsys, "generate", "x", "--model", talker, "--output", missing)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_link_is_written_where_it_leads(talker, tmp_path):
    (tmp_path / "there.txt").write_text("old\n")
    (tmp_path / "link").symlink_to("there.txt")
    args = ["generate", "x", "--model", talker, "--gen-length", "8", "--output", str(tmp_path / "link")]
    assert main(args) == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there.txt").read_text() != "old\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_standard_output_by_its_name_is_not_replaced(talker, tmp_path):
    """A link to it is not followed to the file behind, which may hold more."""
    log = tmp_path / "log"
    log.write_text("before\n")
    args = [COMMAND, "generate", "x", "--model", talker, "--gen-length", "8", "--output", "/dev/stdout"]
    with log.open("a") as file:
        assert subprocess.run(args, stdout=file, stderr=subprocess.DEVNULL).returncode == 0
    assert log.read_text().startswith("before\n") and log.read_text() != "before\n"
    assert Path("/dev/stdout").is_symlink()


def test_two_writers_of_a_file_leave_one_of_theirs_whole(tmp_path):
    code = "import sys; from pathlib import Path; from lrd_jax.durable import write_whole\n"
    code += "for _ in range(300): write_whole(Path('file'), sys.argv[1] * 10000)"
    both = [subprocess.Popen([sys.executable, "-c", code, name], cwd=tmp_path) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "file").read_text() in ("a" * 10000, "b" * 10000)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_home_that_nobody_knows_costs_the_cache_alone(monkeypatch):
    def unknown(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    before = jax.config.jax_compilation_cache_dir
    compile_cache.use_compile_cache()
    assert jax.config.jax_compilation_cache_dir == before


def test_stop_strings_and_a_system_prompt(talker, capsys):
    asked = Generator(load(talker), DecodeConfig.lrd(8))
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]
    whole = asked.generate([messages])[0].text
    stop = whole[2:4]
    args = ["--system", "Be short.", "--stop-text", "never in it", "--stop-text", stop]
    assert main(["generate", "Hi", "--model", talker, "--gen-length", "8", "--json", *args]) == 0
    got = json.loads(capsys.readouterr().out)
    assert (got["text"], got["stop"], got["finish"]) == (whole[: whole.find(stop)], stop, "stop")


def test_a_decoder_that_draws_gets_a_seed_which_the_facts_tell(talker, capsys):
    args = ["generate", "Hi", "--model", talker, "--gen-length", "8", "--preset", "plain"]
    assert main([*args, "--temperature", "2"]) == 0
    text, err = capsys.readouterr()
    (seed,) = re.findall(r"\| seed (\d+)\n", err)
    assert main([*args, "--temperature", "2", "--seed", seed, "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert (got["text"] + "\n", got["seed"]) == (text, int(seed))
    assert main(args) == 0
    assert "seed" not in capsys.readouterr().err
    assert session.seed_for(Generate(question="x"), DecodeConfig.dream(8, alg="origin")) is not None
    assert session.seed_for(Generate(question="x"), DecodeConfig.dream(8)) is None


def test_a_row_that_stops_on_bad_logits_is_told_by_the_exit_status(tmp_path, capsys):
    broken = write_word_model(tmp_path, lambda leaf: leaf * jnp.nan)
    ask = ["generate", "--model", broken, *SHORT]
    assert main([*ask, QUESTION]) == cli.INCOMPLETE
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: the model's logits were not finite: ") and err.count("\n") == 1
    assert main([*ask, QUESTION, "--json"]) == cli.INCOMPLETE
    out, err = capsys.readouterr()
    assert json.loads(out)["stop_reason"] == "non-finite" and "not finite" in err
    (tmp_path / "in.txt").write_text(f"{QUESTION}\n{QUESTION}\n")
    assert main([*ask, "--input", str(tmp_path / "in.txt")]) == cli.INCOMPLETE
    assert "error: the model's logits of 2 of 2 answers were not finite" in capsys.readouterr().err


def test_convert_and_export_are_a_round_trip(folder, tmp_path, capsys):
    assert main(["convert", folder, str(tmp_path / "orbax"), "--verify"]) == 0
    assert main(["export", str(tmp_path / "orbax"), str(tmp_path / "hf")]) == 0
    written = {file.name: file.read_bytes() for file in (tmp_path / "hf").iterdir()}
    assert written == {file.name: file.read_bytes() for file in Path(folder).iterdir()}
    out, err = capsys.readouterr()
    assert out.split() == [str(tmp_path / "orbax"), str(tmp_path / "hf")]
    assert "converting" in err


# What is refused.


def refused(capsys, *args):
    """The message of a command that must end with status 2."""
    assert main(args) == cli.USER_ERROR
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["", "--model", "FOLDER"], "the question is empty"),
        (["  \n", "--model", "FOLDER"], "the question is empty"),
        ([QUESTION, "--model", "lrd-huge"], "there is no model 'lrd-huge'"),
        ([QUESTION, "--model", "./no/folder"], "there is no model './no/folder'"),
        ([QUESTION, "--preset", "best"], "preset 'best' is unknown; choose one of lrd, paper"),
        ([QUESTION, "--r-f", "2"], "mix.r_f=2.0 must be in [0, 1]"),
        ([QUESTION, "--top-p", "-0.1"], "draw.top_p=-0.1 must be in (0, 1] or None"),
        ([QUESTION, "--mix.top-p", "-0.1"], "mix.top_p=-0.1 must be in [0, 1]"),
        ([QUESTION, "--tau", "-1"], "tau=-1.0 must be in [0, inf)"),
        ([QUESTION, "--preset", "fast", "--threshold", "-1"], "commit.threshold=-1.0 must be in"),
        ([QUESTION, "--preset", "plain", "--r-f", "0.2"], "r_f changes the mixing, which this decoder does not have"),
        ([QUESTION, "--block-length", "24"], "gen_length=64 must be a multiple of block_length=24"),
        ([QUESTION, "--temperature", "nan"], "temperature=nan must be in [0, 1e+06]"),
        ([QUESTION, "--gen-length", "0"], "gen_length=0 must be an integer of at least 1"),
        ([QUESTION, "--gen-length", "120", "--model", "FOLDER"], "exceed the model's context of 128"),
        ([QUESTION, "--gen-length", "4096", "--model", "FOLDER"], "context of 128"),
        ([QUESTION, "--chat", "--model", "FOLDER"], "no chat template"),
    ],
)
def test_generate_refuses(folder, capsys, args, message):
    assert message in refused(capsys, "generate", *(folder if a == "FOLDER" else a for a in args))


def test_unknown_words_are_named_beside_two_questions_that_the_model_knows(folder, capsys):
    err = refused(capsys, "generate", f"{QUESTION} Zebras? 99 unicorns!", "--model", folder)
    assert "does not know 'Zebras', '99', 'unicorns', '!'" in err
    examples = [line.strip().strip('"') for line in err.splitlines()[1:]]
    assert len(examples) == 2
    assert [unknown_words(load(folder).tokenizer, example) for example in examples] == [[], []]


def test_broken_weights_are_named(folder, tmp_path, capsys):
    for file in Path(folder).iterdir():
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    assert ".safetensors" in refused(capsys, "generate", QUESTION, "--model", str(tmp_path))


def test_a_folder_without_a_tokenizer_is_refused(folder, tmp_path, capsys):
    for file in Path(folder).iterdir():
        if "tokenizer" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert "has no tokenizer" in refused(capsys, "generate", QUESTION, "--model", str(tmp_path))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["convert", "./missing", "DEST"], "there is no folder ./missing"),
        (["convert", "FOLDER", "DEST", "--dtype", "int3"], "dtype 'int3' is not one for weights"),
        (["convert", "FOLDER", "FOLDER"], "already exists"),
        (["export", "FOLDER", "DEST"], "is not an Orbax checkpoint"),
        (["export", "./missing", "DEST"], "missing is not an Orbax checkpoint"),
        (["train", "./missing.toml"], "missing.toml"),
    ],
)
def test_file_commands_refuse_and_leave_nothing(folder, tmp_path, capsys, args, message):
    names = {"FOLDER": folder, "DEST": str(tmp_path / "dest")}
    assert message in refused(capsys, *(names.get(a, a) for a in args))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args",
    [[], ["answer", "x"], ["generate", "x", "--gen-length", "many"], ["generate", "x", "--seed", "-1"]],
)
def test_what_the_parser_refuses_ends_with_the_same_status(capsys, args):
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == cli.USER_ERROR
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("args", [[], ["--input", "FILE"]])
def test_a_value_error_that_is_no_refusal_is_a_bug_and_keeps_its_traceback(folder, tmp_path, monkeypatch, args):
    """Even where code of ours raises it, and for a line of a file, which else would be told with the others."""

    def broken(*args, **kwargs):
        raise ValueError("a bug")

    broken = types.FunctionType(broken.__code__, {**globals(), "__name__": "lrd_jax.text.tokenizer"})
    monkeypatch.setattr(generate, "encode_text", broken)
    (tmp_path / "prompts.txt").write_text(f"{QUESTION}\n")
    args = [str(tmp_path / "prompts.txt") if arg == "FILE" else arg for arg in args] or [QUESTION]
    with pytest.raises(ValueError, match="a bug"):
        main(["generate", *args, "--model", folder])


def test_a_bug_keeps_its_traceback(folder, monkeypatch):
    monkeypatch.setattr(generate, "encode_text", lambda *args, **kwargs: int("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        main(["generate", QUESTION, "--model", folder])


# Shapes and caches.


@pytest.fixture
def cache_home(tmp_path, monkeypatch):
    """A user's cache folder, on a machine of one device whose user has chosen no folder for JAX."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    chosen = []
    monkeypatch.setattr(jax.config, "update", lambda name, value: chosen.append((name, value)))
    return tmp_path, chosen


def test_compiles_are_kept_in_the_users_cache_folder(cache_home):
    home, chosen = cache_home
    compile_cache.use_compile_cache()
    assert ("jax_compilation_cache_dir", str(home / "lrd-jax" / "compiled")) in chosen
    assert (home / "lrd-jax" / "compiled").is_dir()


def test_a_cache_that_cannot_be_written_does_not_matter(cache_home):
    home, chosen = cache_home
    (home / "lrd-jax").write_text("")
    compile_cache.use_compile_cache()
    assert chosen == []


def test_several_cpu_devices_go_without_a_cache(cache_home, monkeypatch):
    home, chosen = cache_home
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    compile_cache.use_compile_cache()
    assert chosen == [] == list(home.iterdir())


# The live view.


@pytest.fixture(scope="module")
def decoding(folder):
    """A generator over two blocks of eight, and its canvases: before the first forward, and after each."""
    asked = generator_for(Generate(question=QUESTION, model=folder, gen_length=16, changes={"block_length": 8}))
    return asked, [update.canvas for update in asked.stream([QUESTION])]


def view_of(asked, width=80, height=24):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)
    return CanvasView(console, asked.loaded.tokenizer, asked.loaded.config, "title")


def drawn(view, canvas):
    """The canvas of a frame as its words, and all of its lines."""
    view.console.print(view.frame(canvas))
    lines = view.console.file.getvalue().splitlines()
    view.console.file.seek(0)
    view.console.file.truncate()
    return " ".join(line.strip("│ ") for line in lines if line.startswith("│")).split(), lines


def test_nothing_is_known_before_the_first_forward(decoding):
    asked, canvases = decoding
    words, lines = drawn(view_of(asked), canvases[0])
    assert words == [MASKED] * 16
    assert "compiling, 0/16" in lines[-2]


def test_the_window_shows_guesses_and_the_later_block_stays_masked(decoding):
    asked, canvases = decoding
    words, lines = drawn(view_of(asked), canvases[1])
    assert [word[0] for word in words] == [SOFT] * 8 + [MASKED] * 8
    assert "forward 1, refining, 0/16" in lines[-2]


def test_guesses_are_the_likeliest_tokens(decoding):
    asked, canvases = decoding
    loaded, config = asked.loaded, asked.config.replace(max_forwards=1)
    words, _ = drawn(view_of(asked), canvases[1])
    ids = loaded.tokenizer(QUESTION)["input_ids"]
    decode = make_decode(loaded.model, config.replace(refine=None, stop=None, commit=Threshold(0.0)))
    likeliest = decode(loaded.params, np.array([ids])).tokens[0, :8].tolist()  # all of the window, after one forward
    assert words[:8] == [SOFT + token for token in loaded.tokenizer.convert_ids_to_tokens(likeliest)]


def test_committed_tokens_carry_no_sign_and_the_end_is_the_answer(decoding):
    asked, canvases = decoding
    words, lines = drawn(view_of(asked), canvases[-1])
    tokenizer, end = asked.loaded.tokenizer, asked.loaded.config.eos_id
    tokens = canvases[-1].tokens.tolist()
    assert words == [END if t == end else tokenizer.convert_ids_to_tokens(t) for t in tokens]
    assert "done, 16/16" in lines[-2]


def test_a_decoder_that_measures_nothing_shows_guesses_too(folder):
    asked = generator_for(Generate(question=QUESTION, model=folder, preset="plain", gen_length=16))
    canvases = [update.canvas for update in asked.stream([QUESTION])]
    words, _ = drawn(view_of(asked), canvases[1])
    assert [word.startswith(SOFT) for word in words].count(True) == 15


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(decoding, width):
    asked, canvases = decoding
    assert max(len(line) for line in drawn(view_of(asked, width=width), canvases[3])[1]) <= width


def test_a_canvas_taller_than_the_terminal_keeps_the_open_positions_in_sight(decoding):
    asked, canvases = decoding
    open_at_the_end = dataclasses.replace(canvases[-1], masked=np.arange(16) == 15)
    words, lines = drawn(view_of(asked, width=20, height=6), open_at_the_end)
    assert len(lines) < 6
    assert words[-1].startswith((MASKED, SOFT))


def test_generate_shows_the_canvas_on_a_terminal_then_the_answer_alone(folder, tmp_path):
    status, screen = in_a_terminal(tmp_path, "generate", QUESTION, "--model", folder, *SHORT)
    assert status == 0
    assert "forward 1, refining" in screen
    assert "tokens/s" in screen.splitlines()[-1]
    assert cursor_is_visible(screen)
    decoders = set((tmp_path / "lrd-jax" / "compiled").glob("*advance*-cache"))
    assert decoders
    in_a_terminal(tmp_path, "generate", QUESTION, "--model", folder, *SHORT)
    assert set((tmp_path / "lrd-jax" / "compiled").glob("*advance*-cache")) == decoders  # none was compiled again


def test_ctrl_c_leaves_a_clean_terminal(tmp_path):
    args = ("generate", QUESTION, "--model", "lrd-tiny", "--gen-length", "448", "--preset", "plain")  # takes seconds
    status, screen = in_a_terminal(tmp_path, *args, interrupt_at="forward 3")
    assert status == cli.INTERRUPTED
    assert screen.rstrip().endswith("interrupted")
    assert "Traceback" not in screen
    assert cursor_is_visible(screen)


def in_a_terminal(tmp_path, *args, interrupt_at=None):
    """Status and everything written of a command on a pseudo-terminal; Ctrl-C once a text has appeared."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", "XDG_CACHE_HOME": str(tmp_path)}
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # an ignored signal would be ignored there too
    process = subprocess.Popen([COMMAND, *args], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    signal.signal(signal.SIGINT, handler)
    os.close(theirs)
    screen = ""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while True:
            try:
                data = terminal.read(65536)
            except OSError:  # how Linux tells that the other side has closed
                break
            screen += data.decode(errors="replace")
            if interrupt_at and interrupt_at in screen:
                process.send_signal(signal.SIGINT)
                interrupt_at = None
    return process.wait(), screen


def cursor_is_visible(screen):
    return screen.rfind("\x1b[?25h") > screen.rfind("\x1b[?25l")


def test_chat_and_generate_share_their_options():
    assert {f for f in Chat.__dataclass_fields__} <= {f for f in Generate.__dataclass_fields__}
