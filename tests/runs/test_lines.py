"""Files of prompts: both forms of a line, what is no line, and what is no file."""

import json

import pytest

from lrd_jax.errors import Refused
from lrd_jax.runs.lines import BadLine, PromptFile, read_line

CHAT = [{"role": "user", "content": "Hello"}]


def line(**fields):
    return json.dumps(fields).encode()


def batch(body, **fields):
    usual = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(usual | fields).encode()


def test_plain_lines():
    read = read_line(3, line(prompt="Hello"))
    assert (read.number, read.id, read.prompt, read.stop, read.url) == (3, 3, "Hello", (), None)
    asked = {"length": 32, "seed": 7, "canvas": "{4}", "numbers": {"threshold": 0.9}}
    read = read_line(3, line(id="a", messages=CHAT, stop="x", gold="42", **asked))
    assert (read.id, read.prompt, read.stop) == ("a", CHAT, ("x",))
    assert {name: getattr(read, name) for name in asked} == asked
    assert read_line(1, line(id=0, prompt="", stop=["x", "y"], seed=None)).stop == ("x", "y")
    assert read_line(1, line(prompt="", stop="")).stop == ()


def test_lines_of_openai():
    body = {"model": "m", "messages": CHAT, "max_tokens": 32, "seed": 7, "stop": ["x"], "temperature": 0.5, "n": 1}
    read = read_line(3, batch({**body, "lrd": {"numbers": {"threshold": 0.9}, "canvas": "{4}"}, "user": "me"}))
    assert (read.id, read.prompt, read.length, read.seed, read.stop) == ("a", CHAT, 32, 7, ("x",))
    assert (read.numbers, read.canvas) == ({"temperature": 0.5, "threshold": 0.9}, "{4}")
    read = read_line(3, batch({"prompt": "Hello", "max_completion_tokens": 8}, url="/v1/completions"))
    assert (read.prompt, read.length, read.url) == ("Hello", 8, "/v1/completions")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff", "not UTF-8 at byte 0"),
        (b"Hello", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", 'not a JSON object with a "prompt"'),
        (line(prompt="a", messages=CHAT), 'not a JSON object with a "prompt"'),
        (line(prompt=["a"]), '"prompt" must be a text'),
        (line(messages="a"), '"messages" must be a list'),
        (line(id=[1], prompt="a"), '"id" must be a text or a whole number'),
        (line(id=True, prompt="a"), '"id" must be a text or a whole number'),
        (line(id=1.5, prompt="a"), '"id" must be a text or a whole number'),
        (line(prompt="a", length="8"), '"length" must be a number of positions'),
        (line(prompt="a", length=True), '"length" must be a number of positions'),
        (line(prompt="a", seed=-1), r'"seed" must be a number in \[0'),
        (line(prompt="a", seed=2**63), r'"seed" must be a number in \[0'),
        (line(prompt="a", stop=["x", ""]), '"stop" must be'),
        (line(prompt="a", stop=1), '"stop" must be'),
        (line(prompt="a", canvas=4), '"canvas" must be'),
        (line(prompt="a", numbers=[0.9]), '"numbers" must be'),
        (batch({"messages": CHAT}, custom_id=1), '"custom_id" must be a text'),
        (batch({"messages": CHAT}, custom_id=None), '"custom_id" must be a text'),
        (batch({"messages": CHAT}, method="GET"), '"method" must be POST'),
        (batch({"messages": CHAT}, url="/v1/embeddings"), '"url" must be /v1/chat/completions or'),
        (batch([]), '"body" must be a JSON object'),
        (batch({"prompt": "a"}), "must have messages"),
        (batch({"messages": CHAT}, url="/v1/completions"), "must have a prompt"),
        (batch({"prompt": ["a", "b"]}, url="/v1/completions"), '"prompt" must be a text'),
        (batch({"messages": CHAT, "n": 2}), "n=2 is not supported"),
        (batch({"messages": CHAT, "stream": True}), "stream=True is not supported"),
        (batch({"messages": CHAT, "tools": [{}]}), "tools=.* is not supported"),
        (batch({"messages": CHAT, "response_format": {"type": "json_object"}}), "response_format=.* is not supported"),
        (batch({"messages": CHAT, "max_tokens": 1, "max_completion_tokens": 2}), "differ; leave one of them out"),
        (batch({"messages": CHAT, "max_tokens": [1]}), '"length" must be a number'),
        (batch({"messages": CHAT, "lrd": {"cache": "dual"}}), '"lrd" must be a JSON object of canvas and numbers'),
        (batch({"messages": CHAT, "lrd": {"numbers": 1}}), '"numbers" must be'),
    ],
)
def test_what_is_no_line_says_why(data, words):
    with pytest.raises(BadLine, match=words):
        read_line(1, data)


def test_a_bad_line_keeps_its_id():
    with pytest.raises(BadLine) as error:
        read_line(1, batch({"messages": CHAT, "n": 2}))
    assert (error.value.id, error.value.is_batch) == ("a", True)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_bytes(line(prompt="A") + b"\n" + line(prompt="B") + b"\n")
    read = PromptFile(path).read([1, 2])
    assert next(read)[1].prompt == "A"
    path.write_bytes(line(prompt="another") + b"\n")
    with pytest.raises(Refused, match="has changed since the run began"):
        next(read)


def test_a_file_is_read_line_by_line(tmp_path):
    lines = [
        b"\xef\xbb\xbf" + line(id="a", prompt="A\u2028\x85"),
        b"",
        b"bad",
        line(prompt="B\r") + b"\r",
        line(prompt="C"),
    ]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    file = PromptFile(tmp_path / "in.jsonl")
    assert file.numbers == [1, 3, 4, 5]
    read = dict(file.read([5, 3, 1, 4]))
    assert [read[n].prompt for n in (1, 4, 5)] == ["A\u2028\x85", "B\r", "C"]
    assert isinstance(read[3], BadLine)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"Hello\nWorld\n", "holds no prompt: line 1: not JSON"),
        (line(id="a", prompt="A") + b"\n\n" + line(id="a", prompt="B"), "lines 1 and 3 have the same id 'a'"),
        (line(id=2, prompt="A") + b"\n" + line(prompt="B"), "lines 1 and 2 have the same id 2"),
        (line(id="a", prompt="A") + b"\n" + line(id="a"), "lines 1 and 2 have the same id 'a'"),
    ],
)
def test_what_is_no_file_of_prompts_is_refused(tmp_path, content, words):
    (tmp_path / "in.jsonl").write_bytes(content)
    with pytest.raises(Refused, match=words):
        PromptFile(tmp_path / "in.jsonl")
