"""A decoder on the command line: every field of it, from every command that decodes, and nothing that is not one."""

import dataclasses
import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from lrd_jax import DecodeConfig, Draw, Dream, DualCache, FirstThen, LowestEntropy, Mix, Threshold, cli
from lrd_jax.cli import decoder_arguments, main
from lrd_jax.cli.commands import COMMANDS, parsed
from lrd_jax.cli.decoder_arguments import split
from lrd_jax.decoding.text_form import all_fields
from lrd_jax.options import Changes, DecoderOptions
from lrd_jax.presets import SHORT_NAMES, decoder, yours

DECODES = [name for name, kind in COMMANDS.items() if issubclass(kind, Changes)]
NEEDED = {
    "generate": ["q", "--model", "lrd-tiny"],  # which has no decoder of its own
    "chat": ["--model", "lrd-tiny"],
    "run": ["in.jsonl", "out", "--model", "lrd-tiny"],
    "serve": ["--model", "lrd-tiny"],
    "plan": ["llada-8b", "--gpu", "h100:8"],
    "eval": ["--model", "m"],
    "calibrate": ["--data", "d"],
    "analyze": ["--output", "o"],
}


def options_of(*args):
    return parsed(list(args))


def decoder_of(*args):
    return decoder(options_of("generate", "q", "--model", "lrd-tiny", *args))


def test_the_commands_that_take_a_decoder():
    assert set(DECODES) == set(COMMANDS) - {"convert", "export", "verify", "train"}


@pytest.mark.parametrize("command", DECODES)
def test_every_command_that_decodes_takes_every_field(command):
    args = ["--commit", "threshold", "--commit.threshold", "0.8", "--cache=dual", "--cache.refresh-every", "8"]
    args += ["--mix.top_p", "0.5", "--draw.top-k=20", "--no-suppress-mask", "--end-of-text", "--max-forwards", "10"]
    options = options_of(command, *NEEDED.get(command, []), "--preset", "lrd", *args)
    assert type(options) is COMMANDS[command]
    if isinstance(options, DecoderOptions):
        found = decoder(dataclasses.replace(options, gen_length=64))
    else:
        ((name, make),) = yours(options).items()
        assert name.startswith("yours: lrd, commit threshold, commit.threshold 0.8, cache dual, cache.refresh-every 8")
        found = make(64)
    assert found == DecodeConfig.lrd(
        64,
        commit=Threshold(0.8),
        cache=DualCache(8),
        mix=Mix(top_p=0.5),
        draw=Draw(top_k=20),
        suppress_mask=False,
        end_of_text=True,
        max_forwards=10,
    )


@pytest.mark.parametrize("command", ["bench", "reproduce"])
def test_a_decoder_of_yours_is_there_where_something_is_said_of_it(command):
    assert yours(options_of(command)) == {}
    assert list(yours(options_of(command, "--preset", "plain"))) == ["yours: plain"]
    assert list(yours(options_of(command, "--r-f", "0.4"))) == ["yours: lrd, r-f 0.4"]


def test_options_stand_around_the_question_in_any_order():
    around = ("--stop", "none", "why?", "--cfg-scale", "1.5", "--stop-text", "x", "--model", "lrd-tiny")
    before = options_of("generate", "--end-of-text", *around)
    assert (before.question, before.stop_text) == ("why?", ("x",))
    assert decoder(before) == DecodeConfig.lrd(64, stop=None, end_of_text=True, cfg_scale=1.5)
    assert options_of("generate", "--", "--commit").question == "--commit"


def test_dreams_own_numbers_are_the_draws():
    config = decoder_of("--preset", "dream", "--temperature", "0.8", "--top-p", "0.95", "--steps", "32")
    assert config == DecodeConfig.dream(64, steps=32, draw=Draw(0.8, 0.95))


def test_rules_within_rules():
    config = decoder_of("--commit.rule.alg", "origin", "--commit.rule", "dream", "--commit", "first-then")
    assert config.commit == FirstThen(Dream("origin"))


def test_the_last_of_several_counts():
    assert decoder_of("--threshold", "0.5", "--threshold", "0.6").commit == LowestEntropy(threshold=0.6)
    assert not decoder_of("--end-of-text", "--no-end-of-text").end_of_text


