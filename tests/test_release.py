"""What is shipped: declared packages are the imported ones, versions agree, and every boxed model has a card."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import lrd_jax
from lrd_jax.checkpoint import embedded_models

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTION = {"orbax": "orbax-checkpoint", "yaml": "pyyaml"}  # where it is not the imported name
NOT_OURS = {
    "program",  # what the sandbox's child imports is the generated program
    "torch",  # of the reference runner, which another Python runs
    "dllm_cache",  # of the clone that it runs
}


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def imported(*folders: str) -> set[str]:
    """Distributions outside the standard library that the sources import, wherever in a file."""
    names = set()
    for file in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    here = {file.stem for file in (ROOT / "tests").glob("*.py")}
    outside = names - set(sys.stdlib_module_names) - here - NOT_OURS - {"lrd_jax"}
    return {DISTRIBUTION.get(name, name).lower().replace("_", "-") for name in outside}


def declared(*extras: str) -> set[str]:
    optional = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    return {name_of(line) for line in asked}


def test_what_the_package_imports_is_declared_and_what_is_declared_is_imported():
    assert declared("plots", "eval", "serve") == imported("lrd_jax", "models", "convert")


def test_what_the_tests_import_is_declared():
    assert imported("tests") <= declared("test", "eval")


def test_the_version_is_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+", lrd_jax.__version__)
    assert f"\nversion: {lrd_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_door_opens_to_every_name_and_is_typed():
    assert (ROOT / "lrd_jax" / "py.typed").exists()
    assert len(lrd_jax.__all__) > 30
    assert all(hasattr(lrd_jax, name) for name in lrd_jax.__all__)
    with pytest.raises(AttributeError, match="nope"):
        lrd_jax.nope  # noqa: B018


@pytest.mark.parametrize("name", embedded_models())
def test_a_boxed_model_has_a_card_with_the_figures_of_the_docs(name):
    card = (embedded_models()[name] / "README.md").read_text()
    for heading in ("Size", "Trained on", "How", "Measured", "Meant for", "Limits"):
        assert f"\n## {heading}\n" in card
    assert "Apache-2.0" in card
    measured = "".join((ROOT / "docs" / f"{page}.md").read_text() for page in ("evaluation", "front"))
    figures = re.findall(r"\| (\d+\.\d \(\d+\.\d-\d+\.\d\)) \|", card)
    assert len(figures) > 5 and all(figure in measured for figure in figures)
