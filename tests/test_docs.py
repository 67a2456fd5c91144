"""The pages: their Python runs, their commands are such, and the files and names that they speak of are there."""

import importlib
import json
import re
import shlex
import shutil
import textwrap
from pathlib import Path

import pytest
from quick import some_quick

from lrd_jax.cli.commands import COMMANDS, parsed
from lrd_jax.cli.decoder_arguments import split
from lrd_jax.errors import Refused
from lrd_jax.options import DecoderOptions, Yours
from lrd_jax.preset_files import is_preset_file
from lrd_jax.presets import decoder, yours

ROOT = Path(__file__).parent.parent
PAGES = {str(file.relative_to(ROOT)): file for file in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]}
BLOCK = re.compile(r"(?P<mark><!-- not run: [^\n]+ -->\n)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)

SETUP = {  # what a page takes for granted
    "docs/semantics.md": """
        import jax.numpy as jnp
        import lrd_jax
        from lrd_jax.text import encode_prompts

        loaded = lrd_jax.load("lrd-tiny-soft")
        model, params, tokenizer = loaded.model, loaded.params, loaded.tokenizer
        prompt, _ = encode_prompts(tokenizer, ["Tom has 14 apples. Ann takes 5 apples. How many are left?"], chat=False)
        show = print
    """,
    "docs/sandbox.md": """
        record = {"task_id": "HumanEval/0", "entry_point": "f", "prompt": "def f(x):\\n"}
        record["test"] = "def check(f):\\n    assert f(1) == 2"
        completion = "    return x + 1\\n"
    """,
}
TOOLS = {"docs/sandbox.md": "bwrap"}  # programs that a page needs

CARDS = {str(file.relative_to(ROOT)): file for file in ROOT.glob("lrd_jax/embedded/*/README.md")}
SHELL = re.compile(r"^```(?:sh)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
INLINE = re.compile(r"`((?:lrd-jax|python) [^`]+)`")

WRITTEN_PATH = re.compile(r"`((?:lrd_jax|models|convert|tests|docs|benchmarks|notebooks|recipes)/[\w./-]*)[`:]")
WRITTEN_NAME = re.compile(r"\blrd_jax(?:\.\w+)+")


def blocks(page: str) -> list[tuple[str, bool]]:
    """The page's Python, each block on the lines where it stands, and whether it is run."""
    text = PAGES[page].read_text()
    return [("\n" * text.count("\n", 0, b.start("code")) + b["code"], not b["mark"]) for b in BLOCK.finditer(text)]


WITH_PYTHON = [page for page in PAGES if blocks(page)]


def test_pages_have_python():
    assert {"README.md", *SETUP} <= set(WITH_PYTHON)
    assert all(PAGES[page].read_text().count("```python") == len(blocks(page)) for page in PAGES)


@pytest.mark.parametrize("page", some_quick(WITH_PYTHON, 1))
def test_the_python_of_a_page_runs(page):
    if not shutil.which(TOOLS.get(page, "sh")):
        pytest.skip(f"{TOOLS[page]} is not installed")
    namespace = {"__name__": page}
    exec(textwrap.dedent(SETUP.get(page, "")), namespace)
    for code, is_run in blocks(page):
        program = compile(code, PAGES[page], "exec")
        if is_run:
            exec(program, namespace)


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_files_that_a_page_names_are_there(page):
    named = set(WRITTEN_PATH.findall(PAGES[page].read_text()))
    assert not [path for path in named if not (ROOT / path).exists()]


def texts():
    """Pages, and the prose of notebooks."""
    yield from ((page, file.read_text()) for page, file in PAGES.items() if page != "CHANGELOG.md")
    for file in sorted(ROOT.glob("notebooks/*.ipynb")):
        cells = json.loads(file.read_text())["cells"]
        yield file.name, "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_names_that_pages_use_are_there():
    absent = []
    for page, text in texts():
        absent += [f"{page}: {name}" for name in set(WRITTEN_NAME.findall(text)) if not resolves(name)]
    assert not absent


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def shell_lines(text: str):
    """Each command of a page's text as its words, and whether it stands in a block of its own or within a sentence."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = [*SHELL.findall(text), *map(textwrap.dedent, INDENTED.findall(outside))]
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        for command in line.split("&&"):
            try:
                yield shlex.split(command.partition(" > ")[0], comments=True), True
            except ValueError:  # no shell, such as an equation with a lone quote
                continue
    yield from ((shlex.split(found), False) for found in INLINE.findall(outside))


def commands(program: str):
    """(page, arguments, whether it stands alone) of each command of README, docs, model cards and notebooks."""
    pages = [*texts(), *((page, file.read_text()) for page, file in CARDS.items())]
    for page, text in pages:
        for words, alone in shell_lines(text):
            if words and Path(words[0]).name == program:
                yield page, words[1:], alone


def check_command(args: list[str], *, alone: bool) -> None:
    """Raises where the command line does not take it; a decoder is made where it needs no file."""
    if args[:1] in ([], ["--help"]):
        return
    if not alone:  # a part of a command
        split(args[1:], vars(COMMANDS[args[0]])["__dataclass_fields__"], decodes=True)
        return
    options = parsed(args)
    if getattr(options, "preset", None) is not None and is_preset_file(options.preset):
        return
    if isinstance(options, DecoderOptions):
        decoder(options)
    elif isinstance(options, Yours):
        for make in yours(options).values():
            make(getattr(options, "canvases", (64,))[0])


def test_commands_of_pages_are_those_of_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    found, wrong = list(commands("lrd-jax")), []
    for page, args, alone in found:
        try:
            check_command([str(tmp_path) if word == "DIR" else word for word in args], alone=alone)
        except (Refused, KeyError, SystemExit) as error:
            if getattr(error, "code", 1):  # help ends with 0
                wrong.append(f"{page}: lrd-jax {shlex.join(args)}: {error} {capsys.readouterr().err}")
    assert not wrong, "\n".join(wrong)
    assert len(found) > 60 and {args[0] for _, args, _ in found if args} >= set(COMMANDS)


@pytest.mark.parametrize("line", ["generate Q --no-such", "eval-tiny", "generate Q --tau x", "reproduce --what table9"])
def test_a_stale_command_would_be_found(line, capsys):
    ((words, alone),) = shell_lines(f"It goes\n\n    lrd-jax {line}\n")
    with pytest.raises((Refused, KeyError, SystemExit)):
        check_command(words[1:], alone=alone)


def test_scripts_that_pages_start_have_the_options():
    absent, count = [], 0
    for page, args, _ in commands("python"):
        if args[0].endswith(".py") and "/" in args[0]:
            file = ROOT / args[0]
            beside = [other for other in file.parent.glob("*.py") if f"from {other.stem} import" in file.read_text()]
            source = "".join(other.read_text() for other in (file, *beside))
            options = [word.strip("[]").removeprefix("--").replace("-", "_") for word in args if "--" in word]
            absent += [f"{page}: {args[0]} --{name}" for name in options if not re.search(rf"\b{name}\b", source)]
            count += 1
    assert not absent
    assert count > 10
