"""`lrd-jax run` from end to end: its answers against the generator's, refused lines, resuming, shards, other runs."""

import json

import pytest
from byte_model import write_byte_model

from lrd_jax import DecodeConfig, Generator, load
from lrd_jax.cli import INCOMPLETE, USER_ERROR, main, session
from lrd_jax.errors import Refused
from lrd_jax.presets import preset
from lrd_jax.runs import run as runs
from lrd_jax.runs import store as stores

pytestmark = pytest.mark.slow

PROMPTS = ["One.", "The second prompt is longer than sixteen.", "Zwölf 東京 🙂", "x" * 40, "a b c", "last\u2028"]
CHAT = [{"role": "system", "content": "Short."}, {"role": "user", "content": "Hi"}]
CONFIG = DecodeConfig.lrd(16, block_length=8)
FACTS = ("text", "tokens", "forwards", "refine_forwards", "stop_reason", "finish", "stop", "holes")


@pytest.fixture(autouse=True)
def no_compile_cache(monkeypatch):
    """The cache is a setting of the whole process, so in here it would outlive its test."""
    monkeypatch.setattr(session, "use_compile_cache", lambda: None)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Random weights over bytes, with LLaDA's chat tokens."""
    return str(write_byte_model(tmp_path_factory.mktemp("bytes"), chat=True, max_length=160))


@pytest.fixture(scope="module")
def generator(model):
    return Generator(load(model), CONFIG)


@pytest.fixture
def ask(tmp_path, model, capsys):
    """`ask(lines, *args)`: the status, the answers, and what was said."""

    def run(lines, *args, out="out"):
        file = tmp_path / "in.jsonl"
        file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        asked = ["--model", model, "--gen-length", "16", "--block-length", "8", "--slots", "2"]
        status = main(["run", str(file), str(tmp_path / out), *asked, *args])
        answers = tmp_path / out / "answers.jsonl"
        text = answers.read_text() if answers.exists() else None
        return status, text and [json.loads(line) for line in text.split("\n")[:-1]], capsys.readouterr()

    return run


def facts(answer):
    fields = answer if isinstance(answer, dict) else json.loads(json.dumps(answer.to_json()))
    return {name: fields[name] for name in FACTS}


def test_answers_are_the_generators_in_the_order_of_the_prompts(ask, generator):
    status, answers, said = ask([{"id": f"p{i}", "prompt": prompt} for i, prompt in enumerate(PROMPTS)])
    assert status == 0 and said.out == "" and said.err.startswith("6 answers: ")
    assert [answer["id"] for answer in answers] == [f"p{i}" for i in range(6)]
    assert [facts(answer) for answer in answers] == [facts(answer) for answer in generator.generate(PROMPTS)]
    assert [answer["prompt_tokens"] for answer in answers] == [len(generator.encode(prompt)) for prompt in PROMPTS]
    assert {answer["error"] for answer in answers} == {None}


def test_a_line_has_wishes_of_its_own(ask, model, generator):
    lines = [
        {"prompt": "One.", "length": 8},
        {"prompt": "One.", "numbers": {"r_f": 0.5}},
        {"messages": CHAT},
        {"prompt": "One.", "canvas": "a{7}"},
    ]
    _, answers, _ = ask(lines)
    (short,) = Generator(load(model), DecodeConfig.lrd(8, block_length=8)).generate(["One."])
    assert facts(answers[0]) == facts(short)
    (mixed,) = Generator(load(model), preset("lrd", 16, block_length=8, r_f=0.5)).generate(["One."])
    assert facts(answers[1]) == facts(mixed)
    assert facts(answers[2]) == facts(generator.generate([CHAT])[0])
    assert facts(answers[3]) == facts(generator.generate(["One."], canvases=[["a", 7]])[0])


def test_draws_depend_on_the_seed_and_on_a_lines_own(ask):
    lines = [{"prompt": "One."}, {"prompt": "One."}, {"prompt": "One.", "seed": 5}, {"prompt": "One.", "seed": 5}]
    hot = ["--temperature", "5"]
    _, first, _ = ask(lines, *hot)
    _, again, _ = ask(lines, *hot, "--shard", "0/1", out="again")
    _, other, _ = ask(lines, *hot, "--seed", "1", out="other")
    texts, others = ([answer["tokens"] for answer in answers] for answers in (first, other))
    assert texts == [answer["tokens"] for answer in again]
    assert texts[0] != texts[1] and texts[2] == texts[3] == others[2] and texts[0] != others[0]


