"""The engine: its answers against the generator's, streams, cancels, deadlines, infilling, refusals."""

import asyncio
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
from byte_model import write_byte_model

from lrd_jax import DAEDAL, DecodeConfig, DKVCache, Draw, DualCache, Generator, SparseCache, load
from lrd_jax.engine import Engine, Engines, Request
from lrd_jax.engine.rows import ModelRows, run_insert, run_round
from lrd_jax.errors import Refused

pytestmark = pytest.mark.slow

PROMPTS = ["One.", "The second prompt is longer.", "Zwölf 東京 🙂", "x" * 40, "a b c", "last"]
CONFIG = DecodeConfig.lrd(16, block_length=8)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Random weights over bytes, with LLaDA's chat tokens."""
    return load(write_byte_model(tmp_path_factory.mktemp("bytes"), chat=True, max_length=128))


@pytest.fixture(scope="module")
def engine(loaded):
    with Engine(loaded, CONFIG, slots=3, prompt_length=64, canvas=32) as engine:
        yield engine


def timeless(answer):
    fields = answer.to_json()
    return {name: value for name, value in fields.items() if "second" not in name} | {"canvas": answer.canvas.tolist()}


def test_answers_are_the_generators(loaded, engine):
    wanted = Generator(loaded, CONFIG).generate(PROMPTS)
    handles = [engine.submit(Request(prompt=prompt)) for prompt in PROMPTS]
    assert [timeless(handle.result(60)) for handle in handles] == [timeless(answer) for answer in wanted]
    assert [handle.prompt_tokens for handle in handles] == [len(prompt.encode()) for prompt in PROMPTS]
    assert all(handle.submitted <= handle.begun <= handle.ended for handle in handles)
    assert all(handle.done for handle in handles)


@pytest.mark.parametrize("cache", [None, DualCache(2)])
def test_a_round_computes_no_more_prompt_than_its_rows_need(loaded, cache, monkeypatch):
    computed, advance = [], ModelRows.advance

    def spied(rows, n, keep, length):
        computed.append(length)
        return advance(rows, n, keep, length)

    config, prompts = CONFIG.replace(cache=cache), ["x" * 40, "a longer prompt", "One.", "b"]
    with Engine(loaded, config, slots=2, prompt_length=(64, 8, 16)) as engine:
        assert (engine.prompt_lengths, engine.prompt_length) == ((8, 16, 64), 64)
        monkeypatch.setattr(ModelRows, "advance", spied)
        compiled = run_insert.cache_size(), run_round.cache_size()
        answers = [engine.submit(Request(prompt=prompt)).result(60) for prompt in prompts]
        assert list(dict.fromkeys(computed)) == [64, 16, 8]
        computed.clear()
        handles = [engine.submit(Request(prompt=prompt)) for prompt in reversed(prompts)]
        answers += [handle.result(60) for handle in reversed(handles)]
        assert computed[0] == 8 and 64 in computed
        assert (run_insert.cache_size(), run_round.cache_size()) == compiled
    wanted = [timeless(answer) for answer in Generator(loaded, config).generate(prompts)]
    for index, answer in enumerate(answers):
        assert timeless(answer) == wanted[index % len(prompts)]


def test_slots_whose_cache_keeps_more_than_keys_and_values(loaded):
    """Newcomers beside rows between two refreshes, with prompts that rounds leave out in part."""
    config = DecodeConfig.fast(8, block_length=4, cache=DKVCache(3))
    with Engine(loaded, config, slots=2, prompt_length=(64, 16)) as engine:
        handles = [engine.submit(Request(prompt=prompt)) for prompt in PROMPTS]
        answers = [timeless(handle.result(60)) for handle in handles]
    assert answers == [timeless(answer) for answer in Generator(loaded, config).generate(PROMPTS)]


def test_what_is_kept_of_a_few_positions_has_one_length_of_prompt(loaded):
    with pytest.raises(Refused, match="prompt_length=8, 16: this decoder's cache keeps a Kept, which cannot"):
        Engine(loaded, CONFIG.replace(cache=SparseCache()), slots=2, prompt_length=(8, 16))


