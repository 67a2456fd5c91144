"""The generator: batches against each prompt alone, streams against whole decodes, stops, conversations, refusals."""

import itertools
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from byte_model import write_byte_model
from quick import some_quick

from lrd_jax import DecodeConfig, Draw, Generator, PrefixCache, load, make_decode
from lrd_jax.decoding import loop
from lrd_jax.text import SettledText, decode_text, encode_prompts, first_stop

PROMPTS = ["One.", "The second prompt is longer.", "Zwölf 東京 🙂", "x" * 40, "a b c"]
CONFIG = DecodeConfig.lrd(16, block_length=8)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Random weights over bytes, with LLaDA's chat tokens."""
    return load(write_byte_model(tmp_path_factory.mktemp("bytes"), chat=True, max_length=256))


def same(got, wanted):
    """Answers are equal but for their times."""
    assert [timeless(answer) for answer in got] == [timeless(answer) for answer in wanted]


def timeless(answer):
    fields = answer.to_json()
    return {name: value for name, value in fields.items() if "second" not in name} | {"canvas": answer.canvas.tolist()}


# Batches.


def test_an_answer_is_the_decoders(loaded):
    (answer,) = Generator(loaded, CONFIG).generate([PROMPTS[0]])
    prompt, mask = encode_prompts(loaded.tokenizer, [PROMPTS[0]], chat=False)
    result = make_decode(loaded.model, CONFIG)(loaded.params, prompt, mask)  # not padded
    assert answer.canvas.tolist() == result.tokens[0].tolist()
    assert answer.text == decode_text(loaded.tokenizer, result.tokens, loaded.config)[0]
    assert (answer.forwards, answer.refine_forwards) == (int(result.forwards[0]), int(result.refine_forwards[0]))


@pytest.mark.slow
@pytest.mark.parametrize("batch", some_quick([3, 2, 8], 1))
@pytest.mark.parametrize("config", some_quick([CONFIG, DecodeConfig.fast(16, cache=PrefixCache(refresh_every=2))], 1))
def test_prompts_in_batches_answer_as_each_does_alone(loaded, batch, config):
    alone = Generator(loaded, config)
    wanted = [alone.generate([prompt])[0] for prompt in PROMPTS]
    same(Generator(loaded, config, batch=batch).generate(PROMPTS), wanted)


@pytest.mark.slow
def test_draws_depend_on_a_prompts_own_key_only(loaded):
    config = DecodeConfig.plain(8, per_step=2, draw=Draw(temperature=1.0))
    keys = [jax.random.fold_in(jax.random.key(5), i) for i in range(len(PROMPTS))]
    wanted = Generator(loaded, config).generate(PROMPTS, seed=5)
    same(Generator(loaded, config, batch=3).generate(PROMPTS, seed=5), wanted)
    same(Generator(loaded, config, batch=2).generate(PROMPTS, keys=keys), wanted)
    same(Generator(loaded, config).generate(PROMPTS[::-1], keys=jnp.stack(keys)[::-1]), wanted[::-1])
    other = Generator(loaded, config).generate(PROMPTS, seed=6)
    assert [answer.text for answer in other] != [answer.text for answer in wanted]


def test_numpy_integers_are_taken_for_pythons(loaded):
    config = DecodeConfig.plain(8, per_step=2, draw=Draw(temperature=1.0))
    got = Generator(loaded, config, batch=np.int64(1))
    assert type(got.batch) is int
    same(got.generate(PROMPTS[:1], seed=np.int32(5)), Generator(loaded, config).generate(PROMPTS[:1], seed=5))


def test_a_bucket_of_prompt_lengths_compiles_once(loaded):
    generator = Generator(loaded, DecodeConfig.plain(8, per_step=4), batch=2)
    generator.generate(["x" * 17, "x" * 20])
    compiled = loop.run_start.cache_size(), loop.run_advance.cache_size()
    for length in (18, 25, 32):
        generator.generate(["x" * length])
    assert (loop.run_start.cache_size(), loop.run_advance.cache_size()) == compiled
    generator.generate(["x" * 33])
    assert loop.run_advance.cache_size() == compiled[1] + 1


