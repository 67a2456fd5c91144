"""Programs that want to pass without an answer, in bubblewrap where it works and without it everywhere."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from hostile import ANSWERS, BOUNDED, FORGERIES, RECORDS

from lrd_jax.research.sandbox import Exam, Limits, Sandbox, available, exam_for

LIMITS = Limits(cpu_seconds=1, wall_seconds=30, memory_bytes=512 << 20)


def bounded(record: str, text: str) -> str:
    """A completion that ends by itself."""
    return text + "\n" + BOUNDED if "prompt" in RECORDS[record] else BOUNDED + text


@pytest.fixture(scope="module", params=["bubblewrap", "unsafe"])
def verdicts(request):
    """Of every forgery; they run side by side, as each waits for much."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "unsafe":
            patch.setattr(shutil, "which", lambda name: None)
        elif not available():
            pytest.skip("bubblewrap does not work here")
        sandbox = Sandbox(LIMITS, unsafe=request.param == "unsafe")
    exams = {name: exam_for(RECORDS[record], bounded(record, text)) for name, record, text in FORGERIES}
    answers = {record: exam_for(RECORDS[record], bounded(record, text)) for record, text in ANSWERS.items()}
    exams |= {("answer", record): exam for record, exam in answers.items()}
    exams |= {("texts", record): Exam.of_texts(exam.program, exam.tests) for record, exam in answers.items()}
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(exams, pool.map(sandbox.examine, exams.values()), strict=True))


def test_there_are_many():
    assert len({name for name, *_ in FORGERIES}) == len(FORGERIES) >= 60 and RECORDS.keys() == ANSWERS.keys()


@pytest.mark.parametrize("way", ["answer", "texts"])
@pytest.mark.parametrize("record", ANSWERS)
def test_a_right_answer_passes(verdicts, record, way):
    verdict = verdicts[way, record]
    assert verdict.passed, verdict.outcome


@pytest.mark.parametrize("name", [name for name, *_ in FORGERIES])
def test_a_forgery_fails(verdicts, name):
    verdict = verdicts[name]
    assert not verdict.passed, verdict.outcome
