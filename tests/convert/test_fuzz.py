"""What strangers feed: a safetensors reader that gives the source or nothing, and a config.json of anything."""

import json
import shutil

import goldens
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lrd_jax.convert import ConversionError
from lrd_jax.convert.reader import open_source
from lrd_jax.convert.safetensors_io import DTYPES, read_header
from lrd_jax.models import Model, ModelConfig

pytestmark = pytest.mark.slow

TINY = {name: json.loads((goldens.GOLDEN / name / "config.json").read_text()) for name in ("tiny-llada", "tiny-dream")}


def write_safetensors(file, header, data, text=None):
    text = json.dumps(header).encode() if text is None else text
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


# Files.

HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}
DATA = np.random.default_rng(0).bytes(32)


def changed(name, **fields):
    return HEADER | {name: HEADER[name] | fields}


NOT_SAFETENSORS = {
    "overlap": (changed("b", data_offsets=[20, 28]), DATA[:28], "b at bytes 20 to 28 overlaps a, which ends at 24"),
    "the same bytes": (changed("b", dtype="F32", shape=[2, 3], data_offsets=[0, 24]), DATA[:24], "overlaps"),
    "a gap": (changed("b", data_offsets=[28, 36]), DATA + bytes(4), "4 bytes between a and b belong to no tensor"),
    "a gap at the start": (
        {"a": HEADER["a"] | {"data_offsets": [8, 32]}},
        DATA,
        "8 bytes between the header and a belong to no tensor",
    ),
    "bytes after the end": (HEADER, DATA + b"x", "1 bytes after b belong to no tensor"),
    "beyond the file": (changed("b", data_offsets=[1 << 60, (1 << 60) + 8]), DATA, "truncated: the header promises"),
    "backwards": (changed("b", data_offsets=[32, 24]), DATA, "lies at bytes 32 to 24"),
    "offset no integer": (changed("b", data_offsets=[24.0, 32.0]), DATA, "is not that of a safetensors file"),
    "offset a flag": (changed("a", data_offsets=[False, 24]), DATA, "is not that of a safetensors file"),
    "three offsets": (changed("b", data_offsets=[24, 32, 32]), DATA, "is not that of a safetensors file"),
    "shape negative": (changed("b", shape=[-1, -4]), DATA, "b has shape [-1, -4]"),
    "shape a flag": (changed("b", shape=[True, 4]), DATA, "is not that of a safetensors file"),
    "shape a text": (changed("b", shape="4"), DATA, "is not that of a safetensors file"),
    "dtype no text": (changed("b", dtype=None), DATA, "is not that of a safetensors file"),
    "entry no object": (HEADER | {"b": [1]}, DATA, "is not that of a safetensors file"),
    "metadata no texts": (HEADER | {"__metadata__": {"format": 1}}, DATA, "__metadata__"),
    "metadata a list": (HEADER | {"__metadata__": ["pt"]}, DATA, "is not that of a safetensors file"),
    "header a list": ([1, 2], DATA, "is not that of a safetensors file"),
}


@pytest.mark.parametrize("case", NOT_SAFETENSORS)
def test_a_file_that_breaks_the_format_is_refused(tmp_path, case):
    header, data, words = NOT_SAFETENSORS[case]
    write_safetensors(tmp_path / "x.safetensors", header, data)
    with pytest.raises(ConversionError) as caught:
        read_header(tmp_path / "x.safetensors")
    assert words in str(caught.value)


