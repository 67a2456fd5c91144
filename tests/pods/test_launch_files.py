"""The files of docs/pods: shells and YAML that parse, and in each a command line that `lrd-jax` takes."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from lrd_jax.cli.commands import parsed
from lrd_jax.options import mesh_sizes

FOLDER = Path(__file__).parents[2] / "docs" / "pods"
FILES = sorted(path.name for path in FOLDER.iterdir())
DEVICES = {"job.yaml": 16, "jobset.yaml": 16, "sky.yaml": 16, "generate.sbatch": 16, "tpu-vm.sh": 16, "xpk.sh": 32}
LAUNCHED = {"JOB_COMPLETION_INDEX": "1", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2"}
LAUNCHED |= {"SKYPILOT_NODE_RANK": "1"}


def scripts(name):
    """The shell in a file."""
    text = (FOLDER / name).read_text()
    if not name.endswith(".yaml"):
        return [text]
    parts = list(yaml.safe_load_all(text))
    found = [part["run"] for part in parts if "run" in part]
    for part in parts:
        jobs = [part] if part.get("kind") == "Job" else []
        jobs += [job["template"] for job in part.get("spec", {}).get("replicatedJobs", [])]
        for job in jobs:
            assert job["spec"]["completions"] == job["spec"]["parallelism"]
            assert job["spec"]["completionMode"] == "Indexed"
            containers = job["spec"]["template"]["spec"]["containers"]
            assert all(container["command"] == ["bash", "-c"] for container in containers)
            found += [container["args"][0] for container in containers]
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_file_starts_a_command_over_all_its_devices(name):
    (script,) = scripts(name)
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""
    (line,) = re.findall(r"^ *(lrd-jax (?:[^\n]*\\\n)*[^\n]*)", script, re.MULTILINE)
    line = line.rstrip().removesuffix('"') if name in ("tpu-vm.sh", "xpk.sh") else line
    said = subprocess.run(
        ["bash", "-c", f"lrd-jax() {{ printf '%s\\0' \"$@\"; }}; {line}"],
        env={"PATH": os.environ["PATH"], **LAUNCHED},
        text=True,
        capture_output=True,
        check=True,
    )
    options = parsed(said.stdout.split("\0")[:-1])
    sizes = mesh_sizes(options.mesh)
    assert sizes["data"] * sizes["tensor"] == DEVICES[name]
    assert options.batch % sizes["data"] == 0
    if options.num_processes is not None:
        assert options.num_processes == 2 and options.process_id == 1 and options.coordinator.endswith(":1234")


def test_the_page_names_every_file():
    page = (FOLDER.parent / "pods.md").read_text()
    assert [name for name in FILES if f"pods/{name}" not in page] == []