def test_no_prompts_have_no_answers(loaded):
    assert Generator(loaded, CONFIG).generate([]) == []


@pytest.mark.slow
def test_a_trace_comes_with_the_answer_where_the_config_records_one(loaded):
    answers = Generator(loaded, CONFIG.replace(trace=True), batch=2).generate(PROMPTS[:3])
    for answer in answers:
        assert np.isfinite(answer.trace.entropy).sum() == answer.forwards
    assert Generator(loaded, CONFIG).generate(PROMPTS[:1])[0].trace is None


def test_a_json_answer_has_no_arrays(loaded):
    (answer,) = Generator(loaded, CONFIG).generate(PROMPTS[:1])
    assert {"text", "tokens", "finish", "stop", "tokens_per_second"} <= set(answer.to_json())
    assert not {"canvas", "trace"} & set(answer.to_json())


# Stop strings.


def test_a_stop_string_cuts_the_text_and_the_facts_say_so(loaded):
    generator = Generator(loaded, CONFIG)
    (whole,) = generator.generate(PROMPTS[:1])
    stop = whole.text[3:5]
    place = whole.text.find(stop)
    (cut,) = generator.generate(PROMPTS[:1], stop=["never in it", stop])
    assert (cut.text, cut.stop, cut.finish) == (whole.text[:place], stop, "stop")
    assert loaded.tokenizer.decode(cut.tokens, skip_special_tokens=True).startswith(cut.text)
    assert len(cut.tokens) < len(whole.tokens)
    assert cut.forwards == whole.forwards
    assert whole.stop is None


@pytest.mark.parametrize("ends", [False, True])
def test_finish_says_whether_the_text_or_the_canvas_ended(loaded, ends):
    generator = Generator(loaded, DecodeConfig.plain(4))
    (batch,) = generator._batches(["x"], None, None, False, None)
    seen = list(generator._rounds(batch))[-1]
    tokens = np.array([70, 71, loaded.config.eos_id if ends else 72, 73])
    seen.canvases[0].tokens[:] = tokens
    answer = generator._answer(batch, seen, 0, (), 1.0)
    assert answer.finish == ("stop" if ends else "length")
    assert answer.tokens == tokens[: 2 if ends else 4].tolist()


# Streams.


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("stop", [(), ("e", "\u00e9"), (" ",)])
def test_a_stream_ends_with_what_generate_gives(loaded, batch, stop):
    generator = Generator(loaded, CONFIG, batch=batch)
    wanted = generator.generate(PROMPTS, stop=stop)
    texts, answers = dict.fromkeys(range(len(PROMPTS)), ""), {}
    for update in generator.stream(PROMPTS, stop=stop):
        assert update.index not in answers
        texts[update.index] += update.text
        if update.answer is not None:
            answers[update.index] = update.answer
    same([answers[i] for i in range(len(PROMPTS))], wanted)
    assert list(texts.values()) == [answer.text for answer in wanted]


def test_canvases_settle_from_all_masked_to_the_answer(loaded):
    updates = list(Generator(loaded, CONFIG).stream(PROMPTS[:1]))
    canvases = [update.canvas for update in updates]
    assert canvases[0].masked.all() and canvases[0].steps == 0 and (canvases[0].guesses == -1).all()
    assert [canvas.steps for canvas in canvases] == list(range(len(canvases)))
    for before, after in itertools.pairwise(canvases):
        assert not (after.masked & ~before.masked).any()
        np.testing.assert_array_equal(after.tokens[~before.masked], before.tokens[~before.masked])
    assert not canvases[-1].masked.any() and not canvases[-1].running
    assert (canvases[1].guesses[:8] >= 0).all() and (canvases[1].guesses[8:] == -1).all()
    assert updates[-1].answer.canvas.tolist() == canvases[-1].tokens.tolist()


