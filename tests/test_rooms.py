"""The house: imports point down its floors and never in a circle, and the door opens without JAX.

Imports are read from the source, those inside functions and those for type checkers too.
"""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

from lrd_jax.cli.commands import COMMANDS

ROOT = Path(__file__).parent.parent
HOMES = {"lrd_jax": ROOT / "lrd_jax", "lrd_jax.models": ROOT / "models", "lrd_jax.convert": ROOT / "convert"}

FLOORS = (  # top to bottom; a room imports rooms of lower floors alone
    {"cli"},
    {"serve"},
    {"research", "plan"},
    {"train", "runs"},
    {"engine", "labels"},
    {"generate"},
    {"presets"},
    {"preset_files", "published"},
    {"checkpoint", "answer"},
    {"text", "decoding"},
    {"convert", "sharding"},
    {"options", "toml", "batching", "pods"},
    {"durable"},
    {"files"},
    {"models", "tasks"},
    {"errors", "version"},
)
ONLY = {  # what these import of ours, and no more
    "decoding": {"models", "sharding", "errors"},
    "convert": {"models", "errors"},
    "sharding": {"models", "options", "pods", "errors"},
    "pods": {"errors", "version"},
    "options": {"durable", "errors"},
    "toml": {"durable", "files", "errors"},
    "durable": {"files", "errors"},
    "files": {"errors"},
    "batching": set(),
    "models": {"errors"},
    "tasks": {"errors"},
    "errors": set(),
}
USERS = {"research": {"cli"}, "runs": {"cli"}}  # who alone imports these


@functools.cache
def modules() -> dict[str, Path]:
    """Name -> file of every module of the package, as it is imported."""
    named = {}
    for package, folder in HOMES.items():
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder).with_suffix("").parts
            named[".".join((package, *(part for part in parts if part != "__init__")))] = file
    return named


@functools.cache
def arrows() -> dict[str, frozenset[str]]:
    """Module -> the modules of ours that it imports."""
    return {name: frozenset(imported(name)) for name in modules()}


def imported(name: str):
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for full in named:
            if full.split(".")[0] == "lrd_jax":
                yield full if full in modules() else full.rpartition(".")[0]


def room(module: str) -> str:
    """The first name inside `lrd_jax`; the package itself is its own room, the door."""
    return [*module.split("."), ""][1]


def floor(module: str) -> int:
    (at,) = [number for number, rooms in enumerate(FLOORS) if room(module) in rooms]
    return at


def of_rooms():
    """(importing module, imported module) between two rooms; the door stands above all of them."""
    return [(a, b) for a, to in arrows().items() for b in to if a != "lrd_jax" and room(a) != room(b)]


def test_every_module_is_read_and_has_a_floor():
    assert len(modules()) > 100
    assert {room(name) for name in modules()} - {""} <= set().union(*FLOORS)
    assert all(to <= set(modules()) for to in arrows().values())


def test_arrows_point_down():
    up = [f"{a} -> {b}" for a, b in of_rooms() if b != "lrd_jax" and floor(a) >= floor(b)]
    assert not up, up


def test_no_room_but_the_command_line_knows_the_door():
    assert {room(a) for a, b in of_rooms() if b == "lrd_jax"} <= {"cli"}


@pytest.mark.parametrize("name", ONLY)
def test_a_low_room_knows_no_more_than_it_needs(name):
    assert {room(b) for a, b in of_rooms() if room(a) == name} <= ONLY[name]


@pytest.mark.parametrize("name", USERS)
def test_a_wing_has_no_other_users(name):
    assert {room(a) for a, b in of_rooms() if room(b) == name} <= USERS[name]


def test_there_is_no_circle():
    list(graphlib.TopologicalSorter(arrows()).static_order())


def test_the_door_and_the_help_import_no_jax():
    code = (
        "import sys, lrd_jax; from lrd_jax.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'jax', 'numpy', 'flax', 'transformers', 'orbax', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in COMMANDS)
