"""What the endpoints answer: against the generator's answers, in OpenAI's forms."""

import json

import pytest
import serving  # noqa: F401 (skips where the extra is not installed)

from lrd_jax import Generator, load
from lrd_jax.decoding.config import DecodeConfig

pytestmark = pytest.mark.slow

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PROMPTS = ["One.", "The second prompt is longer.", "Zwölf 東京 🙂"]


def generated(loaded, prompt, length=8, *, config=DecodeConfig.lrd, **asked):
    (answer,) = Generator(loaded, config(length)).generate([prompt], **asked)
    return answer


def ids(loaded, text):
    return loaded.tokenizer(text)["input_ids"]


def test_an_answer_is_the_generators(loaded, server):
    wanted = generated(loaded, PROMPTS[0])
    got = server.post(TEXT, {"prompt": PROMPTS[0], "seed": 5, "model": "bytes", "unknown_field": {"a": [1]}}).json()
    (choice,) = got["choices"]
    assert (choice["text"], choice["finish_reason"], choice["index"]) == (wanted.text, wanted.finish, 0)
    assert got["object"] == "text_completion" and got["model"] == "bytes" and got["id"].startswith("cmpl-")
    prompt_tokens, count = len(ids(loaded, PROMPTS[0])), len(wanted.tokens)
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": count, "total_tokens": prompt_tokens + count}
    assert got["usage"] == usage
    facts = {name: getattr(wanted, name) for name in ("forwards", "refine_forwards", "stop_reason")}
    assert choice["lrd"] == facts
    assert got["lrd"] == {"seed": 5, **facts}