def test_closing_a_stream_ends_it(loaded, monkeypatch):
    generator = Generator(loaded, DecodeConfig.plain(16))
    advance, rounds = generator.decoder.advance, []
    monkeypatch.setattr(generator.decoder, "advance", lambda *args: (rounds.append(args[2]), advance(*args))[1])
    updates = generator.stream(PROMPTS)
    for _ in range(4):
        next(updates)
    updates.close()
    assert rounds == [0, 1, 1, 1]


def test_a_cancel_gives_what_has_settled(loaded):
    event = threading.Event()
    generator = Generator(loaded, DecodeConfig.plain(32, block_length=1))
    wanted = generator.generate(PROMPTS[:2])
    asked = []

    def cancelled():
        asked.append(None)
        if len(asked) == 4:  # asked once before the first prompt
            event.set()
        return event.is_set()

    first, second = generator.generate(PROMPTS[:2], cancelled=cancelled)[::-1]  # the longer one came first
    assert (first.stop_reason, second.stop_reason) == ("cancelled", "cancelled")
    assert 0 < first.forwards < 32 and not first.complete
    assert first.tokens == wanted[1].canvas[: first.forwards].tolist()
    assert wanted[1].text.startswith(first.text.rstrip("\ufffd"))
    assert (second.text, second.tokens, second.forwards) == ("", [], 0)


# Incremental text.


def rows_of(rng, text_bytes, ids, count):
    """Random tokens of a byte-level vocabulary: pieces of true text, and any bytes at all."""
    true = [ids[byte] for byte in text_bytes]
    noise = rng.choice(list(ids.values()), size=count).tolist()
    return [*true, *noise]


@pytest.mark.parametrize("seed", range(30))
def test_pieces_of_text_are_the_whole_in_any_order_of_settling(loaded, seed):
    rng = np.random.default_rng(seed)
    tokenizer, end_ids = loaded.tokenizer, loaded.config.end_ids
    ids = {byte: tokenizer.backend_tokenizer.token_to_id(piece) for byte, piece in byte_pieces().items()}
    tokens = np.array(rows_of(rng, "naïve 東京 🙂 end stop".encode(), ids, 12))
    if seed % 3 == 0:
        tokens[-5] = end_ids[0]
    stops = [(), ("stop",), ("e 東", "end sx", "京"), ("\u00ef",)][seed % 4]
    (whole,) = decode_text(tokenizer, tokens[None], loaded.config)
    whole = whole[: first_stop(whole, stops)[0]]

    settled, masked, said = SettledText(tokenizer, end_ids, stops), np.ones(len(tokens), bool), ""
    order = rng.permutation(len(tokens)) if seed % 2 else np.arange(len(tokens))
    for place in order:
        masked[place] = False
        piece = settled.more(np.where(masked, loaded.config.mask_id, tokens), masked)
        said += piece
        assert whole.startswith(said)
    assert said + settled.rest(whole) == whole


def byte_pieces():
    """How byte-level vocabularies spell each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelled = {byte: chr(byte) for byte in printable}
    return spelled | {byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in spelled)}


def test_text_comes_as_early_as_it_can(loaded):
    tokenizer = loaded.tokenizer
    tokens = np.array(tokenizer("ab🙂 stock")["input_ids"])
    settled, masked, pieces = SettledText(tokenizer, loaded.config.end_ids, ("stop",)), np.ones(len(tokens), bool), []
    for place in range(len(tokens)):
        masked[place] = False
        pieces.append(settled.more(tokens, masked))
    assert pieces == ["a", "b", "", "", "", "🙂", "", "", "", "", " stoc", "k"]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_are_the_whole_where_a_decoder_takes_space_back(seed):
    """The models' in the box: before a bracket, a colon, a comma."""
    boxed, rng = load("lrd-tiny"), np.random.default_rng(seed)
    tokenizer, end_ids = boxed.tokenizer, boxed.config.end_ids
    known = [i for i in range(boxed.config.vocab_size) if i not in (boxed.config.mask_id, *end_ids)]
    near = [i for i in known if set(tokenizer.decode([i])) & set("()[]:,#\n ")]
    for stops in ((), (")",), ("]\n",)):
        for _ in range(30):
            tokens = rng.choice(near if rng.random() < 0.8 else known, size=6)
            (whole,) = decode_text(tokenizer, tokens[None], boxed.config)
            whole = whole[: first_stop(whole, stops)[0]]
            settled, said = SettledText(tokenizer, end_ids, stops), ""
            for count in range(1, 7):
                said += settled.more(tokens, np.arange(6) >= count)
                assert whole.startswith(said)
            assert said + settled.rest(whole) == whole