def test_a_cache_of_another_kind_has_one_length_of_prompt(loaded, monkeypatch):
    monkeypatch.setattr(DualCache, "empty", lambda self, model, params, batch, length: (jnp.zeros((batch, length)),))
    with pytest.raises(
        Refused, match="prompt_length=8, 16: this decoder's cache keeps a tuple, which cannot be shortened"
    ):
        Engine(loaded, CONFIG.replace(cache=DualCache(7)), slots=2, prompt_length=(8, 16))


def test_a_conversation_goes_through_the_chat_template(loaded, engine):
    messages = [{"role": "user", "content": "Hi"}]
    (wanted,) = Generator(loaded, CONFIG).generate([messages])
    assert timeless(engine.submit(Request(prompt=messages)).result(60)) == timeless(wanted)


def test_a_prompt_may_be_token_ids(loaded, engine):
    ids = loaded.tokenizer("One.")["input_ids"]
    (wanted,) = Generator(loaded, CONFIG).generate(["One."])
    for prompt in (ids, tuple(ids), np.array(ids)):
        assert timeless(engine.submit(Request(prompt=prompt)).result(60)) == timeless(wanted)


@pytest.mark.parametrize("length", [8, 24, 32])
def test_a_request_has_its_own_canvas(loaded, engine, length):
    (wanted,) = Generator(loaded, CONFIG.replace(gen_length=length)).generate(PROMPTS[:1])
    assert timeless(engine.submit(Request(prompt=PROMPTS[0], length=length)).result(60)) == timeless(wanted)


def test_a_request_has_its_own_numbers(loaded, engine):
    other = CONFIG.replace(refine=CONFIG.refine.__class__(tau=0.0), draw=Draw(temperature=0.7))
    wanted = Generator(loaded, other).generate(PROMPTS[:1], seed=2**40 + 3)
    numbers = {"refine.tau": 0.0, "temperature": 0.7}
    got = [
        engine.submit(Request(prompt=PROMPTS[0])),
        engine.submit(Request(prompt=PROMPTS[0], numbers=numbers, seed=np.int64(2**40 + 3))),
        engine.submit(Request(prompt=PROMPTS[0], numbers=numbers, seed=7)),
    ]
    plain, same, seeded = (timeless(handle.result(60)) for handle in got)
    assert same == timeless(wanted[0])
    assert plain["forwards"] != same["forwards"]
    assert seeded["tokens"] != same["tokens"]


def test_holes_are_filled(loaded, engine):
    pieces = ["ab", 10, "cd", 2]
    (wanted,) = Generator(loaded, CONFIG).generate(PROMPTS[:1], canvases=[pieces])
    got = timeless(engine.submit(Request(prompt=PROMPTS[0], canvas=pieces)).result(60))
    assert got["canvas"] == wanted.canvas.tolist()
    assert (got["text"], got["holes"], got["finish"]) == (wanted.text, wanted.holes, "stop")


def test_updates_tell_what_was_believed(loaded, engine):
    """Of a token that is the likeliest one, the log-probability is that of its guess at the forward before."""
    heard = []
    engine.submit(Request(prompt=PROMPTS[0]), listen=heard.append, every=1).result(60)
    assert [update.canvas.steps for update in heard] == list(range(1, len(heard) + 1))
    last, before = heard[-1].canvas, np.ones(CONFIG.gen_length, bool)
    assert (last.beliefs.logprob[~last.masked] < 0).all()
    for update in heard[:-1]:
        canvas = update.canvas
        assert ((canvas.guesses >= 0) == (canvas.beliefs.confidence > 0)).all()
        assert (canvas.beliefs.logprob[canvas.masked] == 0).all()
        assert canvas.beliefs.entropy > 0
        new = ~canvas.masked & (canvas.guesses >= 0) & (canvas.tokens == canvas.guesses)
        fresh = new & before
        assert np.allclose(np.exp(canvas.beliefs.logprob[fresh]), canvas.beliefs.confidence[fresh], atol=1e-6)
        before = canvas.masked
    assert not np.isfinite(heard[0].canvas.beliefs.divergence) and np.isfinite(heard[1].canvas.beliefs.divergence)


