"""The trainer: the loss against NumPy, masks, soft inputs against the decoder, resuming, learning, and bad configs."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_run import recipe

import lrd_jax
from lrd_jax.convert import read_hf
from lrd_jax.decoding.loop import make_decode
from lrd_jax.models import LogitAlignment, Model, positions_of
from lrd_jax.sharding import make_mesh, shard, shard_batch
from lrd_jax.tasks import TASKS, problems
from lrd_jax.tasks.problem import held_out
from lrd_jax.tasks.tokenizer import build_tokenizer
from lrd_jax.train import log, read_config, train
from lrd_jax.train.config import Bucket, Data, Mesh, Optimizer, Scratch, SoftInputs, TrainConfig
from lrd_jax.train.data import make_batches
from lrd_jax.train.loss import canvas_logits, draw_masks, loss_fn, weighted_loss
from lrd_jax.train.soft import draw_feedback, feed_back
from lrd_jax.train.start import model_and_tokenizer, new_model_config, new_params, starting_params
from lrd_jax.train.step import make_step

pytestmark = pytest.mark.slow

SIZES = Scratch(num_layers=2, embed_dim=16, mlp_dim=32, num_heads=2, max_length=64)

BUCKET_OF_8 = Bucket(prompt=32, canvas=20, batch=8)


def small_config(output, **changes):
    default = TrainConfig(
        output=str(output),
        steps=6,
        model=SIZES,
        data=Data(tasks=("words",), buckets=(Bucket(prompt=32, canvas=20, batch=4),)),
        optimizer=Optimizer(peak_lr=3e-3, warmup_steps=2),
        checkpoint_every=3,
        log_every=2,
        dtype="float32",
    )
    return dataclasses.replace(default, **changes)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(tuple(TASKS.values()))


@pytest.fixture(scope="module")
def model(tokenizer):
    return Model(new_model_config(SIZES, tokenizer))


@pytest.fixture(scope="module")
def params(model):
    return new_params(model, jax.random.key(0))


@pytest.fixture(scope="module")
def batch(tokenizer, model):
    data = Data(tasks=("words", "code"), buckets=(Bucket(prompt=24, canvas=16, batch=4),))
    return make_batches(data, tokenizer, 0, model.config)(0)


# --- the loss


def test_loss_equals_the_formula_in_numpy(model, params, batch):
    key = jax.random.key(3)
    t, masked = map(np.asarray, draw_masks(jax.random.split(key)[0], *batch.answer.shape, 1e-3))
    attend = np.concatenate([batch.prompt_mask, np.ones_like(masked)], axis=1)
    ids = np.concatenate([batch.prompt, np.where(masked, model.config.mask_id, batch.answer)], axis=1)
    hidden = model.hidden(params, model.embed(params, ids), positions_of(jnp.asarray(attend)), jnp.asarray(attend))
    logits = np.asarray(model.logits(params, hidden), np.float64)[:, batch.prompt.shape[1] :]
    expected = 0.0
    for b, i in zip(*np.nonzero(masked), strict=True):
        nats = np.log(np.exp(logits[b, i]).sum()) - logits[b, i, batch.answer[b, i]]
        expected += nats / t[b]
    expected /= batch.answer.size
    np.testing.assert_allclose(loss_fn(params, model, batch, key, 1e-3, None), expected, rtol=1e-5)


def test_padding_counts_as_answer():
    logits, t = jnp.zeros((1, 4, 8)), jnp.array([0.5])
    everywhere = weighted_loss(logits, jnp.zeros((1, 4), int), jnp.ones((1, 4), bool), t)
    np.testing.assert_allclose(everywhere, np.log(8) / 0.5, rtol=1e-6)


def test_shifted_models_read_the_position_before(model, params, batch):
    shifted = Model(dataclasses.replace(model.config, alignment=LogitAlignment.SHIFTED))
    canvas = model.embed(params, batch.answer)
    same, moved = (canvas_logits(m, params, batch, canvas) for m in (model, shifted))
    np.testing.assert_allclose(moved[:, 1:], same[:, :-1], rtol=1e-5)


def test_mask_ratios_are_uniform_and_masks_follow_them():
    t, masked = draw_masks(jax.random.key(0), 512, 400, 1e-3)
    t = np.sort(np.asarray(t))
    np.testing.assert_allclose(t, 1e-3 + (1 - 1e-3) * (np.arange(512) + 0.5) / 512, atol=1 / 512)
    t, masked = map(np.asarray, draw_masks(jax.random.key(0), 512, 400, 1e-3))
    z = (masked.mean(1) - t) / np.sqrt(np.maximum(t * (1 - t), 1e-4) / 400)
    assert abs(z.mean()) < 0.2 and z.std() < 1.2


def test_the_prompt_is_never_masked(model, params, batch):
    seen = []

    class Recording(Model):
        def embed(self, params, ids):
            seen.append(np.asarray(ids))
            return super().embed(params, ids)

    prompt = np.where(batch.prompt_mask, model.config.mask_id, batch.prompt)  # a literal mask id is left alone too
    loss_fn(params, Recording(model.config), batch.replace(prompt=prompt), jax.random.key(1), 1e-3, None)
    answer, given = sorted(seen, key=lambda ids: ids.shape[1])
    np.testing.assert_array_equal(given, prompt)
    assert set(answer[answer != batch.answer]) == {model.config.mask_id}


# --- soft inputs


def soften(forward, canvas, masked, table, mask_id, *, count, r_f, top_p):
    """The canvas after each row's own number of forwards."""
    for depth in range(2):
        canvas = feed_back(forward(canvas), canvas, masked & (count > depth), table, mask_id, r_f=r_f, top_p=top_p)
    return canvas


