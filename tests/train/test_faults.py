"""A run on the machine that users have: files cut short, disks full, losses not finite, two runs at once, bad data."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from goldens import GOLDEN
from small_run import recipe

from lrd_jax import cli
from lrd_jax.convert.reader import open_source
from lrd_jax.durable import open_alone
from lrd_jax.models import CHECKPOINTS, Model
from lrd_jax.sharding import make_mesh
from lrd_jax.tasks import TASKS
from lrd_jax.tasks.tokenizer import build_tokenizer
from lrd_jax.train import checkpoints, train, trainer
from lrd_jax.train.config import Bucket, Data, Optimizer, Scratch, TrainConfig
from lrd_jax.train.data import make_batches, read_pairs
from lrd_jax.train.memory import num_params
from lrd_jax.train.start import model_and_tokenizer
from lrd_jax.train.step import TrainState, abstract_state, make_optimizer

pytestmark = pytest.mark.slow  # whole trainings

SIZES = Scratch(num_layers=1, embed_dim=8, mlp_dim=16, num_heads=2, max_length=64)


def small_config(output, **changes):
    default = TrainConfig(
        output=str(output),
        steps=4,
        model=SIZES,
        data=Data(tasks=("words",), buckets=(Bucket(prompt=32, canvas=20, batch=2),)),
        optimizer=Optimizer(peak_lr=3e-3, warmup_steps=1),
        checkpoint_every=2,
        log_every=1,
        dtype="float32",
    )
    return dataclasses.replace(default, **changes)


@pytest.fixture(scope="module")
def start():
    """Model and tokenizer of `small_config`."""
    return model_and_tokenizer(small_config("run"))


@pytest.fixture(scope="module")
def model(start):
    return start[0]


@pytest.fixture(scope="module")
def tokenizer(start):
    return start[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that ended, with checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(small_config(folder))
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, to damage, without its model."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/model")
    return tmp_path / "run"


def same_models(a, b):
    return [path.read_bytes() for path in sorted(a.glob("model/model*"))] == [
        path.read_bytes() for path in sorted(b.glob("model/model*"))
    ]


# --- checkpoints


def restore(folder, config=None):
    config = config or small_config(folder)
    abstract = abstract_state(model_and_tokenizer(config)[0], config.optimizer, config.steps, make_mesh())
    return checkpoints.restore(folder, config, abstract)


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a bit of the weights": lambda c: flip(largest_file(c / "4")),
    "half of the weights": lambda c: largest_file(c / "4").write_bytes(largest_file(c / "4").read_bytes()[:100]),
    "no weights": lambda c: largest_file(c / "4").unlink(),
    "the manifest": lambda c: flip(c / "4/state/manifest.ocdbt"),
    "no metadata": lambda c: (c / "4/_CHECKPOINT_METADATA").unlink(),
    "no folder": lambda c: shutil.rmtree(c / "4"),
    "half of the hashes": lambda c: (c / "4.json").write_text((c / "4.json").read_text()[:50]),
    "hashes of another kind": lambda c: (c / "4.json").write_text('["sha256"]'),
    "no hashes in it": lambda c: (c / "4.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(run, damage, capsys):
    DAMAGE[damage](run / "checkpoints")
    assert int(restore(run).step) == 2
    note = capsys.readouterr().err
    assert note.count("\n") == 1 and "checkpoints/4 is damaged (" in note and "going on from step 2" in note


def test_a_run_whose_last_checkpoint_is_damaged_ends_as_it_had(finished, run):
    flip(largest_file(run / "checkpoints/4"))
    train(small_config(run))
    assert same_models(finished, run)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


def test_where_every_checkpoint_is_damaged_nothing_begins(run):
    for step in (2, 4):
        flip(largest_file(run / f"checkpoints/{step}"))
    before = sorted(run.rglob("*"))
    with pytest.raises(ValueError, match=r"4 is damaged \(.*2 is damaged \(.*none before it is left: delete .*anew"):
        train(small_config(run))
    assert sorted(run.rglob("*")) == before


def test_a_checkpoint_that_was_never_finished_is_passed_over(run, capsys):
    (run / "checkpoints/4.json").unlink()
    assert int(restore(run).step) == 2 and not capsys.readouterr().err
    (run / "checkpoints/2.json").unlink()
    assert restore(run) is None


def state_of(model, config, step):
    params = model.init(jax.random.key(step))
    opt_state = make_optimizer(config.optimizer, config.steps).init(params)
    return TrainState(params=params, opt_state=opt_state, step=jnp.int32(step))


def test_two_checkpoints_stay_and_files_of_others_too(model, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "7.orbax-checkpoint-tmp").mkdir()
    config = small_config(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, config, state_of(model, config, step))
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "2", "2.json", "3", "3.json"}
    restored = restore(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, restored.params, model.init(jax.random.key(3)))


def fail_as_orbax(path, tree):
    (path.parent / f"{path.name}.orbax-checkpoint-tmp").mkdir(parents=True)
    raise ValueError('RESOURCE_EXHAUSTED: Failed writing: "x": No space left on device [tensorstore_spec=...]')


@pytest.mark.parametrize(
    ("where", "name", "fake", "reason"),
    [
        (checkpoints.ocp, "save", fail_as_orbax, "no space is left on the device"),
        (checkpoints.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0), "it takes 0.0 MiB, and 0.0"),
        (checkpoints, "_hashes", lambda folder: (_ for _ in ()).throw(OSError("Input/output error")), "Input/output"),
    ],
)
def test_a_full_disk_is_one_message_and_leaves_the_checkpoint_before(
    model, tmp_path, monkeypatch, where, name, fake, reason
):
    config = small_config(tmp_path)
    checkpoints.save(tmp_path, config, state_of(model, config, 1))
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fake)
        with pytest.raises(ValueError, match=f"checkpoint of step 2 could not .*{reason}.* it goes on from step 1"):
            checkpoints.save(tmp_path, config, state_of(model, config, 2))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "1.json"}
    assert int(restore(tmp_path).step) == 1


def test_a_run_on_a_full_disk_begins_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(ValueError, match=r"output: .*run has no room for two checkpoints and the model: it takes"):
        train(small_config(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_a_model_that_does_not_fit_on_the_disk_is_written_by_the_same_command(run, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_hf", fail)
        with pytest.raises(ValueError, match=r"the model could not be written .*: no space is left .* from step 4"):
            train(small_config(run))
    assert (train(small_config(run)) / "config.json").exists()


# --- the log


@pytest.mark.parametrize("half", [b'{"step": 5, "lo', b"{", b"\xff\x00"])
def test_a_half_written_line_of_the_log_is_dropped(run, half):
    with (run / "log.jsonl").open("ab") as file:
        file.write(half)
    train(small_config(run))
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4]


@pytest.mark.parametrize("line", ["not a line", '{"loss": 1}', '{"step": "1"}', "[1]"])
def test_a_log_of_something_else_is_left_alone(run, line):
    text = f"{line}\n{(run / 'log.jsonl').read_text()}"
    (run / "log.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"log\.jsonl, line 1 is no line of a log; take it out"):
        train(small_config(run))
    assert (run / "log.jsonl").read_text() == text


def test_two_runs_do_not_write_at_one_output(run):
    before = (run / "log.jsonl").read_bytes()
    with (
        open_alone(run / "log.jsonl"),
        pytest.raises(ValueError, match=r"log\.jsonl is being written by another run; wait for it, or stop it"),
    ):
        train(small_config(run))
    assert (run / "log.jsonl").read_bytes() == before


# --- losses


def test_a_loss_that_is_not_finite_stops_the_run_at_the_last_good_checkpoint(tmp_path):
    config = small_config(tmp_path / "run", checkpoint_every=1, optimizer=Optimizer(peak_lr=3e38, warmup_steps=1))
    for _ in range(2):  # the second time from the checkpoint
        with pytest.raises(
            ValueError, match=r"of step \d is not finite: .*checkpoints/[12] is its last.*lower optimizer"
        ):
            train(config)
        assert not (tmp_path / "run/model").exists()
    assert checkpoints.newest(tmp_path / "run") in (1, 2)
    state = restore(tmp_path / "run", config)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_a_run_without_a_checkpoint_that_diverges_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.Log, "first_not_finite", lambda log, step: (step, "the loss"))
    with pytest.raises(ValueError, match=r"the loss of step 1 is not finite: .*there is no checkpoint of it"):
        train(small_config(tmp_path / "a/run"))
    assert not list(tmp_path.iterdir())


# --- what is refused before anything is written


def lines(*pairs):
    return "\n".join(json.dumps({"prompt": prompt, "answer": answer}) for prompt, answer in pairs).encode()


GOOD_PAIR = ("Tom has 2 pens.", "# 2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines(GOOD_PAIR, ("Tom has 2 zebras.", "# 2")), "line 2: the tokenizer does not know 'zebras'"),
        (lines(("Tom has 2 pens.", "zebra 99 zebra")), "line 1: the tokenizer does not know 'zebra', '99'$"),
        (lines(GOOD_PAIR, (" \n ", "# 2")), "line 2: the prompt is empty"),
        (lines(GOOD_PAIR, ("Tom has 2 pens.", "  ")), "line 2: the answer is empty"),
        (lines(("Tom has 2 pens.", "# <|mdm_mask|>")), "line 1: the answer holds the mask token '<|mdm_mask|>'"),
        (lines(("Tom has 2 pens. \ud800", "# 2")), "line 1: expected"),
        (lines(GOOD_PAIR) + b'\n{"prompt": "\xff"}', "line 2: byte 0xff is not UTF-8; write the file in UTF-8"),
        (lines(GOOD_PAIR).decode().encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
        (lines(GOOD_PAIR) + b"\n\n" + lines(GOOD_PAIR), "line 2: expected"),
        (b"[" * 100_000, "line 1: expected"),
        (lines(GOOD_PAIR, ("Tom has 2 pens. " * 9, "# 2")), r"1 pairs fit no bucket, the first on line 2 \(45 \+ 2"),
    ],
)
def test_lines_that_cannot_be_meant_are_named(tokenizer, model, tmp_path, content, message):
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(content)
    data = Data(jsonl=str(file), buckets=(Bucket(prompt=16, canvas=8, batch=1),))
    with pytest.raises(ValueError, match=message):
        make_batches(data, tokenizer, 0, model.config)


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\u0085", "\x0c", "\x1c", "\r"])
def test_only_a_line_feed_ends_a_line(tmp_path, inside):
    pair = (f"a{inside}b", f"c{inside}d")
    text = json.dumps(dict(zip(("prompt", "answer"), pair, strict=True)), ensure_ascii=False)
    (tmp_path / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{text}\r\n{text}\n".encode())
    assert read_pairs(tmp_path / "p.jsonl") == [pair, pair]


def test_a_tokenizer_without_the_words_of_the_tasks_is_refused_before_the_first_step(model, tmp_path):
    sums = build_tokenizer((TASKS["code"],))
    data = Data(tasks=("words",), buckets=(Bucket(prompt=32, canvas=20, batch=4),))
    with pytest.raises(ValueError, match="the tokenizer does not know '"):
        make_batches(data, sums, 0, model.config)


RECIPE = recipe("{root}/a/run", steps=2)
SCRATCH = RECIPE[RECIPE.index("[model]") : RECIPE.index("[data]")]
REFUSED = [
    # numbers that cannot be meant
    ("peak_lr = 1e-3", "peak_lr = inf", "optimizer.peak_lr=inf must be positive and finite"),
    ("peak_lr = 1e-3", "peak_lr = nan", "optimizer.peak_lr=nan must be positive"),
    ("peak_lr = 1e-3", "peak_lr = -1", "optimizer.peak_lr=-1.0 must be positive"),
    ("peak_lr = 1e-3", "peak_lr = 1e-3\nweight_decay = nan", "optimizer.weight_decay=nan must be 0 or positive"),
    ("peak_lr = 1e-3", "peak_lr = 1e-3\nweight_decay = -0.1", "optimizer.weight_decay=-0.1 must be 0 or positive"),
    ("peak_lr = 1e-3", "peak_lr = 1e-3\nweight_decay = inf", "optimizer.weight_decay=inf must be 0 or positive"),
    ("peak_lr = 1e-3", "peak_lr = 1e-3\nb2 = 1", "optimizer.b2=1.0 must be in [0, 1)"),
    ("peak_lr = 1e-3", "peak_lr = 1e-3\nb2 = nan", "optimizer.b2=nan must be in [0, 1)"),
    ("peak_lr = 1e-3", "peak_lr = 1e-3\nclip_norm = inf", "optimizer.clip_norm=inf must be positive and finite"),
    ("warmup_steps = 1", "warmup_steps = -1", "optimizer.warmup_steps=-1 must be from 0 to below steps"),
    ("steps = 2", "steps = 2\nseed = -1", "seed=-1 must be from 0 to 4294967295"),
    ("steps = 2", "steps = 2\nseed = 4294967296", "seed=4294967296 must be from 0 to 4294967295"),
    ("steps = 2", "steps = 2147483648", "steps=2147483648 must be at most 2147483647"),
    ("steps = 2", "steps = true", "steps must be of type int, got True"),
    ("steps = 2", "steps = 2\nmin_mask_ratio = nan", "min_mask_ratio=nan must be above 0"),
    ("batch = 2", "batch = 2\nshare = inf", "data.buckets[0].share=inf must be positive and finite"),
    ("batch = 2", "batch = 0", "data.buckets[0].batch=0 must be positive"),
    ("[optimizer]", "[soft_inputs]\nmin_r_f = 0.7\nmax_r_f = 0.5\n[optimizer]", "soft_inputs.min_r_f=0.7 must be at"),
    ("[optimizer]", "[soft_inputs]\nall_masked = nan\n[optimizer]", "soft_inputs.all_masked=nan must be in [0, 1]"),
    ("[optimizer]", "[soft_inputs]\nrefinements = 0\n[optimizer]", "soft_inputs.refinements=0 must be from 1"),
    ("warmup_steps = 1", "[[optimizer.restarts]]\nstep = 1\npeak_lr = inf", "optimizer.restarts[0].peak_lr=inf"),
    ("warmup_steps = 1", "warmup_steps = 1\n[[optimizer.restarts]]\nstep = 1\npeak_lr = 1", "from step 0 to 1 there"),
    # sizes
    ("embed_dim = 8", "embed_dim = 9", "model.embed_dim=9 must be num_heads=2 times an even head dimension"),
    ("num_heads = 2", "num_heads = 3", "model.embed_dim=8 must be num_heads=3 times an even head dimension"),
    ("embed_dim = 8", "embed_dim = 2000000000", "training needs at least"),
    ("num_layers = 1", "num_layers = 1000000000000", "num_layers=1000000000000 must be at most 4096"),
    ("mlp_dim = 16", "mlp_dim = 2000000000", "are available: choose smaller sizes"),
    ("batch = 2", "batch = 1000000000", "for a batch of 1000000000 x (32 + 20) tokens"),
    ("canvas = 20", "canvas = 200", "prompt + canvas = 232 exceeds the model's context of 64"),
    ("canvas = 20", "canvas = 2", "hardly any problem of words fits"),
    ("[optimizer]", "[mesh]\ntensor = 64\n[optimizer]", "needs 64 devices"),
    ("[optimizer]", "[mesh]\ntensor = 4\n[optimizer]", "does not divide"),
    # files
    ("{root}/a/run", "", "output='' is no name of a file"),
    ("{root}/a/run", "a\\u0000b", "output='a\\x00b' is no name of a file"),
    ("{root}/a/run", "{root}/recipe.toml", "recipe.toml is a file; name a folder"),
    ("{root}/a/run", "{root}/recipe.toml/run", "recipe.toml is a file; name a folder"),
    ("max_length = 64", 'max_length = 64\ntokenizer = "{root}/none"', "model.tokenizer: {root}/none is no folder"),
    ("max_length = 64", 'max_length = 64\ntokenizer = "{root}/bad"', "model.tokenizer: the tokenizer in {root}/bad"),
    (SCRATCH, "[mesh]\n", "set exactly one of init"),
    ('tasks = ["words"]', 'jsonl = "{root}/none.jsonl"', "model.tokenizer: a new model on jsonl data needs"),
]
WITH_INIT = [
    ('"nowhere"', 'tasks = ["words"]', "there is no model 'nowhere'"),
    ('"{root}/recipe.toml"', 'tasks = ["words"]', "there is no model '{root}/recipe.toml'"),
    ('"{root}/bad"', 'tasks = ["words"]', "is not a checkpoint that can be converted"),
    ('"lrd-tiny"', 'jsonl = "{root}/none.jsonl"', "data.jsonl: no file {root}/none.jsonl"),
    ('"lrd-tiny"', 'jsonl = "{root}/latin.jsonl"', "latin.jsonl, line 1: byte 0xe9 is not UTF-8"),
    ('"lrd-tiny"', 'jsonl = "{root}/bad"', "data.jsonl: no file {root}/bad"),
    ('"lrd-tiny"', 'tasks = ["words"]\nchat = true', "the model has no chat template"),
]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [(RECIPE.replace(old, new, 1), message) for old, new, message in REFUSED]
    + [
        ("init = " + init + RECIPE.replace(SCRATCH, "").replace('tasks = ["words"]', data), message)
        for init, data, message in WITH_INIT
    ],
)
def test_what_cannot_be_trained_is_one_message_and_nothing_is_written(tmp_path, capsys, monkeypatch, recipe, message):
    monkeypatch.setattr("lrd_jax.cli.train.use_compile_cache", lambda: None)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/tokenizer.json").write_text("{}")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9", "answer": "1"}')
    (tmp_path / "recipe.toml").write_text(recipe.replace("{root}", str(tmp_path)))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", str(tmp_path / "recipe.toml")]) == cli.USER_ERROR
    err = capsys.readouterr().err
    assert message.replace("{root}", str(tmp_path)) in err and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_that_is_there_already_is_not_written_over(tmp_path):
    (tmp_path / "run/model").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"output: .*model is there already, of no run to go on with"):
        train(small_config(tmp_path / "run"))


def test_a_run_writes_nothing_into_a_model(finished, tmp_path):
    model = shutil.copytree(finished / "model", tmp_path / "m0")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"output: .*m0 holds files, and none of a run; name a new or an empty folder"):
        train(small_config(model))
    for output in (model / "x", model / "deeper/x"):
        with pytest.raises(ValueError, match=r"would lie inside .*m0, which it is made from"):
            train(small_config(output, init=str(model), model=None))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("left", ["log.jsonl", "checkpoints"])
def test_a_run_goes_on_from_what_is_left_of_it(run, left):
    other = {"log.jsonl": "checkpoints", "checkpoints": "log.jsonl"}[left]
    shutil.rmtree(run / other) if other == "checkpoints" else (run / other).unlink()
    (run / "notes.txt").write_text("mine")
    assert train(small_config(run)) == run / "model" and (run / "model/config.json").is_file()


@pytest.mark.parametrize(
    "change", [{"steps": np.int64(4)}, {"seed": None}, {"data": {}}, {"optimizer": 1}, {"steps": 4.0}]
)
def test_configs_made_in_code_are_checked_too(tmp_path, change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} must be of type"):
        small_config(tmp_path, **change)


def test_parameters_are_counted_as_they_are_made():
    configs = [open_source(GOLDEN / name).config for name in ("tiny-llada", "tiny-llada-gqa", "tiny-dream")]
    configs += [checkpoint.config for checkpoint in CHECKPOINTS.values()]
    for config in configs:
        made = sum(leaf.size for leaf in jax.tree.leaves(Model(config).abstract_params()))
        assert num_params(config) == made