NOT_JSON = {
    "a key twice": (b'{"a": 1, "a": 1}', "the key 'a' comes twice"),
    "nested deep": (b"[" * 200_000, "nested too deep"),
    "not UTF-8": (b'{"\xff": 1}', "utf-8"),
    "a number without end": (b'{"a": ' + b"9" * 10_000 + b"}", "is not that of a safetensors file"),
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_a_header_that_is_no_json_is_refused(tmp_path, case):
    text, words = NOT_JSON[case]
    write_safetensors(tmp_path / "x.safetensors", None, DATA, text)
    with pytest.raises(ConversionError) as caught:
        read_header(tmp_path / "x.safetensors")
    assert words in str(caught.value)


def test_a_header_larger_than_the_format_allows_is_not_read(tmp_path):
    file = tmp_path / "x.safetensors"
    with file.open("wb") as stream:
        stream.write((200_000_000).to_bytes(8, "little"))
        stream.truncate(300_000_000)  # sparse
    with pytest.raises(ConversionError, match="no whole header"):
        read_header(file)


@pytest.mark.parametrize("case", NOT_JSON)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_other_files_that_are_no_json_are_refused(tmp_path, name, case):
    folder = shutil.copytree(goldens.GOLDEN / "tiny-llada", tmp_path / "copy")
    folder.chmod(0o755)
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(NOT_JSON[case][0])
    with pytest.raises(ConversionError, match=name):
        open_source(folder)


@pytest.mark.parametrize("weight_map", [["x"], {"x": 3}, {"x": "../y.safetensors"}, {"x": "/etc/passwd"}, {"x": ""}, 7])
def test_an_index_of_other_things_than_files_here_is_refused(tmp_path, weight_map):
    folder = shutil.copytree(goldens.GOLDEN / "tiny-llada", tmp_path / "copy")
    folder.chmod(0o755)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ConversionError, match="is not an index of weights"):
        open_source(folder)


def test_an_empty_tensor_is_one(tmp_path):
    file = tmp_path / "x.safetensors"
    write_safetensors(file, HEADER | {"none": {"dtype": "F32", "shape": [0], "data_offsets": [24, 24]}}, DATA)
    assert read_header(file)["none"].shape == (0,)


@st.composite
def damages(draw):
    """A few flips anywhere, most of them in the header, and perhaps a cut or some bytes more."""
    flips = draw(
        st.lists(st.tuples(st.one_of(st.integers(0, 300), st.integers(0, 10**6)), st.integers(0, 7)), max_size=3)
    )
    return flips, draw(st.sampled_from([0, 0, 0, -1, -40, 1, 8]))


@given(damages())
@settings(max_examples=150)
def test_damaged_bytes_are_refused_or_read_as_the_format_says(tmp_path_factory, damage):
    flips, more = damage
    file = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    write_safetensors(file, HEADER, DATA)
    data = bytearray(file.read_bytes())
    for where, bit in flips:
        data[where % len(data)] ^= 1 << bit
    data = data + bytes(more) if more >= 0 else data[:more]
    file.write_bytes(data)
    try:
        entries = read_header(file)
        ours = {
            name: entry.read_rows(slice(0, entry.shape[0] if entry.shape else 1))
            for name, entry in entries.items()
            if entry.dtype in DTYPES
        }
    except ConversionError:
        return
    try:
        theirs = load_file(file)
    except (SafetensorError, KeyError, ValueError) as error:
        if all(entry.dtype in DTYPES for entry in entries.values()):  # others are refused with what they are of
            raise AssertionError(f"the library refuses it: {error}") from error
        return
    for name, array in ours.items():
        assert array.tobytes() == theirs[name].tobytes(), name


# config.json.

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 400),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@pytest.mark.parametrize("name", TINY)
@given(data=st.data())
@settings(max_examples=150)
def test_any_value_of_any_field_is_refused_or_works(name, data):
    fields = data.draw(st.lists(st.sampled_from(sorted(TINY[name])), min_size=1, max_size=3, unique=True))
    hf = TINY[name] | {field: data.draw(ANYTHING, label=field) for field in fields}
    try:
        config = ModelConfig.from_hf(hf)
    except ValueError as error:
        assert any(word in str(error) for word in (*fields, "vocabulary")), error
        return
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert np.isfinite([config.rope_theta, config.norm_eps]).all() and config.norm_eps > 0
    assert all(leaf.size > 0 for leaf in Model(config).abstract_params()["blocks"].values())


@pytest.mark.parametrize("field", [field for field in ModelConfig.__dataclass_fields__])
@given(value=ANYTHING)
@settings(max_examples=40)
def test_any_value_of_a_constructor_is_refused_or_works(field, value):
    fields = ModelConfig.from_hf(TINY["tiny-llada"]).to_json()
    config = ModelConfig.from_hf(TINY["tiny-llada"])
    values = {name: getattr(config, name) for name in fields}
    try:
        made = ModelConfig(**values | {field: value})
    except ValueError as error:
        assert field in str(error) or "vocabulary" in str(error) or "head" in str(error)
        return
    assert type(getattr(made, field)) in (type(values[field]), int, type(None))


