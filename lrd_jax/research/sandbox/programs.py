"""HumanEval and MBPP: from a record and a model's answer to the program and its tests.

Records are the datasets' own. HumanEval has `prompt`, `entry_point` and `test`; MBPP `test_list`, beside it
`test_setup_code` (all of it) or `test_imports` (the sanitized part). A problem is passed if all its tests hold, as in
the datasets' own scorers.

lm-eval 0.4.13 scores some right answers as wrong, and so differs from what is here:

- `mbpp` leaves out `test_setup_code`, without which tasks 367 and 927 fail, and what follows a record's third test.
- `mbpp_instruct` takes the first word of a reply for the language of a code fence, so that `def f(x):` loses its `def`,
  and finds no code in a reply that does not close its fence, as one cut at its length.
- `humaneval_instruct` keeps what precedes the first fence, which is no code where the reply opens one itself.
- All of them give a program three seconds of wall time; MBPP's own answer to task 123 needs more.
"""

import re
from collections.abc import Mapping
from typing import Any

from lrd_jax.errors import Refused
from lrd_jax.research.sandbox.exam import Exam, before
from lrd_jax.research.sandbox.sandbox import Sandbox, Verdict

_PYTHON_TAG = re.compile(r"\s*(?:python3?|py)?\s*", re.IGNORECASE)
_CODE_LINE = re.compile(r"^(?:def|class|import|from|@)\b|^[ \t]+\S", re.MULTILINE)


def judge(sandbox: Sandbox, record: Mapping[str, Any], completion: str) -> Verdict:
    """Runs the tests of a HumanEval or MBPP record on a completion.

    Raises:
      ValueError: the record is of neither dataset.
      SandboxError: the sandbox failed, whatever the completion is worth.
    """
    return sandbox.examine(exam_for(record, completion))


def exam_for(record: Mapping[str, Any], completion: str) -> Exam:
    """The program that a completion is, and the tests of its record.

    Args:
      record: of HumanEval or MBPP. What a prompt of HumanEval defines before the function that is asked for is used by
        the tests of three problems (32, 38, 50), and is the record's there, whatever the completion makes of it.
      completion: what a model wrote: code, or a chat reply with code in a fence. For HumanEval, a continuation of the
        prompt or the whole function.

    Raises:
      ValueError: the record is of neither dataset, or its tests are no Python.
    """
    code = code_of(completion)
    if {"prompt", "entry_point", "test"} <= record.keys():
        prompt, entry_point = record["prompt"], record["entry_point"]
        tests = f"{record['test']}\ncheck({entry_point})\n"
        return Exam(program=prompt + code, tests=tests, given=before(prompt, entry_point), entry_point=entry_point)
    if "test_list" in record:
        parts = [record.get("test_setup_code", ""), *record.get("test_imports", ()), *record["test_list"]]
        return Exam(program=code, tests="\n".join(parts))
    raise Refused(
        f"a record with the fields {', '.join(sorted(record))} is neither of HumanEval, which has prompt, "
        "entry_point and test, nor of MBPP, which has test_list"
    )


def code_of(completion: str) -> str:
    """The code in a completion: all of it up to `[DONE]`, or what its first fence (```) holds or ends.

    A fence ends the code before it where the prompt has opened one already: if it names no language and code precedes
    it. A fence that is never closed holds the rest.
    """
    text = completion.split("[DONE]")[0]
    before, fence, after = text.partition("```")
    tag, _, block = after.partition("\n")
    names_python = bool(tag.strip()) and _PYTHON_TAG.fullmatch(tag)
    if not fence or (not names_python and _CODE_LINE.search(before)):
        return before
    return block.partition("```")[0]
