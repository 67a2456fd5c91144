"""The pages: their Python runs, and the files and names that they speak of are there."""

import importlib
import json
import re
import shutil
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = {str(file.relative_to(ROOT)): file for file in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]}
BLOCK = re.compile(r"(?P<mark><!-- not run: .+ -->\n)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)

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


@pytest.mark.parametrize("page", WITH_PYTHON)
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
