"""The quickstart notebook runs from top to bottom, and the repository holds it with the outputs of a whole run."""

from pathlib import Path

import nbclient
import nbformat
import pytest


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_runs_from_top_to_bottom(notebook, tmp_path):
    fresh = nbformat.from_dict(notebook)
    nbclient.NotebookClient(
        fresh, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    assert "forwards" in code_cells(fresh)[1].outputs[0].text


def test_its_outputs_are_of_one_run_in_order_without_errors(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