@pytest.mark.parametrize("forwards", [1, 2])
def test_soft_inputs_are_what_the_decoder_feeds_back(model, params, batch, forwards):
    refine = lrd_jax.Refine(tau=0.0, max_steps=9)
    config = lrd_jax.DecodeConfig(gen_length=16, mix=lrd_jax.Mix(r_f=0.7, top_p=0.9), refine=refine)
    decode = make_decode(model, config)
    start = decode.start(params, jnp.asarray(batch.prompt), jnp.asarray(batch.prompt_mask))
    hard = np.array(start.soft)  # advancing consumes the start
    expected = decode.advance(params, start, forwards).soft
    masked = jnp.ones(batch.answer.shape, bool)
    got = soften(
        lambda canvas: canvas_logits(model, params, batch, canvas),
        model.embed(params, jnp.full(batch.answer.shape, model.config.mask_id)),
        masked,
        model.table(params),
        model.config.mask_id,
        count=jnp.full((4, 1), forwards),
        r_f=jnp.full((4, 1), 0.7),
        top_p=0.9,
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    assert float(jnp.max(jnp.abs(got - hard))) > 1e-3


def test_rows_without_forwards_and_committed_positions_stay(model, params, batch):
    canvas = model.embed(params, batch.answer)
    masked = jnp.arange(16) % 2 == jnp.zeros((4, 1), int)
    got = soften(
        lambda canvas: canvas_logits(model, params, batch, canvas),
        canvas,
        masked,
        model.table(params),
        model.config.mask_id,
        count=jnp.array([[0], [1], [2], [0]]),
        r_f=jnp.full((4, 1), 1.0),
        top_p=0.9,
    )
    changed = np.any(np.asarray(got != canvas), axis=-1)
    np.testing.assert_array_equal(changed, masked & np.array([[0], [1], [1], [0]], bool))


def test_feedback_is_drawn_per_row_in_its_range():
    count, r_f = draw_feedback(jax.random.key(0), 3000, SoftInputs(share=0.6, max_r_f=0.5))
    shares = np.bincount(np.asarray(count)[:, 0]) / 3000
    np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.04)
    np.testing.assert_allclose([r_f.min(), r_f.mean(), r_f.max()], [0, 0.25, 0.5], atol=0.02)