@pytest.mark.parametrize("stop", [(), ("e", "\u00e9"), (" ",)])
def test_updates_together_are_the_answers_text(loaded, stop):
    with Engine(loaded, CONFIG, slots=2, prompt_length=64, every=1) as engine:
        heard = {}
        listened = [
            engine.submit(
                Request(prompt=prompt, stop=stop),
                listen=lambda update: heard.setdefault(update.index, []).append(update),
            )
            for prompt in PROMPTS
        ]
        iterated = engine.submit(Request(prompt=PROMPTS[0], stop=stop))
        updates = list(iterated)
        for handle in listened:
            answer = handle.result(60)
            seen = heard[handle.index]
            assert "".join(update.text for update in seen) == answer.text
            assert [update.answer for update in seen[:-1]] == [None] * (len(seen) - 1)
            assert [update.canvas.steps for update in seen] == list(range(1, answer.forwards + 1))
            assert seen[-1].answer is answer
        assert "".join(update.text for update in updates) == iterated.result().text == listened[0].result().text
        assert updates[-1].answer is iterated.result()


def test_an_answer_can_be_iterated_after_its_end(engine):
    handle = engine.submit(Request(prompt="One."))
    answer = handle.result(60)
    (update,) = handle
    assert (update.text, update.answer) == (answer.text, answer)
    with pytest.raises(Refused, match="has told all its updates"):
        next(iter(handle))


def test_asyncio_can_listen(engine):
    async def ask():
        loop, updates = asyncio.get_running_loop(), asyncio.Queue()
        engine.submit(
            Request(prompt="One."), listen=lambda update: loop.call_soon_threadsafe(updates.put_nowait, update)
        )
        while (update := await updates.get()).answer is None:
            pass
        return update.answer

    assert asyncio.run(ask()).stop_reason == "finished"


def slow(loaded, **changes):
    """An engine whose rows take long: one forward a position."""
    return Engine(loaded, DecodeConfig.plain(64), **{"slots": 1, "prompt_length": 16, "every": 1, **changes})


class Pause:
    """A listener whose engine waits at the first update, for as long as the test looks at it."""

    def __init__(self):
        self._waits, self._goes_on = threading.Event(), threading.Event()

    def __call__(self, update):
        self._waits.set()
        self._goes_on.wait(60)

    def __enter__(self):
        assert self._waits.wait(60)

    def __exit__(self, *error):
        self._goes_on.set()


def test_a_cancelled_request_gives_what_is_settled_and_frees_its_slot(loaded):
    with slow(loaded) as engine:
        pause = Pause()
        running = engine.submit(Request(prompt="One."), listen=pause)
        waiting = engine.submit(Request(prompt="Two."))
        after = engine.submit(Request(prompt="One.", length=8))
        with pause:
            assert running.cancel()
            assert waiting.cancel()
        answer = running.result(60)
        assert (answer.stop_reason, answer.complete) == ("cancelled", False)
        assert 0 < answer.forwards < 64
        never = waiting.result(60)
        assert (never.stop_reason, never.forwards, never.text) == ("cancelled", 0, "")
        assert after.result(60).stop_reason == "finished"
        assert not after.cancel()
        assert engine.counts.ended == {"cancelled": 2, "ended": 1}
        assert (engine.counts.running, engine.counts.waiting) == (0, 0)


def test_a_late_request_ends(loaded):
    with slow(loaded) as engine:
        answer = engine.submit(Request(prompt="One.", deadline=1e-6)).result(60)
        assert (answer.stop_reason, answer.complete) == ("deadline", False)


