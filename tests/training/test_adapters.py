"""From a model's folder to one file, and what the extensions make of that file."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from modules.core.errors import InvalidModel, InvalidRequest, NotFound
from modules.engine.engine import Engine
from modules.host.discover import discover
from modules.host.registry import Host
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.plugin import ModelRef
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from modules.training import adapters, checkpoint, export, lora, tokenizer
from modules.training import textual_inversion as inversion
from modules.training.config import AboutConfig, EmbeddingConfig, EmbeddingTraining, LoraConfig, LoraTraining
from modules.training.denoiser import Denoiser
from modules.training.stages import Workspace
from tests.engine.conftest import REQUEST, Recorder
from tests.training.conftest import loop_config

CPU = torch.device("cpu")
EXTENSIONS = Path(__file__).resolve().parents[2] / "extensions"
LAYERS = ("attention", "feed_forward", "projection", "convolution")


@pytest.fixture(scope="module")
def model(config, trained, tmp_path_factory):
    """A model's folder."""
    target = tmp_path_factory.mktemp("model") / "tiny"
    export.export(config, trained, target)
    return target


@pytest.fixture
def space(archive, model, tmp_path):
    return Workspace(archive, tmp_path / "run", CPU, start=model)


def about(config):
    changed = dataclasses.replace(config.diffusion, loop=loop_config(lr=2e-2), text_lr_scale=1.0)
    return {"data": config.data, "diffusion": changed, "style": "safelight", "about": AboutConfig(license="MIT")}


@pytest.fixture
def network(config):
    own = LoraConfig(2, 4.0, LAYERS, ("attention", "feed_forward"), precision="fp32")
    return LoraTraining(**about(config), lora=own)


@pytest.fixture
def word(config):
    return EmbeddingTraining(**about(config), embedding=EmbeddingConfig("aglow", "red", 3))