FALSE_CONFIGS = [
    ("tiny-llada", {"d_model": "64"}, "d_model='64' must be an integer"),
    ("tiny-llada", {"d_model": 64.0}, "d_model=64.0 must be an integer"),
    ("tiny-llada", {"n_heads": True}, "n_heads=True must be an integer"),
    ("tiny-llada", {"n_layers": 10**9}, "n_layers=1000000000 must be at most 4096"),
    ("tiny-llada", {"n_kv_heads": 0}, "n_kv_heads=0 must be positive"),
    ("tiny-llada", {"vocab_size": "384"}, "vocab_size='384' must be an integer"),
    ("tiny-llada", {"embedding_size": [384]}, "embedding_size=[384] must be an integer"),
    ("tiny-llada", {"rope_theta": float("nan")}, "rope_theta=nan must be a number above 1"),
    ("tiny-llada", {"rope_theta": float("inf")}, "rope_theta=inf must be a number"),
    ("tiny-llada", {"rope_theta": "1e4"}, "rope_theta='1e4' must be a number"),
    ("tiny-llada", {"rms_norm_eps": -1}, "rms_norm_eps=-1 must be a number above 0 and below 1"),
    ("tiny-llada", {"rms_norm_eps": False}, "rms_norm_eps=False must be a number"),
    ("tiny-llada", {"weight_tying": "false"}, "weight_tying='false' must be true or false"),
    ("tiny-llada", {"include_qkv_bias": 0}, "include_qkv_bias=0 must be true or false"),
    ("tiny-llada", {"alibi": 0}, "alibi=0 (only False is built)"),
    ("tiny-llada", {"block_group_size": True}, "block_group_size=True (only 1 is built)"),
    ("tiny-llada", {"mask_token_id": -1}, "mask_token_id=-1 is outside the vocabulary of 384"),
    ("tiny-llada", {"mask_token_id": 382}, "eos_token_id=382 is mask_token_id=382: a mask cannot end a text"),
    ("tiny-llada", {"eos_token_id": [382]}, "eos_token_id=[382] must be an integer"),
    ("tiny-dream", {"pad_token_id": 1e9}, "pad_token_id=1000000000.0 must be an integer"),
    ("tiny-dream", {"bos_token_id": 384}, "bos_token_id=384 is outside the vocabulary of 384"),
    ("tiny-dream", {"hidden_size": 63}, "hidden_size=63 must be num_attention_heads=4 times an even head dimension"),
    ("tiny-dream", {"num_key_value_heads": 3}, "num_key_value_heads=3 must divide num_attention_heads=4"),
    ("tiny-dream", {"max_position_embeddings": None}, "max_position_embeddings is missing"),
    ("tiny-dream", {"model_type": ["Dream"]}, "model_type ['Dream'] is not supported"),
]


@pytest.mark.parametrize("name, change, words", FALSE_CONFIGS)
def test_a_false_field_is_named_as_the_file_names_it(name, change, words):
    with pytest.raises(ValueError) as caught:
        ModelConfig.from_hf(TINY[name] | change)
    assert words in str(caught.value)


def test_false_fields_come_in_one_message():
    change = {"d_model": "64", "rms_norm_eps": -1, "alibi": True, "mask_token_id": 384, "n_layers": None}
    with pytest.raises(ValueError) as caught:
        ModelConfig.from_hf(TINY["tiny-llada"] | change)
    wanted = (
        "d_model='64' must be an integer",
        "rms_norm_eps=-1",
        "alibi=True (only False",
        "mask_token_id=384 is outside",
        "n_layers is missing",
    )
    assert all(words in str(caught.value) for words in wanted)
    assert "bos" not in str(caught.value)


@pytest.mark.parametrize("thing", [[], "llada", None, 3])
def test_a_config_that_is_no_object_is_refused(thing):
    with pytest.raises(ValueError, match="an object was wanted"):
        ModelConfig.from_hf(thing)