@pytest.mark.parametrize("command", DECODES)
def test_without_changes_a_commands_own_options_stay(command):
    name, value = ("canvases", (32,)) if command == "reproduce" else ("gen_length", 32)
    options = options_of(command, *NEEDED.get(command, []), f"--{name}", "32")
    assert getattr(options, name) == value
    assert options.changes == {}


def test_own_options_go_before_short_names():
    options = options_of("calibrate", "--data", "d", "--r-f", "0.1", "0.2", "--mix.r-f", "0.3")
    assert (options.r_f, options.changes) == ((0.1, 0.2), {"mix.r_f": "0.3"})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--tempature", "0.5"], "--tempature is unknown; did you mean --temperature?"),
        (["--comit.threshold=1"], "--comit.threshold is unknown; did you mean --commit.threshold?"),
        (["--gen-lenght", "8"], "--gen-lenght is unknown; did you mean --gen-length?"),
        (["--xyzzy"], "--xyzzy is unknown; --help lists what there is"),
        (["--no-cache"], "--no-cache is unknown"),
        (["--commit.threshold"], "--commit.threshold wants a value"),
        (["--commit", "--cache", "dual"], "--commit wants a value"),
        (["--commit", "best"], "commit='best' is unknown; choose one of all, capped, dream, dream-threshold"),
        (["--commit", "dream", "--commit.threshold", "1"], "commit.threshold is unknown: dream has alg, steps"),
        (["--cache.refresh-every", "2"], "cache.refresh_every: this decoder has no cache"),
        (["--end-of-text=maybe"], "end_of_text='maybe' must be True or False"),
        (["--max-forwards", "many"], "max_forwards='many' must be an integer of at least 1 or None"),
        (["--cache", "dual", "--cfg-scale", "1"], "exclude each other"),
    ],
)
def test_what_cannot_be_meant_is_refused(capsys, args, message):
    assert main(["generate", "q", *args]) == cli.USER_ERROR
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and message in err


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in DECODES])
def test_other_commands_name_what_they_do_not_know(capsys, command):
    assert main([command, "--such-option"]) == cli.USER_ERROR
    assert "--such-option is unknown" in capsys.readouterr().err
    name = next(field.name for field in dataclasses.fields(COMMANDS[command])).replace("_", "-")
    assert main([command, f"--{name}x"]) == cli.USER_ERROR
    assert f"--{name}x is unknown; did you mean --{name}?" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 120])
def test_help_lists_every_field_and_fits_the_terminal(width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(decoder_arguments.panel(width))
    lines = console.export_text().splitlines()
    assert {len(line) for line in lines} == {width}
    text = "\n".join(lines)
    assert "…" not in text
    only_kinds = {"divergence", "draw"}  # there is nothing to choose
    ours = {name for name, found in all_fields().items() if found[0].owner.__module__.startswith("lrd_jax.decoding.")}
    for name in ours - only_kinds - {"gen_length"}:
        assert f"--{name.replace('_', '-')}" in text
    for name in SHORT_NAMES:
        assert f"--{name.replace('_', '-')} " in text
    assert "dream-threshold" in text and "0 to 1" in text


def test_help_of_a_command_that_decodes_has_its_own_options_and_the_decoders(capsys):
    with pytest.raises(SystemExit) as end:
        main(["generate", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "--gen-length" in out and "--changes" not in out
    assert "--commit.threshold" in out and "--cache.refresh-every" in out


def test_only_a_decoders_fields_take_jax():
    code = (
        "import sys; from lrd_jax.cli.decoder_arguments import split\n"
        "assert split(['generate', '--gen-length', '8'], {'gen_length'}) == (['generate', '--gen-length', '8'], {})\n"
        "assert 'jax' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert split(["generate", "--trace", "q"], ()) == (["generate", "q"], {"trace": "true"})


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "lrd-jax 0.1.0\n"


def test_json_says_what_was_changed(capsys):
    args = ["--gen-length", "8", "--commit", "threshold", "--threshold", "0.5", "--dtype", "bfloat16", "--json"]
    assert main(["generate", "Tom has 14 apples.", *args]) in (0, cli.INCOMPLETE)
    got = json.loads(capsys.readouterr().out)
    assert got["changes"] == {"commit": "threshold", "threshold": "0.5"}