def test_a_full_queue_refuses(loaded):
    with slow(loaded, queue=2) as engine:
        pause = Pause()
        engine.submit(Request(prompt="One."), listen=pause)
        with pause:
            for _ in range(2):
                engine.submit(Request(prompt="Two.", length=1))
            with pytest.raises(Refused, match="queue is full: 1 requests run in 1 slots and 2 wait"):
                engine.submit(Request(prompt="Three."))


def test_closing_answers_all_or_cancels_all(loaded):
    with slow(loaded) as engine:
        handles = [engine.submit(Request(prompt="One.", length=2)) for _ in range(3)]
    assert [handle.result(0).stop_reason for handle in handles] == ["finished"] * 3
    with pytest.raises(Refused, match="the engine is closed"):
        engine.submit(Request(prompt="One."))
    engine.close()
    with slow(loaded) as engine:
        pause = Pause()
        handles = [engine.submit(Request(prompt="One."), listen=pause) for _ in range(3)]
        with pause:
            engine.stop(drain=False)
        engine.close(drain=False)
    assert [handle.result(0).stop_reason for handle in handles] == ["cancelled"] * 3


def test_a_listener_that_fails_ends_the_engine_and_everybody_hears_of_it(loaded):
    def listen(update):
        raise OSError("the line is dead")

    engine = slow(loaded)
    handles = [engine.submit(Request(prompt="One."), listen=listen), engine.submit(Request(prompt="Two."))]
    for handle in handles:
        with pytest.raises(Refused, match="the engine has failed: the line is dead"):
            handle.result(60)
    with pytest.raises(Refused, match="the engine has failed"):
        engine.submit(Request(prompt="One."))
    engine.close()