# --- data


def test_batches_are_a_function_of_seed_and_step(tokenizer, model):
    data = Data(tasks=("code",), buckets=(Bucket(prompt=24, canvas=16, batch=4), Bucket(prompt=24, canvas=32, batch=2)))
    first, again = (make_batches(data, tokenizer, 1, model.config) for _ in range(2))
    for step in (5, 0, 9):
        chex.assert_trees_all_equal(first(step), again(step), strict=True)
    assert not np.array_equal(first(0).answer, make_batches(data, tokenizer, 2, model.config)(0).answer)


def test_batches_hold_no_held_out_problem(tokenizer, model):
    everything = {p.prompt.lower(): held_out(p.prompt) for p in problems("words", "held-out", 0, 300, 1)}
    data = Data(tasks=("words",), buckets=(Bucket(prompt=24, canvas=16, batch=64),))
    for step in range(3):
        batch = make_batches(data, tokenizer, 0, model.config)(step)
        prompts = tokenizer.batch_decode([row[mask] for row, mask in zip(batch.prompt, batch.prompt_mask, strict=True)])
        assert not everything.keys() & {text.replace(" .", ".").replace(" ?", "?") for text in prompts}


def test_a_bucket_may_have_its_own_tasks(tokenizer, model):
    data = Data(tasks=("words",), buckets=(Bucket(prompt=4, canvas=2, batch=8, tasks=("sums",)),))
    batch = make_batches(data, tokenizer, 0, model.config)(0)
    for prompt, answer in zip(batch.prompt, batch.answer, strict=True):
        left, operation, right, _ = tokenizer.decode(prompt).split()
        assert eval(f"{left} {operation.replace('/', '//')} {right}") == int(tokenizer.decode(answer[:1]))


def test_answers_are_padded_with_end_of_text(tokenizer, model, tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "Tom has 2 pens.", "answer": "# 2"}\n')
    data = Data(jsonl=str(file), buckets=(Bucket(prompt=7, canvas=4, batch=1),))
    batch = make_batches(data, tokenizer, 0, model.config)(0)
    ids = tokenizer("Tom has 2 pens.")["input_ids"]
    np.testing.assert_array_equal(batch.prompt[0], [0] * (7 - len(ids)) + ids)
    np.testing.assert_array_equal(batch.prompt_mask[0], [False] * (7 - len(ids)) + [True] * len(ids))
    np.testing.assert_array_equal(batch.answer[0], [*tokenizer("# 2")["input_ids"], 0, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no pairs in"),
        ('{"prompt": "Tom", "answer": "1"}\n{"prompt": "Tom"}', "line 2: expected"),
        ("not json", "line 1: expected"),
        ('{"prompt": "Tom", "answer": ""}', "line 1: expected"),
        ('{"prompt": "Tom", "answer": "1 2 3 4 5 6 7 8 9"}', r"1 pairs fit no bucket, the first on line 1 \(1 \+ 9"),
    ],
)
def test_bad_files_are_refused_by_line(tokenizer, model, tmp_path, text, message):
    file = tmp_path / "pairs.jsonl"
    file.write_text(text)
    data = Data(jsonl=str(file), buckets=(Bucket(prompt=4, canvas=4, batch=1),))
    with pytest.raises(ValueError, match=message):
        make_batches(data, tokenizer, 0, model.config)


def test_buckets_longer_than_the_context_are_refused(tokenizer, model):
    data = Data(tasks=("code",), buckets=(Bucket(prompt=60, canvas=60, batch=1),))
    with pytest.raises(ValueError, match="prompt \\+ canvas = 120 exceeds the model's context of 64"):
        make_batches(data, tokenizer, 0, model.config)


def test_a_bucket_that_no_problem_fits_is_refused(tokenizer, model):
    data = Data(tasks=("words",), buckets=(Bucket(prompt=3, canvas=3, batch=1),))
    with pytest.raises(ValueError, match="hardly any problem of words fits"):
        make_batches(data, tokenizer, 0, model.config)(0)