# Conversations.


def test_a_conversation_goes_through_the_chat_template(loaded):
    generator = Generator(loaded, CONFIG)
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And?"},
    ]
    text = loaded.tokenizer.hf.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert generator.encode(messages) == loaded.tokenizer.hf(text, add_special_tokens=False)["input_ids"]
    assert generator.encode("Hi", chat=True) == generator.encode([{"role": "user", "content": "Hi"}])
    assert generator.encode("Hi") == loaded.tokenizer("Hi")["input_ids"]
    same(generator.generate([messages]), generator.generate([text]))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("How?", "prompts must be a list of texts or conversations, got a str"),
        (["fine", "  "], "prompt 1 is empty"),
        ([[]], "prompt 0 must be a text, or a list of messages"),
        ([7], "prompt 0 must be a text, or a list of messages with a role and a content, got 7"),
        ([[{"role": "user"}]], "a message of prompt 0 must have a role and a content"),
        ([["user"]], "a message of prompt 0 must have a role and a content, got 'user'"),
        ([[{"role": "tool", "content": "x"}]], "role 'tool' in prompt 0 is unknown; it may be system, user, assistant"),
        ([[{"role": "user", "content": 3}]], "the content of a message of prompt 0 must be a text, got 3"),
        ([[{"role": "user", "content": ""}]], "prompt 0 is empty"),
        ([[{"role": "assistant", "content": "x"}]], "ends with a message of the assistant; the user's must come last"),
        (["x", "y" * 241], "prompt 1 of 241 tokens .* canvas of 16 exceed the model's context of 256.* by 1"),
    ],
)
def test_bad_prompts_are_refused_by_name(loaded, prompts, message):
    generator = Generator(loaded, CONFIG)
    with pytest.raises(ValueError, match=message):
        generator.generate(prompts)
    with pytest.raises(ValueError, match=message):
        generator.stream(prompts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": "end"}, "stop must be a list of texts of at least one character, got 'end'"),
        ({"stop": [""]}, "stop must be a list"),
        ({"seed": 1, "keys": [jax.random.key(0)]}, "seed and keys were both given"),
        ({"seed": -1}, r"seed=-1 must be an integer in \[0, 2\^63\)"),
        ({"keys": []}, "keys must hold one jax.random.key for each of 1 prompts, got 0"),
    ],
)
def test_bad_options_are_refused(loaded, options, message):
    with pytest.raises(ValueError, match=message):
        Generator(loaded, CONFIG).generate(["x"], **options)


def test_a_model_without_a_template_or_a_tokenizer_is_refused():
    tiny = load("lrd-tiny")
    generator = Generator(tiny, CONFIG)
    with pytest.raises(ValueError, match="no chat template"):
        generator.generate([[{"role": "user", "content": "How many apples?"}]])
    with pytest.raises(ValueError, match="does not know 'Zebras' in prompt 0"):
        generator.generate(["Zebras has 3 apples."])
    with pytest.raises(ValueError, match="batch=0 must be an integer of at least 1"):
        Generator(tiny, CONFIG, batch=0)
    chex.assert_trees_all_equal_dtypes(tiny.params, jax.tree.map(jnp.float32, tiny.params))
    bare = type(tiny)(tiny.model, tiny.params, None)
    with pytest.raises(ValueError, match="has no tokenizer"):
        Generator(bare, CONFIG)
