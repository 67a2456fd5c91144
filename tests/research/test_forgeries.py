"""Programs that want to pass without an answer, in bubblewrap where it works and without it everywhere."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from hostile import ANSWERS, BOUNDED, FORGERIES, RECORDS

from lrd_jax.research.sandbox import Exam, Limits, Sandbox, available, exam_for

pytestmark = pytest.mark.slow  # a process a row; the sandbox itself has quick tests

LIMITS = Limits(cpu_seconds=1, wall_seconds=120, memory_bytes=512 << 20)
TEXTS = [*ANSWERS, *(name for name, record, _ in FORGERIES if "prompt" in RECORDS[record])]


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
    programs = [*FORGERIES, *((record, record, text) for record, text in ANSWERS.items())]
    exams = {("record", name): exam_for(RECORDS[record], bounded(record, text)) for name, record, text in programs}
    exams |= {
        ("texts", name): Exam.of_texts(exams["record", name].program, exams["record", name].tests) for name in TEXTS
    }
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(exams, pool.map(sandbox.examine, exams.values()), strict=True))


def test_there_are_many():
    assert len({name for name, *_ in FORGERIES}) == len(FORGERIES) >= 60 and RECORDS.keys() == ANSWERS.keys()


@pytest.mark.parametrize("way", ["record", "texts"])
@pytest.mark.parametrize("record", ANSWERS)
def test_a_right_answer_passes(verdicts, record, way):
    verdict = verdicts[way, record]
    assert verdict.passed, verdict.outcome


@pytest.mark.parametrize("name", [name for name, *_ in FORGERIES])
def test_a_forgery_fails(verdicts, name):
    verdict = verdicts["record", name]
    assert not verdict.passed, verdict.outcome


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in ANSWERS])
def test_a_forgery_fails_where_the_record_is_not_known(verdicts, name):
    """As in lm-eval's metric, which gets a program and its tests."""
    verdict = verdicts["texts", name]
    assert not verdict.passed, verdict.outcome