def test_conversations_and_stop_texts_of_the_command_line(ask, generator):
    _, (answer,), _ = ask([{"prompt": "Hi"}], "--system", "Short.")
    (wanted,) = generator.generate([CHAT])
    assert facts(answer) == facts(wanted)
    cut = wanted.text[1]
    _, (answer,), _ = ask([{"prompt": "Hi"}], "--system", "Short.", "--stop-text", cut, out="cut")
    assert answer["stop"] == cut and answer["text"] == wanted.text[: wanted.text.index(cut)]
    _, (answer,), _ = ask([{"prompt": "Hi"}], "--chat", out="chat")
    assert facts(answer) == facts(generator.generate([CHAT[1:]])[0])


def test_lines_of_openai_get_its_responses(ask, generator):
    body = {"model": "any", "messages": CHAT, "max_tokens": 8, "temperature": 0}
    chat = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    text = {"custom_id": "b", "method": "POST", "url": "/v1/completions", "body": {"prompt": "One."}}
    wrong = {**chat, "custom_id": "c", "body": {**body, "tools": [{}]}}
    status, (first, second, third), _ = ask([chat, text, wrong])
    assert status == INCOMPLETE
    said = first["response"]["body"]
    assert (first["id"], first["custom_id"], first["error"]) == ("a", "a", None)
    assert first["response"]["status_code"] == 200
    assert said["choices"][0]["message"] == {"role": "assistant", "content": first["text"]}
    counts = said["usage"]
    assert counts["completion_tokens"] == len(first["tokens"]) and counts["prompt_tokens"] == first["prompt_tokens"]
    assert said["lrd"]["forwards"] == first["forwards"]
    (wanted,) = generator.generate(["One."])
    assert second["response"]["body"]["choices"][0]["text"] == second["text"] == wanted.text
    assert second["response"]["body"]["choices"][0]["finish_reason"] == wanted.finish
    assert third["response"]["status_code"] == 400 and "tools" in third["error"]["message"]
    assert third["response"]["body"]["error"]["message"] == third["error"]["message"]


def test_a_refused_line_is_a_record_and_not_an_end(ask):
    lines = [
        {"id": "a", "prompt": "One."},
        "bad",
        {"id": "c", "prompt": ""},
        {"id": "d", "prompt": "x" * 500},
        {"id": "e", "prompt": "One.", "length": 17},
        {"id": "f", "prompt": "One.", "numbers": {"cache": 1}},
        {"id": "g", "prompt": "One.", "canvas": "no hole"},
        {"id": "h", "messages": [{"role": "assistant", "content": "Hi"}]},
        {"id": "i", "prompt": "Two."},
    ]
    status, answers, said = ask(lines)
    assert status == INCOMPLETE and "9 answers, 7 of them errors" in said.err
    assert [answer["id"] for answer in answers] == ["a", None, *"cdefghi"]
    errors = [answer["error"] for answer in answers]
    assert errors[0] is None is errors[8] and "text" in answers[8]
    words = [
        "not JSON",
        "is empty",
        "exceed the model's context",
        "length is 17",
        "cache=1 is unknown",
        "no hole",
        "user's must come",
    ]
    for word, error in zip(words, errors[1:8], strict=True):
        assert word in error
    status, again, _ = ask(lines)
    assert (status, again) == (INCOMPLETE, answers)


def test_an_answer_that_is_no_answer_is_told(ask, tmp_path, monkeypatch):
    lines = [{"prompt": prompt} for prompt in PROMPTS[:2]]
    assert ask(lines)[0] == 0
    part = next(tmp_path.glob("out/parts/*/*.jsonl"))
    part.write_text(part.read_text().replace("finished", "non-finite").replace("settled", "non-finite"))
    (tmp_path / "out" / "answers.jsonl").unlink()
    assert ask(lines)[0] == INCOMPLETE