# --- the loop


def weights(folder):
    return jax.tree.leaves(lrd_jax.load(folder).params)


def log_of(folder):
    return [(line["step"], line["loss"]) for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines())]


def test_a_killed_run_resumes_bit_for_bit(tmp_path, monkeypatch):
    soft = SoftInputs(share=0.5)
    whole = train(small_config(tmp_path / "whole", soft_inputs=soft))
    write = log.Log.write

    def killed_at_step_4(log, step):
        write(log, step)
        if step == 4:  # after the checkpoint of step 3, with a line that the resumed run has to drop
            raise KeyboardInterrupt

    monkeypatch.setattr(log.Log, "write", killed_at_step_4)
    with pytest.raises(KeyboardInterrupt):
        train(small_config(tmp_path / "killed", soft_inputs=soft))
    assert not (tmp_path / "killed/model").exists()
    monkeypatch.setattr(log.Log, "write", write)
    resumed = train(small_config(tmp_path / "killed", soft_inputs=soft))
    assert all(np.array_equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    assert [step for step, _ in log_of(tmp_path / "killed")] == [2, 4, 6]
    assert log_of(tmp_path / "whole")[-1] == log_of(tmp_path / "killed")[-1]


def test_another_run_is_not_resumed(tmp_path):
    train(small_config(tmp_path, steps=3))
    with pytest.raises(ValueError, match="is of another run \\(steps: 3 there, 4 asked for\\)"):
        train(small_config(tmp_path, steps=4))


def test_another_runs_field_is_named_and_nothing_else_is_said(tmp_path, capsys):
    data = Data(tasks=("words",), buckets=(BUCKET_OF_8,))
    train(small_config(tmp_path, data=data, steps=3))
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"\(data.tasks: \['words'\] there, \['code'\] asked for\); resume"):
        train(small_config(tmp_path, data=dataclasses.replace(data, tasks=("code",)), steps=3))
    assert capsys.readouterr().err == ""


def test_a_mesh_trains_as_one_device_does(tmp_path):
    folders = []
    for name, mesh in (("one", Mesh()), ("eight", Mesh(data=2, fsdp=4))):
        data = Data(tasks=("words",), buckets=(BUCKET_OF_8,))
        folders.append(train(small_config(tmp_path / name, data=data, mesh=mesh, steps=3)))
    for one, eight in zip(*map(weights, folders), strict=True):
        np.testing.assert_allclose(one, eight, rtol=1e-3, atol=1e-5)


def test_state_stays_where_it_was_placed(tokenizer, model, batch):
    mesh = make_mesh(data=2, fsdp=2)
    fixed = {"steps": 4, "seed": 0, "min_mask_ratio": 1e-3, "soft_inputs": None}
    start, step = make_step(model, Optimizer(peak_lr=1e-3, warmup_steps=1), mesh, **fixed)
    state = start(shard(model, model.init(jax.random.key(0)), mesh))
    moments = optax.tree_utils.tree_get(state.opt_state, "mu")
    assert jax.tree.map(lambda x: x.sharding, moments) == jax.tree.map(lambda x: x.sharding, state.params)
    assert len(state.params["table"].addressable_shards[0].data.ravel()) * 2 == state.params["table"].size
    before = jax.tree.map(lambda x: x.sharding, state)
    state, _ = step(state, shard_batch(batch, mesh))
    assert jax.tree.map(lambda x: x.sharding, state) == before