def test_a_conversation(loaded, server):
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]
    wanted = generated(loaded, messages, 16)
    sent = [
        {"role": "developer", "content": "Be short.", "name": "x"},
        {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
    ]
    got = server.post(CHAT, {"messages": sent, "max_completion_tokens": 16}).json()
    (choice,) = got["choices"]
    assert choice["message"] == {"role": "assistant", "content": wanted.text, "refusal": None}
    assert got["object"] == "chat.completion" and got["id"].startswith("chatcmpl-")
    assert isinstance(got["lrd"]["seed"], int)


def test_the_four_forms_of_a_prompt(loaded, server):
    rows = [ids(loaded, prompt) for prompt in PROMPTS]
    wanted = [generated(loaded, prompt).text for prompt in PROMPTS]
    for prompt, texts in ((PROMPTS[0], wanted[:1]), (PROMPTS, wanted), (rows[1], wanted[1:2]), (rows, wanted)):
        got = server.post(TEXT, {"prompt": prompt}).json()
        assert [choice["text"] for choice in got["choices"]] == texts
        assert [choice["index"] for choice in got["choices"]] == list(range(len(texts)))
    assert got["usage"]["prompt_tokens"] == sum(map(len, rows))


@pytest.mark.parametrize("length", [5, 8, 32])
def test_max_tokens_is_the_canvas(loaded, server, length):
    wanted = generated(loaded, PROMPTS[1], length)
    got = server.post(TEXT, {"prompt": PROMPTS[1], "max_tokens": length}).json()["choices"][0]
    assert (got["text"], got["finish_reason"]) == (wanted.text, wanted.finish)


def test_numbers_and_decoders_of_a_request(loaded, server):
    def config(length):
        return DecodeConfig.fast(length, threshold=0.3)

    wanted = generated(loaded, PROMPTS[0], 16, config=config)
    for own in (
        {"preset": "fast", "threshold": 0.3},
        {"preset": "fast", "commit.threshold": "0.3"},
        {"preset": "fast", "commit": {"threshold": 0.3}},
        {"preset": "fast", "numbers": {"threshold": 0.3}},
    ):
        got = server.post(TEXT, {"prompt": PROMPTS[0], "max_tokens": 16, "lrd": own}).json()
        assert got["choices"][0]["text"] == wanted.text
        assert got["lrd"]["forwards"] == wanted.forwards


def test_seeds_and_n(loaded, server):
    asked = {"prompt": PROMPTS[0], "temperature": 1.5, "seed": 7, "max_tokens": 16, "n": 3}
    first, again = (server.post(TEXT, asked).json() for _ in range(2))
    texts = [choice["text"] for choice in first["choices"]]
    assert texts == [choice["text"] for choice in again["choices"]]
    assert len(set(texts)) == 3
    (alone,) = server.post(TEXT, {**asked, "n": 1}).json()["choices"]
    assert alone["text"] == texts[0]
    drawn = server.post(TEXT, {**asked, "seed": None}).json()
    repeated = server.post(TEXT, {**asked, "seed": drawn["lrd"]["seed"]}).json()
    assert [c["text"] for c in repeated["choices"]] == [c["text"] for c in drawn["choices"]]
    assert server.post(TEXT, {**asked, "seed": -3}).status_code == 200


def test_a_stop_string(loaded, server):
    whole = generated(loaded, PROMPTS[0], 32).text
    stop = whole[5:7]
    wanted = generated(loaded, PROMPTS[0], 32, stop=[stop])
    for stops in (stop, [stop, "no such text"]):
        got = server.post(TEXT, {"prompt": PROMPTS[0], "max_tokens": 32, "stop": stops}).json()
        choice = got["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == (wanted.text, "stop")
        assert got["usage"]["completion_tokens"] == len(wanted.tokens)


def test_logprobs_are_of_the_tokens(loaded, server):
    wanted = generated(loaded, PROMPTS[0])
    spelled = [loaded.tokenizer.decode([token]) for token in wanted.tokens]
    text = server.post(TEXT, {"prompt": PROMPTS[0], "logprobs": 1}).json()["choices"][0]["logprobs"]
    assert text["tokens"] == spelled
    assert all(x < 0 for x in text["token_logprobs"])
    asked = {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 1}
    content = server.post(CHAT, asked).json()["choices"][0]["logprobs"]["content"]
    assert content and all(set(token) == {"token", "logprob", "bytes", "top_logprobs"} for token in content)
    for token in content:
        assert token["top_logprobs"] == [{name: token[name] for name in ("token", "logprob", "bytes")}]
    asked |= {"top_logprobs": 0}
    content = server.post(CHAT, asked).json()["choices"][0]["logprobs"]["content"]
    assert content and all(token["top_logprobs"] == [] for token in content)


def test_offsets_are_places_of_the_text(loaded):
    """Also where a decoder puts space between tokens, or takes it away."""
    from lrd_jax.serve.forms import _offsets, speller

    boxed = load("lrd-tiny").tokenizer
    for text in ("14 - 5 = 9 # 9", "def f(xs): return [x * 2 for x in xs]"):
        tokens = boxed(text)["input_ids"]
        texts, whole = [speller(boxed)(token) for token in tokens], boxed.decode(tokens)
        offsets = _offsets(boxed, tokens, texts)
        assert [whole[place : place + len(own)] for place, own in zip(offsets, texts, strict=True)] == texts


def test_what_the_server_says_of_itself(server):
    (model,) = server.client.get("/v1/models").json()["data"]
    assert model["id"] == "bytes" and model["object"] == "model"
    assert model["lrd"]["presets"] == ["lrd", "fast"]
    assert (model["lrd"]["canvases"], model["lrd"]["max_tokens"]) == ([8, 32], 8)
    assert server.client.get("/v1/models/bytes").json() == model
    assert server.client.get("/v1/models/other").status_code == 404
    assert server.client.get("/health").json() == {"status": "ok"}
    assert server.client.get("/ready").json() == {"status": "ready"}
    assert set(server.client.get("/version").json()) == {"version", "jax"}


def test_metrics_count(server):
    def metrics():
        lines = server.client.get("/metrics").text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    before = metrics()
    got = server.post(TEXT, {"prompt": PROMPTS[:2], "max_tokens": 8}).json()
    server.post(TEXT, {"prompt": PROMPTS[0], "n": 0})
    labels = server.post(TEXT, {"prompt": PROMPTS[:2], "lrd": {"labels": ["a", "b"]}}).json()
    server.client.get("/v1/nothing")
    server.client.delete(TEXT)
    after = metrics()

    def grown(name):
        return after[name] - before.get(name, 0)

    assert grown("lrd:prompt_tokens_total") == got["usage"]["prompt_tokens"] + labels["usage"]["prompt_tokens"]
    assert grown("lrd:generation_tokens_total") == got["usage"]["completion_tokens"]
    assert grown("lrd:forwards_total") == got["lrd"]["forwards"] + labels["lrd"]["forwards"]
    assert grown("lrd:e2e_request_latency_seconds_count") == 2
    assert grown("lrd:request_queue_time_seconds_count") == 2
    for status in (400, 404, 405):
        assert grown(f'lrd:request_refused_total{{status="{status}"}}') == 1
    assert after["lrd:num_requests_running"] == after["lrd:num_requests_waiting"] == after["lrd:slots_used"] == 0
    assert after["lrd:slots"] == server.desk.slots


SAY = {"messages": [{"role": "user", "content": "Hi"}]}
ASK = {"prompt": "One."}


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (CHAT, {}, "messages is missing"),
        (CHAT, {"messages": []}, "messages is missing"),
        (CHAT, {"messages": "Hi"}, "messages: expected array, got str"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0]: object missing required field content"),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "role 'tool' in messages is unknown"),
        (CHAT, {"messages": [{"role": "assistant", "content": "x"}]}, "the user's must come last"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "the model reads text"),
        (CHAT, {**SAY, "tools": [{"type": "function"}]}, "tools is not supported: ask for the call as text"),
        (CHAT, {**SAY, "response_format": {"type": "json_schema"}}, "response_format is not supported: give the form"),
        (CHAT, {**SAY, "top_logprobs": 5}, "top_logprobs is not supported"),
        (CHAT, {**SAY, "top_logprobs": 1}, "top_logprobs needs logprobs=true"),
        (TEXT, {**ASK, "logprobs": -1}, "logprobs: expected int >= 0"),
        (TEXT, {**ASK, "top_p": 0.9, "lrd": {"temperature": "1"}}, "top_p is not loaded"),
        (CHAT, {**SAY, "modalities": ["audio"]}, "modalities is not supported"),
        (CHAT, {**SAY, "max_tokens": 4, "max_completion_tokens": 5}, "differ; leave one of them out"),
        (TEXT, {}, "prompt is missing"),
        (TEXT, {"prompt": []}, "prompt is missing"),
        (TEXT, {"prompt": ["a", [1]]}, "all texts, all token ids or all lists"),
        (TEXT, {"prompt": [[]]}, "none empty"),
        (TEXT, {"prompt": " "}, "is empty"),
        (TEXT, {"prompt": 3}, "prompt: expected"),
        (TEXT, {"prompt": [999999]}, "outside the vocabulary"),
        (TEXT, {"prompt": [-1]}, "outside the vocabulary"),
        (TEXT, {"prompt": "x" * 200}, "more than prompt_length=96"),
        (TEXT, {**ASK, "max_tokens": 33}, "longest canvas of this server, 32"),
        (TEXT, {**ASK, "max_tokens": 0}, "max_tokens: expected int >= 1"),
        (TEXT, {**ASK, "max_tokens": "8"}, "max_tokens: expected int, got str"),
        (TEXT, {**ASK, "max_tokens": 10**30}, "max_tokens"),
        (TEXT, {**ASK, "temperature": -1}, "temperature: expected float >= 0"),
        (TEXT, {**ASK, "top_p": 0}, "top_p: expected float > 0"),
        (TEXT, {**ASK, "top_p": 0.9, "temperature": 1}, "top_p is not loaded: start the server with --top-p 1"),
        (TEXT, {**ASK, "n": 0}, "n: expected int >= 1"),
        (TEXT, {**ASK, "n": 7}, "7 answers, more than 6 may wait"),
        (TEXT, {**ASK, "stop": [1]}, "stop[0]: expected str, got int"),
        (TEXT, {**ASK, "stop": ["a"] * 17}, "stop holds 17 texts"),
        (TEXT, {**ASK, "echo": True}, "echo is not supported: put it in front"),
        (TEXT, {**ASK, "echo": True, "logprobs": 1}, "no next-token likelihood"),
        (TEXT, {**ASK, "best_of": 3}, "best_of is not supported"),
        (TEXT, {**ASK, "presence_penalty": 1}, "presence_penalty is not supported"),
        (TEXT, {**ASK, "logit_bias": {"1": 5}}, "logit_bias is not supported"),
        (TEXT, {**ASK, "lrd": 3}, "lrd: expected object, got int"),
        (TEXT, {**ASK, "lrd": {"preset": "paper"}}, "lrd.preset='paper' is not loaded; choose one of lrd, fast"),
        (TEXT, {**ASK, "lrd": {"preset": []}}, "lrd.preset=[] is not loaded"),
        (TEXT, {**ASK, "lrd": {"cache": "dual"}}, "would make a decoder that is not loaded"),
        (TEXT, {**ASK, "lrd": {"bogus": 1}}, "lrd: bogus is unknown"),
        (TEXT, {**ASK, "lrd": {"threshold": 2}}, "threshold"),
        (TEXT, {**ASK, "lrd": {"threshold": [0.1, 0.2]}}, "must be a number"),
        (TEXT, {**ASK, "lrd": {"numbers": 3}}, "lrd.numbers must be numbers by name"),
        (TEXT, {**ASK, "lrd": {"stream": "movie"}}, 'must be "text" or "canvas"'),
    ],
)
def test_what_cannot_be_is_a_400_in_one_sentence(server, path, body, words):
    response = server.post(path, body)
    error = response.json()["error"]
    assert response.status_code == 400, error
    assert words in error["message"] and "\n" not in error["message"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"


def test_what_is_to_be_used_instead_of_a_schema_is_a_canvas(server):
    told = server.post(CHAT, {**SAY, "response_format": {"type": "json_object"}}).json()["error"]["message"]
    instead = json.loads(told.partition("lrd=")[2])
    text = server.post(CHAT, {**SAY, "lrd": instead}).json()["choices"][0]["message"]["content"]
    assert text.startswith('{"age": ') and text.endswith("}")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"prompt": NaN}', b"[" * 50_000])
def test_a_body_that_is_no_object(server, data):
    response = server.client.post(TEXT, content=data)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_harmless_fields_pass(server):
    harmless = {
        "user": "me",
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "tools": [],
        "response_format": {"type": "text"},
        "best_of": 1,
        "top_p": 1,
        "parallel_tool_calls": True,
        "stream": False,
        "n": None,
        "stop": "",
        "lrd": None,
    }
    assert server.post(TEXT, {**ASK, **harmless}).status_code == 200


def test_an_unknown_model_and_an_unknown_address(server):
    response = server.post(TEXT, {**ASK, "model": "gpt"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert server.client.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    wrong = server.client.get(TEXT)
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"
    assert wrong.json()["error"]["message"] == f"GET {TEXT} is not what this address takes: POST"
