"""OpenAI's own client: what it sends is understood, and what it reads is there."""

import asyncio

import pytest
from serving import eventually, held

from lrd_jax import Generator
from lrd_jax.decoding.config import DecodeConfig

pytestmark = pytest.mark.slow

openai = pytest.importorskip("openai", reason="openai is not installed: pip install 'lrd-jax[test]'")

PROMPTS = ["One.", "The second prompt is longer."]


def said(prompt):
    return [{"role": "user", "content": prompt}]


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def wanted(loaded):
    """What the generator answers: to conversations, to a text, and between a text and a suffix."""
    generator = Generator(loaded, DecodeConfig.lrd(16))
    chats = generator.generate([said(prompt) for prompt in PROMPTS])
    (text,) = generator.generate(PROMPTS[:1])
    (hole,) = generator.generate(PROMPTS[:1], canvases=[[12, " end"]])
    return [answer.text for answer in chats], text, hole.holes[0]


def test_a_conversation_whole_and_streamed(client, wanted):
    asked = {"model": "bytes", "messages": said(PROMPTS[0]), "max_tokens": 16}
    whole = client.chat.completions.create(**asked, seed=3, extra_body={"lrd": {"preset": "lrd"}})
    (choice,) = whole.choices
    assert choice.message.content == wanted[0][0]
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.lrd["seed"] == 3 and whole.lrd["forwards"] >= 1  # what OpenAI has no field for is there all the same
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == wanted[0][0]
    assert chunks[-1].usage == whole.usage
    with client.chat.completions.stream(**asked) as stream:
        assert "".join(event.delta for event in stream if event.type == "content.delta") == wanted[0][0]


def test_a_text_its_stop_and_its_suffix(client, wanted):
    _, answer, hole = wanted
    asked = {"model": "bytes", "prompt": PROMPTS[0], "max_tokens": 16}
    assert client.completions.create(**asked).choices[0].text == answer.text
    stop = answer.text[3:5]
    stopped = client.completions.create(**asked, stop=[stop]).choices[0]
    assert (stopped.text, stopped.finish_reason) == (answer.text[: answer.text.index(stop)], "stop")
    assert client.completions.create(**{**asked, "max_tokens": 12}, suffix=" end").choices[0].text == hole
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)) == answer.text
    tokens = client.completions.create(**asked, logprobs=1).choices[0].logprobs.tokens
    assert len(tokens) == len(answer.tokens)


def test_several_answers_are_those_of_their_seed(client):
    asked = {"model": "bytes", "messages": said(PROMPTS[0]), "max_tokens": 16, "temperature": 1.5, "seed": 7}
    texts = [choice.message.content for choice in client.chat.completions.create(**asked, n=3).choices]
    assert client.chat.completions.create(**asked).choices[0].message.content == texts[0]
    assert len(set(texts)) == 3


def test_the_asynchronous_client(server, wanted):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:

            async def whole(prompt):
                answer = await client.chat.completions.create(model="bytes", messages=said(prompt), max_tokens=16)
                return answer.choices[0].message.content

            async def streamed(prompt):
                asked = {"model": "bytes", "messages": said(prompt), "max_tokens": 16}
                text = ""
                async for chunk in await client.chat.completions.create(**asked, stream=True):
                    text += chunk.choices[0].delta.content or ""
                return text

            return await asyncio.gather(*(how(prompt) for how in (whole, streamed) for prompt in PROMPTS))

    assert asyncio.run(ask()) == 2 * wanted[0]


def test_a_cancel_frees_the_slot(server, client):
    asked = {"model": "bytes", "messages": said(PROMPTS[0]), "max_tokens": 32}
    with held(server.desk):
        stream = client.chat.completions.create(**asked, stream=True)
        assert server.desk.waiting == 1
        stream.close()
        eventually(lambda: server.desk.waiting == 0)
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3).chat.completions.create(**asked)
        eventually(lambda: server.desk.waiting == 0)


def test_errors_are_those_that_it_knows(client):
    assert client.models.list().data[0].id == "bytes"
    assert client.models.retrieve("bytes").owned_by == "lrd-jax"
    with pytest.raises(openai.BadRequestError, match="longest canvas of this server, 32") as told:
        client.completions.create(model="bytes", prompt="x", max_tokens=99)
    assert told.value.param == "max_tokens"
    with pytest.raises(openai.NotFoundError) as told:
        client.completions.create(model="gpt", prompt="x")
    assert told.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="tools is not supported"):
        client.chat.completions.create(
            model="bytes", messages=said("x"), tools=[{"type": "function", "function": {"name": "f"}}]
        )