def test_eight_pairs_are_learned_by_heart(tmp_path):
    pairs = [{"prompt": p.prompt, "answer": p.answer} for p in problems("words", "train", 0, 8, 1)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    build_tokenizer((TASKS["words"],)).save_pretrained(tmp_path / "tokenizer")
    config = small_config(
        tmp_path / "run",
        steps=250,
        checkpoint_every=250,
        log_every=50,
        model=dataclasses.replace(SIZES, embed_dim=32, mlp_dim=64, tokenizer=str(tmp_path / "tokenizer")),
        data=Data(jsonl=str(tmp_path / "pairs.jsonl"), buckets=(Bucket(prompt=24, canvas=8, batch=32),)),
        optimizer=Optimizer(peak_lr=2e-2, warmup_steps=20),
    )
    loaded = lrd_jax.load(train(config))
    model, params, tokenizer = loaded.model, loaded.params, loaded.tokenizer
    decode = make_decode(model, lrd_jax.DecodeConfig(gen_length=8, mix=None, refine=None, stop=None))
    prompt, mask = lrd_jax.text.encode_prompts(tokenizer, [pair["prompt"] for pair in pairs], chat=False)
    tokens = decode(params, jnp.asarray(prompt), jnp.asarray(mask)).tokens
    assert lrd_jax.text.decode_text(tokenizer, tokens, model.config) == [pair["answer"] for pair in pairs]


def test_fine_tuning_starts_from_the_checkpoint(tmp_path):
    first = train(small_config(tmp_path / "first"))
    config = small_config(tmp_path / "second", init=str(first), model=None, dtype="bfloat16")
    params = starting_params(config, model_and_tokenizer(config)[0], make_mesh())
    assert all(np.array_equal(a, b) for a, b in zip(weights(first), jax.tree.leaves(params), strict=True))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(read_hf(train(config))[1])} == {"bfloat16"}


# --- configs

GOOD = recipe("run", steps=10, batch=4, warmup_steps=2, embed_dim=16)


def test_a_recipe_reads_as_a_config(tmp_path):
    (tmp_path / "c.toml").write_text(GOOD)
    config = read_config(tmp_path / "c.toml")
    assert config.data.buckets == (Bucket(prompt=32, canvas=20, batch=4),) and config.model.embed_dim == 16


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 10", "", "steps is missing"),
        ("steps = 10", "steps = 10\nstep = 1", "step is unknown; known: output, steps"),
        ("steps = 10", 'steps = "10"', "steps must be of type int, got '10'"),
        ("steps = 10", "steps = 0", "steps=0 must be positive"),
        ("steps = 10", "steps = 10\nmin_mask_ratio = 0", "min_mask_ratio=0.0 must be above 0"),
        ("steps = 10", 'steps = 10\ndtype = "int8"', "dtype='int8' must be one of bfloat16"),
        ("steps = 10", 'steps = 10\ninit = "x"', "set exactly one of init"),
        ("batch = 4", "batch = 4\nshare = -1", r"data.buckets\[0\].share=-1.0 must be positive"),
        ("prompt = 32", "", r"data.buckets\[0\].prompt is missing"),
        ("[[data.buckets]]", "[data.buckets]", "data.buckets must be a list"),
        ('["words"]', '["poems"]', "data.tasks: poems unknown; known: words, code, sudoku4, sudoku6, sums"),
        ('tasks = ["words"]', "", "data: set exactly one of jsonl and tasks"),
        ("peak_lr = 1e-3", "peak_lr = 1e-3\nb2 = 1.5", "optimizer.b2=1.5 must be in"),
        ("warmup_steps = 2", "warmup_steps = 10", "optimizer.warmup_steps=10 must be"),
        ("[optimizer]", "[mesh]\ndata = 3\n[optimizer]", r"data.buckets\[0\].batch=4 must divide over"),
        ("[optimizer]", "[soft_inputs]\nmax_r_f = 2\n[optimizer]", "soft_inputs.max_r_f=2.0 must be in"),
        ("batch = 4", 'batch = 4\ntasks = ["poems"]', "data.tasks: poems unknown"),
        ("[model]", "[model", "Expected"),
    ],
)
def test_a_bad_recipe_names_file_and_field(tmp_path, old, new, message):
    assert old in GOOD
    (tmp_path / "c.toml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"c.toml: .*{message}"):
        read_config(tmp_path / "c.toml")


def test_an_absent_recipe_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_config(tmp_path / "none.toml")
