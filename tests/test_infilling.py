"""Infilling: canvases of given text and holes, against the decoder's own given tokens and lengths."""

import json

import numpy as np
import pytest
from byte_model import write_byte_model
from hypothesis import given, settings
from hypothesis import strategies as st

from lrd_jax import DecodeConfig, DualCache, Generator, load, make_decode
from lrd_jax.cli import USER_ERROR, main
from lrd_jax.text import encode_prompts, parse_holes

CANVASES = [["Answer: ", 3, " apples"], None, [5, " 東京"], ["a", 1, "b", 2]]
PROMPTS = ["One.", "The second prompt is longer.", "Zwölf", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_byte_model(tmp_path_factory.mktemp("bytes"), max_length=256))


@pytest.fixture(scope="module")
def loaded(folder):
    return load(folder)


@pytest.mark.slow
@pytest.mark.parametrize("config", [DecodeConfig.lrd(24), DecodeConfig.fast(24, cache=DualCache())])
def test_holes_are_filled_as_the_decoder_fills_given_tokens(loaded, config):
    pieces = ["Answer: ", 3, " apples"]
    (answer,) = Generator(loaded, config).generate(["One."], canvases=[pieces])
    before, after = (loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in pieces[::2])
    canvas = np.full((1, 24), -1)
    length = len(before) + 3 + len(after)
    canvas[0, :length] = [*before, -1, -1, -1, *after]
    prompt, mask = encode_prompts(loaded.tokenizer, ["One."], chat=False)
    result = make_decode(loaded.model, config)(loaded.params, prompt, mask, canvas=canvas, length=np.array([length]))
    assert answer.tokens == result.tokens[0, :length].tolist()
    assert answer.text.startswith("Answer: ") and answer.text.endswith(" apples")
    hole = result.tokens[0, len(before) : len(before) + 3]
    assert answer.holes == (loaded.tokenizer.decode(hole, skip_special_tokens=True),)
    assert (answer.finish, answer.forwards) == ("stop", int(result.forwards[0]))


@pytest.mark.slow
def test_canvases_in_a_batch_are_filled_as_each_is_alone(loaded):
    together = Generator(loaded, DecodeConfig.lrd(20), batch=3).generate(PROMPTS, canvases=CANVASES)
    alone = Generator(loaded, DecodeConfig.lrd(20))
    for prompt, pieces, answer in zip(PROMPTS, CANVASES, together, strict=True):
        (wanted,) = alone.generate([prompt], canvases=[pieces])
        assert (answer.text, answer.tokens, answer.forwards) == (wanted.text, wanted.tokens, wanted.forwards)
    assert together[1].holes == ()
    (plain,) = alone.generate([PROMPTS[1]])
    assert together[1].text == plain.text


def test_a_stream_of_a_canvas_is_its_text(loaded):
    generator = Generator(loaded, DecodeConfig.plain(16))
    (wanted,) = generator.generate(["x"], canvases=[CANVASES[3]])
    updates = list(generator.stream(["x"], canvases=[CANVASES[3]]))
    assert "".join(update.text for update in updates) == wanted.text == updates[-1].answer.text
    assert updates[0].text == "a"  # what is given stands from the start


@pytest.mark.parametrize(
    ("canvases", "message"),
    [
        ([["no hole"]], "canvas 0 has no hole"),
        ([[0, "a"]], "canvas 0 holds 0: texts and numbers of open positions, from 1 to"),
        ([[True]], "canvas 0 holds True"),
        ([[1.5]], "canvas 0 holds 1.5"),
        (["{4}"], "canvas 0 must be a list of texts and of numbers"),
        ([["a" * 30, 1]], "canvas 0 has 31 positions, more than gen_length=16"),
        ([["a", 2]], "canvas 0 has 3 positions, no multiple of block_length=8"),
        ([], "canvases must be a list of one canvas, or None, for each of the 1 prompts"),
        ("{4}", "canvases must be a list"),
    ],
)
def test_bad_canvases_are_refused(loaded, canvases, message):
    generator = Generator(loaded, DecodeConfig.plain(16, block_length=8))
    with pytest.raises(ValueError, match=message):
        generator.generate(["x"], canvases=canvases)


@pytest.mark.parametrize(
    ("template", "pieces"),
    [
        ("Tom has {4} apples", ["Tom has ", 4, " apples"]),
        ("{1}{2}", [1, 2]),
        ("{{4}} {3}", ["{4} ", 3]),
        ("f'{{x}}' = {10}}}", ["f'{x}' = ", 10, "}"]),
        ("", []),
    ],
)
def test_templates(template, pieces):
    assert parse_holes(template) == pieces


@settings(max_examples=200)
@given(st.lists(st.text(min_size=1) | st.integers(1, 99), max_size=6))
def test_every_canvas_has_a_template(pieces):
    template = "".join(
        f"{{{piece}}}" if isinstance(piece, int) else piece.replace("{", "{{").replace("}", "}}") for piece in pieces
    )
    merged = []  # neighbouring texts are one text
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    assert parse_holes(template) == merged


def test_the_command_line_fills_in(folder, capsys, tmp_path):
    short = ["--model", folder, "--gen-length", "16", "--preset", "plain"]
    assert main(["generate", "x", "--canvas", "a{1}b{2}", "--json", *short]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["text"].startswith("a") and len(got["holes"]) == 2
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"prompt": "x", "canvas": "a{1}b{2}"}\n{"prompt": "x"}\n{"prompt": "x", "canvas": "{"}\n')
    assert main(["generate", "--input", str(lines), "--json", *short]) == 1
    out, err = capsys.readouterr()
    first, second, third = map(json.loads, out.splitlines())
    assert (first["text"], first["holes"], second["holes"]) == (got["text"], got["holes"], [])
    assert "lone '{'" in third["error"] and "line 3" in err


@pytest.mark.parametrize("canvas", ["no hole", "a } b", "{0}", "x" * 40 + "{1}"])
def test_bad_templates_are_refused_on_the_command_line(folder, capsys, canvas):
    assert main(["generate", "x", "--canvas", canvas, "--model", folder, "--gen-length", "16"]) == USER_ERROR
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("error: ")
