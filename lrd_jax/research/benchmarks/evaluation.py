"""`lrd-jax eval`: every benchmark asked as the paper asks it, answered, graded by us and by lm-eval, summed up."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.evaluator

from lrd_jax.checkpoint import Loaded
from lrd_jax.research.benchmarks.benchmarks import BENCHMARK_OF_TASK
from lrd_jax.research.benchmarks.code_eval import use_sandbox
from lrd_jax.research.benchmarks.decoding import TextDecoder
from lrd_jax.research.benchmarks.gold import GoldAnswers
from lrd_jax.research.benchmarks.plugin import AnsweringModel, Watch
from lrd_jax.research.benchmarks.programs import Programs
from lrd_jax.research.benchmarks.progress import RunProgress
from lrd_jax.research.benchmarks.records import RecordFile, same_settings
from lrd_jax.research.benchmarks.requests import Grade, Request
from lrd_jax.research.benchmarks.scoring import grade
from lrd_jax.research.benchmarks.summary import Summary, summarize
from lrd_jax.research.benchmarks.tasks import open_task
from lrd_jax.research.benchmarks.trials import RECORDS, SETTINGS, SUMMARY, Trial, baseline_records
from lrd_jax.research.results import write_json


def evaluate(
    trials: Sequence[Trial],
    loaded: Loaded | None,
    *,
    output: Path,
    data: Path | None = None,
    limit: int | None = None,
    programs: Programs | None,
    watch: Watch = RunProgress,
) -> Iterator[tuple[Trial, Summary, dict[str, float]]]:
    """Evaluates trials one after the other; what a trial's folder holds already is not decoded again.

    Args:
      loaded: the model; None where the trials answer with the benchmarks' own solutions.
      output: folder of results.
      data: folder of the benchmarks' files; None takes them from the hub.
      limit: the first so many problems; None takes all.
      programs: runs generated programs, for lm-eval's grading too; None where no task has any.
      watch: see `AnsweringModel`.

    Yields:
      Each trial with its figures by our grading, and lm-eval's own metrics.

    Raises:
      ValueError: other settings in a trial's folder, unusable data, or what the decoder refuses.
    """
    if programs is not None:
        use_sandbox(programs.passes)  # without a sandbox, where the user allows it
    lm_eval.evaluator.get_git_commit_hash = lambda: None  # of the working folder; git complains where that has none
    grade_code = None if programs is None else programs.grade
    for trial in trials:
        folder = trial.folder(output)
        same_settings(folder / SETTINGS, trial.to_json())
        manager, task = open_task(folder, trial.asked, data)

        def graded(request: Request, text: str) -> Grade:
            return grade(BENCHMARK_OF_TASK[request.task], request.problem, text, grade_code)

        with RecordFile(folder / RECORDS) as file:
            model = AnsweringModel(
                _answerer(trial, loaded),
                file,
                tokenizer=None if loaded is None else loaded.tokenizer,
                grade=graded,
                watch=watch,
            )
            results = lm_eval.simple_evaluate(
                model,
                tasks=list(task["tasks"].values()),
                task_manager=manager,
                limit=limit,
                apply_chat_template=trial.chat,
                bootstrap_iters=0,
                log_samples=False,
                confirm_run_unsafe_code=True,  # it goes to `programs`, see `use_sandbox`
            )
            records = model.answered
        metrics = _metrics(results["results"][trial.asked.task])
        summary = summarize(records, baseline_records(trial, output))
        write_json(folder / SUMMARY, {**trial.to_json(), **summary.to_json(), "lm_eval": metrics})
        yield trial, summary, metrics


def _answerer(trial: Trial, loaded: Loaded | None):
    if loaded is None or trial.config is None:
        return GoldAnswers()
    return TextDecoder(loaded, trial.config, batch=trial.batch, seed=trial.seed, begin_token=trial.begin_token)


def _metrics(found: dict[str, Any]) -> dict[str, float]:
    """lm-eval's means by "metric,filter"."""
    return {
        name.removesuffix(",none"): float(value)
        for name, value in found.items()
        if "," in name and "_stderr" not in name and isinstance(value, int | float)
    }
