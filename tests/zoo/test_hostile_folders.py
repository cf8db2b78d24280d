"""Strangers' configurations and model folders: what a plain reader finds in them, or one ClitZooError."""

import json
import struct

import pytest
import torch
from hypothesis import strategies as st
from mutants import NUMBERS, mutant, mutants

import clit_zoo
from clit_zoo.errors import ClitZooError, ConfigError
from clit_zoo.zoo.config import FORMAT, ModelConfig
from clit_zoo.zoo.schema import DECODERS, ENCODERS, Bool, Number
from clit_zoo.zoo.skeleton import MAX_PARAMETERS, parameters

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

_odd = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([*NUMBERS, -1, 1e400, -1e9, 10**30, "", "edsr", "clit", [], {}, [[]], [8, "8"]]),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
)


def _settings(parts):
    """A part of a configuration: with numbers, mostly in range; and with something else among them."""

    def value(setting):
        if isinstance(setting, Bool):
            return st.booleans()
        low, high = setting.low, setting.high
        inside = st.sampled_from([n for n in (1, 2, 4, 8, 16, 64) if low <= n <= high])
        number = inside | inside | st.integers(int(low), int(high)) | st.sampled_from((low, high, high + 1))
        if isinstance(setting, Number):
            return number
        fewest, most = setting.entries
        return st.lists(inside, min_size=fewest, max_size=most) | st.lists(number, max_size=most + 1)

    def of(name):
        usual = {key: value(setting) for key, setting in parts[name].settings.items()}
        right = st.fixed_dictionaries({"name": st.just(name)}, optional=usual)
        keys = st.sampled_from([*usual, "name", "unknown"])
        return right, st.builds(lambda part, key, odd: part | {key: odd}, right, keys, _odd)

    pairs = [of(name) for name in parts]
    return st.one_of([right for right, _ in pairs]), st.one_of([wrong for _, wrong in pairs])


def _configuration(encoder, decoder):
    name = st.just("a")
    return st.fixed_dictionaries(
        {"format": st.just(FORMAT), "name": name, "encoder": encoder, "decoder": decoder}
    )


_encoders, _decoders = _settings(ENCODERS), _settings(DECODERS)
_right = _configuration(_encoders[0], _decoders[0])
_wrong = _configuration(_encoders[0], _decoders[1]) | _configuration(_encoders[1], _decoders[0])
_odd_key = st.sampled_from(("format", "name", "encoder", "decoder", "more"))
_wrong |= st.builds(lambda config, key, odd: config | {key: odd}, _right, _odd_key, _odd)


def one_sentence(error):
    assert str(error) and "\n" not in str(error) and len(str(error)) < 2000, str(error)
    return "refused"


def test_configurations(campaign, tmp_path):
    path = tmp_path / "config.json"
    texts = st.one_of(_right, _wrong).map(json.dumps) | st.text() | _odd.map(json.dumps)

    def attempt(text):
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            config = ModelConfig.from_json(path)
        except ConfigError as error:
            assert str(path) in str(error)
            return one_sentence(error)
        given = json.loads(text)
        for part, known in (("encoder", ENCODERS), ("decoder", DECODERS)):
            settings = known[given[part]["name"]].settings
            usual = {key: setting.default for key, setting in settings.items()}
            wanted = {key: list(v) if isinstance(v, tuple) else v for key, v in (usual | given[part]).items()}
            assert getattr(config, part) == wanted
        assert config.name == given["name"] and ModelConfig.from_dict(config.to_dict()) == config
        try:
            assert parameters(config) <= MAX_PARAMETERS
        except ConfigError as error:
            one_sentence(error)
            return "refused as too large"
        return "read"

    campaign(attempt, texts, quick=80, long=3_000)


def plainly(data: bytes) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, as its format is described."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        values = torch.frombuffer(bytearray(data[start:end]), dtype=TYPES[entry["dtype"]])
        found[name] = values.reshape(entry["shape"])
    return found


def _headers(weights: bytes):
    """Weights with one entry of their header renamed, left out or changed."""
    (length,) = struct.unpack_from("<Q", weights)
    header = json.loads(weights[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    values = {
        "dtype": st.sampled_from(("F32", "F16", "BF16", "F64", "I64", "BOOL", "x", 1)),
        "shape": st.lists(st.sampled_from(NUMBERS) | st.integers(-2, 9), max_size=5),
        "data_offsets": st.lists(st.sampled_from(NUMBERS) | st.integers(0, len(weights)), max_size=3),
    }

    def build(name, other, action, key, data):
        changed = {name: dict(entry) for name, entry in header.items()}
        entry = changed.pop(name)
        if action == "rename":
            changed[other] = entry
        elif action == "share":
            changed[name] = changed.get(other, entry)
        elif action == "change":
            changed[name] = entry | {key: data.draw(values[key])}
        text = json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + weights[8 + length :]

    return st.builds(
        build,
        st.sampled_from(names),
        st.sampled_from(names) | st.text(max_size=9),
        st.sampled_from(("rename", "share", "change", "change", "leave out")),
        st.sampled_from(sorted(values)),
        st.data(),
    )


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16"])
def sound(request, tmp_path_factory):
    """The files of a model with random weights."""
    torch.manual_seed(0)
    config = ModelConfig(
        "tiny",
        {"name": "edsr", "channels": 4, "blocks": 1},
        {"name": "clit", "dim": 8, "heads": 1, "radius": 1, "stages": 1, "hidden_dims": [8]},
    )
    model = clit_zoo.SuperResolver(config).to(getattr(torch, request.param))
    folder = model.save_pretrained(tmp_path_factory.mktemp("sound") / "tiny")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_folders(campaign, sound, tmp_path):
    files = mutants(sound).map(lambda case: {case[0]: mutant(sound, case)})
    headers = _headers(sound["model.safetensors"]).map(lambda data: {"model.safetensors": data})
    names = st.sampled_from(sorted(sound))
    missing = names.map(lambda name: {name: None})
    swapped = st.tuples(names, names).map(lambda pair: {pair[0]: sound[pair[1]]})

    def attempt(changed):
        for name, data in (sound | changed).items():
            if data is None:
                (tmp_path / name).unlink(missing_ok=True)
            else:
                (tmp_path / name).write_bytes(data)
        try:
            model = clit_zoo.from_pretrained(tmp_path, device="cpu", dtype="float32")
        except ClitZooError as error:
            return one_sentence(error)
        given = json.loads((tmp_path / "config.json").read_bytes())
        assert model.config == ModelConfig.from_dict(given)
        tensors = plainly((tmp_path / "model.safetensors").read_bytes())
        found = model.state_dict()
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensor.float()) for name, tensor in tensors.items())
        assert all(tensor.isfinite().all() for tensor in found.values())
        return "loaded"

    campaign(attempt, st.one_of(files, files, headers, missing, swapped), quick=50, long=1_700)