def test_an_answer_that_is_not_there_yet(loaded):
    with slow(loaded) as engine, pytest.raises(TimeoutError, match="request 0 has not ended within"):
        engine.submit(Request(prompt="One.")).result(timeout=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": []}, "must be a text"),
        ({"prompt": [5, 10**6]}, "id 1000000 at 1, outside the vocabulary"),
        ({"prompt": "x" * 65}, "has 65 tokens, more than prompt_length=64"),
        ({"prompt": "x", "length": 12}, "length is 12: a multiple of block_length=8"),
        ({"prompt": "x", "length": 40}, "length is 40: 1 to gen_length=32"),
        ({"prompt": "x", "length": 8.0}, "length=8.0 must be an integer"),
        ({"prompt": "x", "length": 8, "canvas": ["a", 7]}, "the canvas brings its own length"),
        ({"prompt": "x", "canvas": ["a", 2]}, "no multiple of block_length=8"),
        ({"prompt": "x", "seed": -1}, "seed=-1 must be an integer"),
        ({"prompt": "x", "deadline": 0}, "deadline=0 must be a number of seconds"),
        ({"prompt": "x", "stop": "."}, "stop must be a list of texts"),
        ({"prompt": "x", "numbers": {"refine.tau": "0.1"}}, "refine.tau='0.1' must be a number"),
        ({"prompt": "x", "numbers": {"refine.tau": -1.0}}, "tau"),
        ({"prompt": "x", "numbers": {"nonsense": 1.0}}, "nonsense"),
        ({"prompt": "x", "numbers": {"cfg_scale": 1.0}}, "cfg_scale would make another decoder"),
        ({"prompt": "x", "numbers": [1.0]}, "numbers must be a table"),
    ],
)
def test_a_request_that_cannot_be_is_refused(engine, fields, message):
    with pytest.raises(Refused, match=message):
        engine.submit(Request(**fields))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": 0}, "slots=0 must be an integer"),
        ({"queue": True}, "queue=True must be an integer"),
        ({"canvas": 8}, "canvas=8 must be at least the config's gen_length=16"),
        ({"canvas": 20}, "gen_length=20 must be a multiple"),
        ({"prompt_length": ()}, "prompt_length is empty"),
        ({"prompt_length": (64, 0)}, "prompt_length=0 must be an integer"),
        ({"prompt_length": "64"}, "prompt_length='64' must be an integer"),
        ({"prompt_length": (64, 113)}, "prompt_length=113 . canvas"),
        ({"prompt_length": 113}, "prompt_length=113 . canvas of 16 exceed the model's context of 128: 112"),
        ({"config": CONFIG.replace(trace=True)}, "keeps no traces"),
        ({"config": CONFIG.replace(draw=Draw(np.zeros(2)))}, "has plain numbers"),
        ({"config": None}, "config must be a DecodeConfig"),
        ({"loaded": None}, "loaded must be what"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(loaded, changes, message):
    with pytest.raises(Refused, match=message):
        Engine(**{"loaded": loaded, "config": CONFIG, **changes})


def test_what_is_no_request_is_refused(engine):
    with pytest.raises(Refused, match=r"request must be an lrd_jax.engine.Request, got a str"):
        engine.submit("One.")


def test_requests_of_many_threads(loaded, engine):
    wanted = Generator(loaded, CONFIG).generate(PROMPTS)
    got = {}

    def ask(i):
        got[i] = engine.submit(Request(prompt=PROMPTS[i % len(PROMPTS)])).result(60)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(timeless(got[i]) == timeless(wanted[i % len(PROMPTS)]) for i in range(24))


def test_engines_share_a_device_by_turns(loaded, engine):
    other = DecodeConfig.plain(8)
    with Engine(loaded, other, slots=2, prompt_length=16, beside=engine) as beside:
        handles = [(e, e.submit(Request(prompt="One."))) for _ in range(3) for e in (engine, beside)]
        wanted = {
            e: timeless(Generator(loaded, c).generate(["One."])[0]) for e, c in ((engine, CONFIG), (beside, other))
        }
        assert all(timeless(handle.result(60)) == wanted[e] for e, handle in handles)
    assert engine.submit(Request(prompt="One.")).result(60)  # goes on without the other


def test_an_idle_engine_wakes_up(engine):
    time.sleep(0.2)
    assert engine.submit(Request(prompt="One.")).result(60).complete


def test_a_request_goes_to_the_engine_of_its_decoder_and_length(loaded):
    configs = {"lrd": CONFIG, "plain": DecodeConfig.plain(8)}
    with Engines(loaded, configs, prompt_lengths=(32, 8), slots=2) as engines:
        asked = [(name, prompt) for prompt in PROMPTS[:3] for name in (None, "plain")]
        handles = [engines.submit(Request(prompt=prompt), decoder=name) for name, prompt in asked]
        for (name, prompt), handle in zip(asked, handles, strict=True):
            (wanted,) = Generator(loaded, configs[name or "lrd"]).generate([prompt])
            assert timeless(handle.result(60)) == timeless(wanted)
        answered = {key: sum(engine.counts.ended.values()) for key, engine in engines.engines.items()}
        assert answered == {("lrd", 8): 1, ("lrd", 32): 2, ("plain", 8): 1, ("plain", 32): 2}
        with pytest.raises(Refused, match="decoder 'dream' is not among those of the engines: lrd, plain"):
            engines.submit(Request(prompt="x"), decoder="dream")
        with pytest.raises(Refused, match="has 40 tokens, more than prompt_length=32"):
            engines.submit(Request(prompt="x" * 40))
    with pytest.raises(Refused, match="at least one config"):
        Engines(loaded, {}, prompt_lengths=(8,))


def test_an_end_token_of_ones_own_is_one_of_the_vocabulary(loaded):
    config = DecodeConfig(8, length=DAEDAL(initial=2, eos=0))
    with Engine(loaded, config, slots=1, prompt_length=8) as engine:
        with pytest.raises(Refused, match=r"DAEDAL.eos=1 must be a token of the vocabulary of 262, and not the mask"):
            engine.submit(Request(prompt="One.", numbers={"length.eos": 1}))
        assert engine.submit(Request(prompt="One.", numbers={"length.eos": 2})).result(60).complete
