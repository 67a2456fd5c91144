"""Adapters: their gradient against a slow twin, what a run keeps and writes, both families, meshes, refusals."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from goldens import GOLDEN
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import lrd_jax
from lrd_jax import cli
from lrd_jax.convert import convert, read_hf
from lrd_jax.convert.adapters import read_info
from lrd_jax.convert.safetensors_io import read_header
from lrd_jax.convert.weights import fingerprint
from lrd_jax.decoding.loop import make_decode
from lrd_jax.models import CHECKPOINTS
from lrd_jax.sharding import make_mesh, param_shardings
from lrd_jax.train import log, train
from lrd_jax.train.config import MATRICES, Bucket, Data, Lora, Mesh, Optimizer, SoftInputs, TrainConfig
from lrd_jax.train.data import make_batches
from lrd_jax.train.lora import abstract_adapters, adapted, fresh_adapters, num_adapted, require_rank
from lrd_jax.train.loss import loss_fn
from lrd_jax.train.memory import require_memory
from lrd_jax.train.network import TrainedModel
from lrd_jax.train.start import frozen_params, held_dtype, model_and_tokenizer
from lrd_jax.train.step import abstract_state, make_step

pytestmark = pytest.mark.slow

FAMILIES = ("tiny-llada", "tiny-dream")
LORA = Lora(rank=3, alpha=6.0)
KINDS = {
    "plain": None,
    "soft inputs": SoftInputs(share=0.7),
    "through": SoftInputs(through=True, every_depth=True, min_r_f=0.5, all_masked=0.4),
}


def write_tokenizer(folder, size=384, eos=382, mask=380, bos=381):
    """One token a byte, and fillers up to the vocabulary of the tiny checkpoints."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces += [f"<|{i}|>" for i in range(len(pieces), size)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(pieces[i], special=True) for i in (eos, mask, bos)])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Family -> the path of a tiny checkpoint with a tokenizer."""
    root = tmp_path_factory.mktemp("bases")
    for name in (*FAMILIES, "tiny-llada-bf16"):
        shutil.copytree(GOLDEN / name, root / name)
        write_tokenizer(root / name)
    pairs = [{"prompt": f"{i} + {i} =", "answer": str(2 * i)} for i in range(8)]
    (root / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return root


def small_config(bases, output, family="tiny-llada", **changes):
    default = TrainConfig(
        output=str(output),
        steps=4,
        init=str(bases / family),
        data=Data(jsonl=str(bases / "pairs.jsonl"), buckets=(Bucket(prompt=8, canvas=4, batch=8),)),
        optimizer=Optimizer(peak_lr=1e-2, warmup_steps=1),
        lora=LORA,
        checkpoint_every=2,
        log_every=1,
        dtype="float32",
    )
    return dataclasses.replace(default, **changes)


@pytest.fixture(scope="module", params=FAMILIES)
def start(bases, request):
    """Model, parameters, adapters that are none of zero, and a batch."""
    config = small_config(bases, "run", request.param)
    model, tokenizer = model_and_tokenizer(config)
    params = frozen_params(config, make_mesh())
    adapters = fresh_adapters(model, LORA, make_mesh(), 0)
    keys = iter(jax.random.split(jax.random.key(1), 99))
    moved = jax.tree.map(lambda x: x + 0.02 * jax.random.normal(next(keys), x.shape), adapters)
    return model, params, moved, make_batches(config.data, tokenizer, 0, model.config)(0)


def summed(params, adapters, scale):
    """The slow twin's parameters: every adapted matrix as a sum, by einsum."""
    blocks = dict(params["blocks"])
    for name, factors in adapters["blocks"].items():
        sides = (
            "lNHr,lrD->lNHD"
            if name == "out"
            else f"lIr,lr{'OP'[: blocks[name].ndim - 2]}->lI{'OP'[: blocks[name].ndim - 2]}"
        )
        blocks[name] = blocks[name] + scale * jnp.einsum(sides, factors["a"], factors["b"])
    return params | {"blocks": blocks}


def flat(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


# --- the numbers


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_equal_full_tuning_in_the_low_rank_subspace(start, kind):
    model, params, adapters, batch = start
    key, soft = jax.random.key(3), KINDS[kind]

    def loss(adapters, join):
        return loss_fn(join(adapters), model, batch, key, 1e-3, soft)

    both = [
        jax.jit(jax.value_and_grad(lambda x, join=join: loss(x, join)))(adapters)
        for join in (lambda x: adapted(params, x, LORA), lambda x: summed(params, x, LORA.alpha / LORA.rank))
    ]
    (got, gradient), (wanted, twin) = both
    np.testing.assert_allclose(got, wanted, rtol=2e-5)
    for name, leaf in flat(gradient).items():
        largest = float(jnp.max(jnp.abs(flat(twin)[name])))
        assert largest > 0, name
        np.testing.assert_allclose(leaf, flat(twin)[name], atol=2e-3 * largest, err_msg=name)


def test_fresh_adapters_change_nothing(start):
    model, params, _, batch = start
    fresh = fresh_adapters(model, LORA, make_mesh(), 5)
    assert all(not np.any(factors["b"]) and np.any(factors["a"]) for factors in fresh["blocks"].values())
    embeddings = model.embed(params, batch.prompt)
    positions = jnp.broadcast_to(jnp.arange(8), batch.prompt.shape)
    plain, beside = (
        model.hidden(p, embeddings, positions, batch.prompt_mask) for p in (params, adapted(params, fresh, LORA))
    )
    np.testing.assert_array_equal(plain, beside)


def test_computing_again_changes_no_gradient(start):
    model, params, adapters, batch = start

    def gradient(again):
        network = TrainedModel(model.config, make_mesh(), again)
        soft = dataclasses.replace(KINDS["through"], remat=again)
        loss = jax.grad(lambda x: loss_fn(adapted(params, x, LORA), network, batch, jax.random.key(2), 1e-3, soft))
        compiled = jax.jit(loss).lower(adapters).compile()
        return compiled.memory_analysis().temp_size_in_bytes, compiled(adapters)

    (all_kept, once), (inputs_kept, again) = gradient(False), gradient(True)
    assert inputs_kept < all_kept
    for one, other in zip(*map(jax.tree.leaves, (once, again)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_only_adapters_are_trained_and_the_base_keeps_its_dtype(bases):
    config = small_config(bases, "run", "tiny-llada-bf16", lora=dataclasses.replace(LORA, matrices=("q", "down")))
    model, tokenizer = model_and_tokenizer(config)
    mesh = make_mesh()
    frozen = frozen_params(config, mesh)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(frozen)} == {held_dtype(config)} == {"bfloat16"}
    fixed = {"steps": 4, "seed": 0, "min_mask_ratio": 1e-3, "soft_inputs": KINDS["through"], "lora": config.lora}
    begin, step = make_step(model, config.optimizer, mesh, **fixed)
    state = begin(fresh_adapters(model, config.lora, mesh, 0))
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]
    batch = make_batches(config.data, tokenizer, 0, model.config)(0)
    for _ in range(2):  # at the first the rate is 0
        state, loss = step(state, batch, frozen)
    assert np.isfinite(loss)
    moments = optax.tree_utils.tree_get(state.opt_state, "mu")
    assert jax.tree.structure(moments) == jax.tree.structure(state.params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
    assert set(state.params["blocks"]) == {"q", "down"}
    after = jax.tree.leaves(state.params)
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_adapters_are_counted_as_they_are_made(start):
    model = start[0]
    for lora in (LORA, Lora(rank=1, matrices=("k", "out"))):
        made = abstract_adapters(model, lora, make_mesh())
        assert num_adapted(model.config, lora) == sum(leaf.size for leaf in jax.tree.leaves(made))


def test_memory_is_that_of_a_frozen_model(bases, monkeypatch):
    mesh = make_mesh()
    model = CHECKPOINTS["llada-8b-base"].config
    config = small_config(bases, "run", lora=Lora(rank=16))
    monkeypatch.setattr("lrd_jax.train.memory._available", lambda device: 20 * 2**30)
    require_memory(config, model, mesh, itemsize=2)
    with pytest.raises(ValueError, match=r"8,015,581,184 frozen parameters and 41,943,040 of adapters with"):
        require_memory(config, model, mesh, itemsize=4)
    with pytest.raises(ValueError, match=r"GiB for 8,015,581,184 parameters with gradients"):
        require_memory(dataclasses.replace(config, lora=None), model, mesh)


# --- a mesh


def test_adapters_lie_as_their_matrices_do(bases):
    config = small_config(bases, "run")
    model, _ = model_and_tokenizer(config)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    kernels = param_shardings(model, mesh)["blocks"]
    state = abstract_state(model, config.optimizer, 4, mesh, lora=LORA)
    for name, factors in state.params["blocks"].items():
        spec, cut = tuple(kernels[name].spec), 3 if name == "out" else 2
        assert tuple(factors["a"].sharding.spec) == (*spec[:cut], None)
        assert tuple(factors["b"].sharding.spec) == (spec[0], None, *spec[cut:])
    moments = optax.tree_utils.tree_get(state.opt_state, "nu")
    assert jax.tree.map(lambda x: x.sharding, moments) == jax.tree.map(lambda x: x.sharding, state.params)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mesh_trains_as_one_device_does(bases, tmp_path, family):
    folders = []
    for name, mesh in (("one", Mesh()), ("eight", Mesh(data=2, fsdp=2, tensor=2))):
        lora = dataclasses.replace(LORA, merge=False)
        folders.append(train(small_config(bases, tmp_path / name, family, mesh=mesh, lora=lora, steps=3)))
    one, eight = (read_header(folder / "adapter.safetensors") for folder in folders)
    for name in one:
        rows = slice(0, one[name].shape[0])
        np.testing.assert_allclose(one[name].read_rows(rows), eight[name].read_rows(rows), rtol=1e-3, atol=2e-5)


# --- a run


@pytest.fixture(scope="module", params=FAMILIES)
def apart(bases, tmp_path_factory, request):
    """The base and the output of a run that ended, its adapters kept apart."""
    output = tmp_path_factory.mktemp("apart") / "run"
    train(small_config(bases, output, request.param, lora=dataclasses.replace(LORA, merge=False)))
    return bases / request.param, output


def leaves(loaded):
    return jax.tree.leaves(loaded.params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_is_what_apart_loads_as(bases, apart, tmp_path, dtype):
    base, output = apart
    merged = train(small_config(bases, tmp_path, base.name, dtype=dtype))
    one, other = lrd_jax.load(merged, dtype=dtype), lrd_jax.load(output / "model", dtype=dtype)
    assert one.config == other.config and other.tokenizer is not None
    for got, wanted in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_array_equal(got, wanted)
    if dtype == "float32":
        _, stored = read_hf(base)
        factors = {name: read_factors(output / "model", name) for name in MATRICES}
        for name, (a, b) in factors.items():
            kernel = stored["blocks"][name]
            wanted = kernel + 2.0 * np.einsum("lir,lro->lio", a, b).reshape(kernel.shape)
            np.testing.assert_allclose(one.params["blocks"][name], wanted, rtol=1e-5, atol=1e-7)
            assert not np.array_equal(one.params["blocks"][name], kernel)
        np.testing.assert_array_equal(one.params["table"], stored["table"])


def read_factors(folder, name):
    """A `[layers, in, r]` and B `[layers, r, out]` of a matrix, from the files by the names of the hub."""
    hub = {
        "tiny-llada": ("blocks", "q_proj k_proj v_proj attn_out ff_proj up_proj ff_out"),
        "tiny-dream": (
            "layers",
            "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj "
            "mlp.gate_proj mlp.up_proj mlp.down_proj",
        ),
    }
    entries = read_header(folder / "adapter.safetensors")
    family = "tiny-dream" if any("layers" in entry for entry in entries) else "tiny-llada"
    stack, names = hub[family]
    module = dict(zip(MATRICES, names.split(), strict=True))[name]
    found = {}
    for kind in "AB":
        of_kind = [entry for entry in sorted(entries) if f".{module}.lora_{kind}" in entry and f"{stack}." in entry]
        found[kind] = np.stack([entries[e].read_rows(slice(0, entries[e].shape[0])).T for e in of_kind])
    return found["A"], found["B"]


def test_a_run_of_adapters_keeps_adapters_alone(apart):
    base, output = apart
    info = read_info(output / "model")
    assert (info.base, info.rank, info.alpha) == (str(base), 3, 6.0) and info.fingerprint == fingerprint(base)
    assert sorted(path.name for path in (output / "model").iterdir()) == ["adapter.json", "adapter.safetensors"]
    written = json.loads((output / "checkpoints/4.json").read_text())
    assert written["base"] == info.fingerprint and written["train_config"]["init"] == str(base)
    arrays = sum(path.stat().st_size for path in (output / "checkpoints/4").rglob("*") if path.is_file())
    weights = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    assert arrays < weights
    loss = [json.loads(line)["loss"] for line in (output / "log.jsonl").read_text().splitlines()]
    assert len(loss) == 4 and np.all(np.isfinite(loss))


def test_an_adapter_folder_decodes(apart):
    _, output = apart
    loaded = lrd_jax.load(output / "model")
    config = lrd_jax.DecodeConfig(gen_length=4, mix=None, refine=None, stop=None)
    prompt, mask = lrd_jax.text.encode_prompts(loaded.tokenizer, ["2 + 2 ="], chat=False)
    tokens = make_decode(loaded.model, config)(loaded.params, jnp.asarray(prompt), jnp.asarray(mask)).tokens
    assert tokens.shape == (1, 4)


def test_an_adapter_loads_onto_a_mesh(apart):
    _, output = apart
    one = lrd_jax.load(output / "model")
    eight = lrd_jax.load(output / "model", make_mesh(data=2, fsdp=2, tensor=2))
    for got, wanted in zip(leaves(eight), leaves(one), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-8)


def test_a_converted_base_has_the_fingerprint_of_its_source(apart, tmp_path):
    base, output = apart
    convert(base, tmp_path / "converted")
    assert fingerprint(tmp_path / "converted") == fingerprint(base)
    shutil.copytree(output / "model", tmp_path / "adapter")
    told = json.loads((tmp_path / "adapter/adapter.json").read_text())
    (tmp_path / "adapter/adapter.json").write_text(json.dumps(told | {"base": str(tmp_path / "converted")}))
    for got, wanted in zip(
        leaves(lrd_jax.load(tmp_path / "adapter")), leaves(lrd_jax.load(output / "model")), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_a_killed_run_resumes_bit_for_bit(bases, tmp_path, monkeypatch):
    config = small_config(bases, tmp_path / "whole", soft_inputs=KINDS["through"])
    whole = train(config)
    write = log.Log.write

    def killed_at_step_3(log, step):
        write(log, step)
        if step == 3:
            raise KeyboardInterrupt

    killed = dataclasses.replace(config, output=str(tmp_path / "killed"))
    monkeypatch.setattr(log.Log, "write", killed_at_step_3)
    with pytest.raises(KeyboardInterrupt):
        train(killed)
    monkeypatch.setattr(log.Log, "write", write)
    resumed = train(killed)
    for one, other in zip(leaves(lrd_jax.load(whole)), leaves(lrd_jax.load(resumed)), strict=True):
        np.testing.assert_array_equal(one, other)


# --- what is refused


@pytest.fixture
def moved(bases, apart, tmp_path):
    """A copy of a base, and of the run beside it, whose files name the copy."""
    base, output = apart
    shutil.copytree(base, tmp_path / "base")
    shutil.copytree(output, tmp_path / "run")
    for file in (tmp_path / "run/model/adapter.json", *(tmp_path / "run/checkpoints").glob("*.json")):
        file.write_text(file.read_text().replace(str(base), str(tmp_path / "base")))
    return tmp_path / "base", tmp_path / "run"


def flip(base):
    """Changes one bit of a weight."""
    file = sorted(base.glob("*.safetensors"))[0]
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def test_an_adapter_of_another_base_is_refused(moved):
    base, run = moved
    lrd_jax.load(run / "model")
    flip(base)
    with pytest.raises(ValueError, match=r"is an adapter of other weights than those in .*base:(.|\n)*adapter.json"):
        lrd_jax.load(run / "model")


def test_an_adapter_without_its_base_is_refused(moved):
    base, run = moved
    base.rename(base.with_name("elsewhere"))
    with pytest.raises(ValueError, match=r"is an adapter of .*base, which is not there:(.|\n)*\"base\""):
        lrd_jax.load(run / "model")


def test_a_run_whose_base_changed_is_not_resumed(bases, moved):
    base, run = moved
    shutil.rmtree(run / "model")
    config = small_config(bases, run, lora=dataclasses.replace(LORA, merge=False), init=str(base))
    flip(base)
    before = sorted(run.rglob("*"))
    with pytest.raises(ValueError, match="checkpoints/4 stands beside other weights than those in init="):
        train(config)
    base.rename(base.with_name("elsewhere"))
    with pytest.raises(ValueError, match="there is no model"):
        train(config)
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: (model / "adapter.json").write_text("{"), "holds no adapter that this release reads"),
        (lambda model: (model / "adapter.json").write_text('{"format": "peft"}'), "holds no adapter"),
        (lambda model: (model / "adapter.safetensors").unlink(), "adapter.safetensors is absent"),
        (lambda model: cut(model / "adapter.safetensors"), "cannot read"),
        (
            lambda model: (model / "adapter.json").write_text(
                (model / "adapter.json").read_text().replace('"rank": 3', '"rank": 4')
            ),
            r"lora_A.weight: got \('F32', \(3, ",
        ),
    ],
)
def test_damaged_adapters_are_refused(moved, change, message):
    change(moved[1] / "model")
    with pytest.raises(ValueError, match=message):
        lrd_jax.load(moved[1] / "model")


def cut(file):
    file.write_bytes(file.read_bytes()[:-9])


RECIPE = """
output = "{root}/run"
init = "{base}"
steps = 2
[data]
jsonl = "{pairs}"
[[data.buckets]]
prompt = 8
canvas = 4
batch = 2
[optimizer]
peak_lr = 1e-3
warmup_steps = 1
[lora]
rank = 2
"""
SIZES = "[model]\nnum_layers = 1\nembed_dim = 8\nmlp_dim = 16\nnum_heads = 2\nmax_length = 64\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rank = 2", "rank = 0", "lora.rank=0 must be positive"),
        ("rank = 2", "rank = -1", "lora.rank=-1 must be positive"),
        ("rank = 2", "rank = 2.5", "lora.rank must be of type int, got 2.5"),
        ("rank = 2", "rank = 65", "lora.rank=65 is above the smaller side of q (64), k (64)"),
        ("rank = 2", "alpha = 0", "lora.alpha=0.0 must be positive"),
        ("rank = 2", "alpha = inf", "lora.alpha=inf must be positive and finite"),
        ("rank = 2", 'matrices = ["q", "wq"]', "lora.matrices: 'wq' unknown; known: q, k, v, out, gate, up, down"),
        ("rank = 2", "matrices = []", "lora.matrices=[] must name each matrix once, and at least one"),
        ("rank = 2", 'matrices = ["q", "q"]', "lora.matrices=['q', 'q'] must name each matrix once"),
        ("rank = 2", "merge = 1", "lora.merge must be of type bool, got 1"),
        ("rank = 2", "r = 2", "lora.r is unknown; known: rank, alpha, matrices, merge"),
        ('init = "{base}"', "", "lora: adapters need a checkpoint to stand beside: set init, not [model]"),
        ("{base}", "{base}-gone", "there is no model '{base}-gone'"),
    ],
)
def test_what_cannot_be_adapted_is_one_message_and_nothing_is_written(
    bases, tmp_path, capsys, monkeypatch, old, new, message
):
    monkeypatch.setattr("lrd_jax.cli.train.use_compile_cache", lambda: None)
    recipe = RECIPE.replace(old, new, 1) + ("" if "init" in RECIPE.replace(old, new, 1) else SIZES)
    told = {"{root}": tmp_path, "{base}": bases / "tiny-llada", "{pairs}": bases / "pairs.jsonl"}
    for name, value in told.items():
        recipe, message = recipe.replace(name, str(value)), message.replace(name, str(value))
    (tmp_path / "recipe.toml").write_text(recipe)
    assert cli.main(["train", str(tmp_path / "recipe.toml")]) == cli.USER_ERROR
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_a_rank_as_large_as_the_matrix_is_taken(start):
    model = start[0]
    require_rank(model.config, Lora(rank=64, matrices=("q",)))