def test_what_is_answered_is_not_asked_again(ask, tmp_path, monkeypatch):
    """Not even the model is loaded where nothing is left; a part that is gone is answered again."""
    monkeypatch.setattr(stores, "_MOST", 2)
    lines = [{"id": i, "prompt": prompt} for i, prompt in enumerate(PROMPTS)]
    _, answers, _ = ask(lines)
    parts = sorted(tmp_path.glob("out/parts/*/*.jsonl"))
    (tmp_path / "out" / "answers.jsonl").unlink()
    kept = [part.read_text() for part in parts[1:]]
    parts[0].unlink()
    asked = []
    plan = runs.plan
    monkeypatch.setattr(
        runs, "plan", lambda lines, *rest: plan([asked.append(line[0]) or line for line in lines], *rest)
    )
    assert [facts(answer) for answer in ask(lines)[1]] == [facts(answer) for answer in answers]
    assert len(asked) == 2 and [part.read_text() for part in parts[1:]] == kept
    monkeypatch.setattr(session, "load", None)
    assert ask(lines)[0] == 0
    for part in tmp_path.glob("out/parts/*/*.jsonl"):
        part.unlink()
    assert ask(lines)[0] == 0


def test_shards_in_any_order_and_the_last_one_merges(ask, monkeypatch):
    lines = [{"id": i, "prompt": prompt} for i, prompt in enumerate(PROMPTS)]
    _, whole, _ = ask(lines, out="whole")
    status, answers, said = ask(lines, "--shard", "1/3")
    assert (status, answers) == (0, None)
    assert "shard 1/3: 2 answers; 2 of 6 are there, and the last shard writes answers.jsonl" in said.err
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    assert "SLURM_ARRAY_TASK_ID makes this shard 0/3" in ask(lines)[2].err
    _, answers, said = ask(lines, "--shard", "3/3")  # of who counts from 1; there is nothing left of it
    assert answers is None
    _, answers, said = ask(lines, "--shard", "0/1")
    assert [facts(answer) for answer in answers] == [facts(answer) for answer in whole]


def test_more_shards_than_prompts(ask):
    lines = [{"prompt": prompt} for prompt in PROMPTS[:2]]
    assert ask(lines, "--shard", "4/5")[:2] == (0, None)
    assert ask(lines, "--shard", "0/5")[:2] == (0, None)
    assert len(ask(lines, "--shard", "1/5")[1]) == 2
    assert len(ask(lines, "--shard", "4/5")[1]) == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--temperature", "1"], "decoder.draw.temperature=0.0; asked was decoder.draw.temperature=1.0"),
        (["--seed", "1"], "seed=0; asked was seed=1"),
        (["--stop-text", "x"], "stop_text=[]; asked was stop_text=['x']"),
        (["--chat"], "chat=False; asked was chat=True"),
        (["--model", "lrd-tiny-soft"], "holds a run of another model: "),
    ],
)
def test_another_run_in_the_same_folder_is_refused(ask, args, words):
    lines = [{"prompt": "One."}]
    _, answers, _ = ask(lines)
    status, after, said = ask(lines, *args)
    assert (status, after) == (USER_ERROR, answers)
    assert words in said.err and "choose another folder" in said.err


def test_another_file_in_the_same_folder_is_refused(ask):
    ask([{"prompt": "One."}])
    assert "holds a run of another input: " in ask([{"prompt": "Two."}])[2].err


def test_a_run_that_has_not_begun_leaves_nothing(ask, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise MemoryError("no room")

    monkeypatch.setattr(runs.Engine, "__init__", fails)
    status, _, said = ask([{"prompt": "One."}])
    assert status == USER_ERROR and "not enough memory" in said.err
    assert not (tmp_path / "out").exists()


def test_an_engine_that_fails_ends_the_run_and_keeps_its_answers(ask, tmp_path, monkeypatch):
    submit = runs.Engine.submit

    def fails(self, request, **kwargs):
        if "last" in request.prompt:
            raise Refused("the engine has failed")
        return submit(self, request, **kwargs)

    monkeypatch.setattr(stores, "_MOST", 1)
    with monkeypatch.context() as patch:
        patch.setattr(runs.Engine, "submit", fails)
        patch.setattr("lrd_jax.engine.feed.WINDOW", 1)
        lines = [{"prompt": prompt} for prompt in ("One.", "Two.", "Three.", "last")]
        status, answers, said = ask(lines)
        assert (status, answers) == (USER_ERROR, None) and "the engine has failed" in said.err
    assert 1 <= len(list(tmp_path.glob("out/parts/*/*.jsonl"))) <= 3
    assert len(ask(lines)[1]) == 4
