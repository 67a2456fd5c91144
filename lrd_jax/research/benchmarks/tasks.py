"""lm-eval's own tasks with the paper's shots, and local files in place of the hub where a folder is given."""

import gzip
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import lm_eval.tasks

from lrd_jax.errors import Refused
from lrd_jax.research.benchmarks.benchmarks import BENCHMARK_OF_TASK, COLUMNS, Prompting

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_YAML = {
    "humaneval": "humaneval/humaneval.yaml",
    "humaneval_instruct": "humaneval/humaneval_instruct.yaml",
    "mbpp": "mbpp/mbpp.yaml",
    "mbpp_instruct": "mbpp/mbpp_instruct.yaml",
    "gsm8k_cot": "gsm8k/gsm8k-cot.yaml",
    "minerva_math500": "minerva_math/minerva_math500.yaml",
}


def write_task(folder: Path, asked: Prompting, data: Path | None) -> Path:
    """A task file that includes lm-eval's and changes its shots and, given a folder of data, where the problems lie.

    lm-eval's command line takes it too: `--tasks FILE`.

    Raises:
      ValueError: the folder lacks the file, or its rows lack a column.
    """
    task = {
        "include": str(Path(lm_eval.tasks.__file__).parent / _YAML[asked.task]),
        "task": asked.task,
        "num_fewshot": asked.shots,
    }
    if data is not None:
        file = _data_file(data, asked)
        task |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": {"test": str(file)}}}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{asked.task}.yaml"
    path.write_text(json.dumps(task, indent=1) + "\n")  # YAML understands JSON
    return path


def load_task(path: Path) -> tuple[lm_eval.tasks.TaskManager, dict[str, Any]]:
    """The task of a file and the manager that knows it; no other task is looked for, which would take seconds."""
    datasets.disable_progress_bars()
    manager = lm_eval.tasks.TaskManager(include_defaults=False)
    return manager, manager.load([str(path)])


def open_task(folder: Path, asked: Prompting, data: Path | None) -> tuple[lm_eval.tasks.TaskManager, dict[str, Any]]:
    """`load_task` of the file that `write_task` puts into the folder.

    Raises:
      ValueError: see `write_task`; or the task needs more than is installed, or data that cannot be had.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # its running commentary is not for who runs our commands
    try:
        return load_task(write_task(folder, asked, data))
    except ModuleNotFoundError as error:
        raise Refused(f"{asked.task} needs more than is installed ({error}): pip install 'lrd-jax[eval]'") from error
    except OSError as error:
        if data is not None:
            raise
        raise Refused(
            f"the data of {asked.task} cannot be had from the hub ({error}); give a folder with {asked.file}.jsonl by "
            "--data"
        ) from error


def chat_text(
    tokenizer: "PreTrainedTokenizerFast | None", history: list[dict[str, str]], add_generation_prompt: bool = True
) -> str:
    """The history as the model was trained on chats; without a generation prompt its last turn stays open.

    Raises:
      ValueError: the model has no chat template.
    """
    if tokenizer is None or tokenizer.chat_template is None:
        raise Refused("the model has no chat template: it was not tuned on chats; evaluate without chat")
    return tokenizer.apply_chat_template(
        history,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=not add_generation_prompt,
    )


def stops_of(options: dict[str, Any]) -> list[str]:
    """The stop strings of a request's options."""
    until = options.get("until") or []
    return [until] if isinstance(until, str) else list(until)


def _data_file(data: Path, asked: Prompting) -> Path:
    for ending in (".jsonl", ".jsonl.gz"):
        file = data / f"{asked.file}{ending}"
        if file.is_file():
            _check_columns(file, COLUMNS[BENCHMARK_OF_TASK[asked.task]])
            return file.resolve()
    raise Refused(f"{data} has neither {asked.file}.jsonl nor {asked.file}.jsonl.gz, which {asked.task} needs")


def _check_columns(file: Path, wanted: tuple[str, ...]) -> None:
    """Raises ValueError unless the first row of a JSON-lines file has the columns."""
    try:
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as opened:
            row = json.loads(opened.readline() or "null")
    except (ValueError, OSError, EOFError) as error:
        raise Refused(f"{file} is no file of JSON lines: {error}") from error
    if not isinstance(row, dict) or (missing := [name for name in wanted if name not in row]):
        missing = missing if isinstance(row, dict) else wanted
        raise Refused(f"{file} lacks the columns {', '.join(missing)}")