def told(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def content(path):
    return {name: value.tolist() for name, value in load_file(path).items()}, told(path)


def test_a_lora_says_what_it_is(network, space, tmp_path):
    path = tmp_path / "glow.safetensors"
    assert adapters.train_lora(network, space, path)
    found = told(path)
    assert (found["ss_network_dim"], found["ss_network_alpha"], found["ss_output_name"]) == ("2", "4.0", "glow")
    assert found["ss_base_model_version"] == "tiny" and found["modelspec.license"] == "MIT"
    assert found["modelspec.architecture"] == "stable-diffusion-v1/lora" and found["modelspec.title"] == "glow"
    assert {float(value) for name, value in load_file(path).items() if name.endswith(".alpha")} == {4.0}


def test_an_embedding_is_one_table_of_the_learned_vectors(word, space, tmp_path):
    path = tmp_path / "aglow.safetensors"
    assert adapters.train_embedding(word, space, path)
    (name, vectors), = load_file(path).items()
    assert name == "emb_params" and vectors.shape == (3, 32) and vectors.dtype == torch.float32
    base = adapters.read_base(space.start)
    inversion.attach(base.model, base.tokenizer, word.embedding)
    assert not torch.allclose(inversion.vectors(base.model), vectors, atol=1e-3)


@pytest.mark.parametrize("kind", ["network", "word"])
def test_a_run_in_parts_writes_the_same_file(kind, request, space, tmp_path):
    config = request.getfixturevalue(kind)
    train = {"network": adapters.train_lora, "word": adapters.train_embedding}[kind]
    whole, parts = tmp_path / "one" / "a.safetensors", tmp_path / "other" / "a.safetensors"
    assert train(config, dataclasses.replace(space, folder=tmp_path / "again"), whole)
    assert not train(config, dataclasses.replace(space, seconds=0), parts)
    first = content(parts)
    assert train(config, space, parts)
    assert content(parts) == content(whole) != first


def test_cached_latents_are_made_anew_where_the_style_is_another(network, space, tmp_path):
    base = adapters.read_base(space.start)
    red = adapters.cached(network, space, base, list, tmp_path)
    again = adapters.cached(network, dataclasses.replace(space, device=CPU), base, list, tmp_path)
    plain = adapters.cached(dataclasses.replace(network, style="plain"), space, base, list, tmp_path)
    assert torch.equal(red.latents, again.latents) and not torch.equal(red.latents, plain.latents)
    assert torch.equal(red.tokens, plain.tokens)


def test_pictures_of_ones_own_are_learned(network, space, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("red circle", "blue square"):
        Image.new("RGB", (40, 30), name.split()[0]).save(folder / f"{name}.png")
    (folder / "red circle.txt").write_text("a red circle\na circle")
    base = adapters.read_base(space.start)
    cache = adapters.cached(network, dataclasses.replace(space, archive=folder), base, list, tmp_path / "cache")
    wanted = tokenizer.encode(base.tokenizer, ["blue square", "blue square", "a red circle", "a circle"])
    assert cache.latents.shape == (2, 4, 8, 8) and torch.equal(cache.tokens.flatten(0, 1), wanted.to(torch.int32))


def test_what_cannot_be_done_is_said(network, space, tmp_path):
    with pytest.raises(InvalidRequest, match="no style"):
        adapters.train_lora(dataclasses.replace(network, style="baroque"), space, tmp_path / "a.safetensors")
    for start in (None, tmp_path):
        with pytest.raises(NotFound, match="no model"):
            adapters.train_lora(network, dataclasses.replace(space, start=start), tmp_path / "a.safetensors")


def test_another_noise_schedule_is_refused(config):
    for settings in ({"beta_schedule": "linear"}, {"trained_betas": [0.1]}, {"num_train_timesteps": 100}):
        with pytest.raises(InvalidModel, match="noise schedule"):
            adapters.noise.of_model(config.diffusion, settings)
    found = adapters.noise.of_model(config.diffusion, {"beta_end": 0.012, "prediction_type": "epsilon"})
    assert (found.beta_end, found.prediction, found.zero_snr) == (0.012, "epsilon", False)


@pytest.fixture
def root(model, tmp_path):
    """An installation with the model and folders for what is made for it."""
    place = tmp_path / "installation/models/Stable-diffusion"
    place.mkdir(parents=True)
    shutil.copytree(model, place / "tiny")
    return tmp_path / "installation"


def generated(root, prompt):
    """Return the networks as they are after a picture of ``prompt``, which must raise no warning."""
    places = folders(root, {})
    kinds = {"lora": places.lora, "embeddings": places.embeddings}
    found = discover([EXTENSIONS], root, kinds, frozenset())
    host = Host(tuple(item for item in found if item.id in ("lora", "textual_inversion")))
    engine = Engine(Library(places, HashCache(root / "hashes.sqlite3")), Models(10**9), Placement())
    request = dataclasses.replace(REQUEST, model="tiny", steps=1, prompt=prompt)
    result = engine.generate(request, host.active(request), Recorder())
    assert not result.warnings
    reference = ModelRef(str(root / "models/Stable-diffusion/tiny"))
    return engine._bench.loader.load(reference, print).model.modules


def test_the_extension_makes_of_the_file_what_was_trained(network, space, root, source):
    adapters.train_lora(network, space, root / "models/Lora/glow.safetensors")
    base = adapters.read_base(space.start)
    lora.attach(base.model, network.lora, 0)
    weights = checkpoint.newest(space.folder / "lora")["stage"]["average"]
    base.model.load_state_dict({**base.model.state_dict(), **weights})
    given = torch.randn(2, 4, 8, 8, generator=source), torch.tensor([10, 900])
    ids = tokenizer.encode(base.tokenizer, ["a cat", "red circle"])
    for weight, same in (("1", True), ("0", False)):
        modules = generated(root, f"a cat <lora:glow:{weight}>")
        theirs = Denoiser(modules["unet"], modules["text_encoder"])
        with torch.no_grad():
            assert torch.allclose(theirs(*given, ids), base.model(*given, ids), atol=1e-5) == same


def test_the_extension_reads_the_vectors_that_were_trained(word, space, root):
    adapters.train_embedding(word, space, root / "embeddings/aglow.safetensors")
    (_, learned), = checkpoint.newest(space.folder / "embedding")["stage"]["average"].items()
    table = generated(root, "a cat, aglow")["text_encoder"].get_input_embeddings().weight
    assert torch.equal(table[-len(learned):], learned) and learned.shape == (3, 32)


def test_diffusers_reads_both_files(network, word, space, tmp_path, source):
    files = tmp_path / "glow.safetensors", tmp_path / "aglow.safetensors"
    adapters.train_lora(network, space, files[0])
    adapters.train_embedding(word, space, files[1])
    pipeline = StableDiffusionPipeline.from_pretrained(space.start, dtype=torch.float32, local_files_only=True)
    pipeline.load_textual_inversion(str(files[1]), token="aglow")
    learned = load_file(files[1])["emb_params"]
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[-3:], learned)
    pipeline.load_lora_weights(str(files[0]))
    base = adapters.read_base(space.start)
    lora.attach(base.model, network.lora, 0)
    weights = checkpoint.newest(space.folder / "lora")["stage"]["average"]
    base.model.load_state_dict({**base.model.state_dict(), **weights})
    given = torch.randn(2, 4, 8, 8, generator=source), torch.tensor([10, 900])
    ids = tokenizer.encode(base.tokenizer, ["a cat", "red circle"])
    with torch.no_grad():
        theirs = Denoiser(pipeline.unet, pipeline.text_encoder)(*given, ids)
        assert torch.allclose(theirs, base.model(*given, ids), atol=1e-5)
