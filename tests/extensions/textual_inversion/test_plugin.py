"""Embeddings in their place: what the denoiser is told equals transformers' CLIP with a resized vocabulary."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from modules.core.settings import Settings
from modules.engine.engine import Engine
from modules.families.base import ModelInput, Vocabulary
from modules.families.clip_tokenizer import clip_tokenizer
from modules.host.discover import discover
from modules.host.registry import Host
from modules.library.files import Library, folders
from modules.library.hashes import HashCache
from modules.plugin import Asked, Context, ModelRef, NoParams, Plugin, model_variant
from modules.plugin.hooks import Active
from modules.runtime.device import Placement
from modules.runtime.memory import Models
from modules.web.tokens import count_tokens
from tests.engine.conftest import REQUEST, Recorder
from tests.extensions.textual_inversion.files import drawn, write
from tests.fixtures.tiny_models import tiny_sd1, write_tiny_sd1
from tests.fixtures.tiny_sd2 import write_tiny_sd2
from tests.fixtures.tiny_sdxl import write_tiny_sdxl

EXTENSIONS = Path(__file__).resolve().parents[3] / "extensions"
WIDTH = 32


class Contexts(Plugin):
    """Writes down the contexts of each call of the network."""

    def __init__(self) -> None:
        super().__init__(Context(Path(), Path(), {}))
        self.seen: list[torch.Tensor] = []

    def wrap_model(self, call: Any, plan: Any, params: Any) -> Any:
        def recording(inputs: ModelInput) -> torch.Tensor:
            self.seen.append(inputs.context)
            return call(inputs)
        return recording


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("installation")
    models = root / "models/Stable-diffusion"
    write_tiny_sd1(models / "sd1.safetensors")
    write_tiny_sd2(models / "sd2.safetensors")
    write_tiny_sdxl(models / "sdxl.safetensors")
    return root


@pytest.fixture(scope="module")
def engine(root):
    return Engine(Library(folders(root, {}), HashCache(root / "hashes.sqlite3")), Models(10**9), Placement())


@pytest.fixture
def place(tmp_path):
    return tmp_path / "embeddings"


@pytest.fixture
def host(tmp_path, place):
    found = discover([EXTENSIONS], tmp_path, {"embeddings": (place,)}, frozenset())
    return Host(tuple(item for item in found if item.id == "textual_inversion"))


def generated(engine: Engine, host: Host, **changes: Any) -> tuple[Any, Recorder, list[torch.Tensor]]:
    request = dataclasses.replace(REQUEST, **{"model": "sd1", "steps": 1, **changes})
    watch, contexts = Recorder(), Contexts()
    result = engine.generate(request, (*host.active(request), Active(contexts, NoParams())), watch)
    return result, watch, contexts.seen


def reference(ids: list[int], vectors: torch.Tensor) -> torch.Tensor:
    """Return transformers' encoding of ``ids``, those from 49408 on standing for ``vectors``."""
    tensors = tiny_sd1()
    prefix = "cond_stage_model.transformer.text_model."
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    config = CLIPTextConfig(hidden_size=WIDTH, intermediate_size=own["encoder.layers.0.mlp.fc1.weight"].shape[0],
                            num_hidden_layers=2, num_attention_heads=1, hidden_act="quick_gelu", vocab_size=49408)
    model = CLIPTextModel(config)
    names = {name.removeprefix("text_model."): name for name in model.state_dict()}
    model.load_state_dict({names[name]: value for name, value in own.items() if name in names}, strict=False)
    model.resize_token_embeddings(49408 + len(vectors), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[49408:] = vectors
        framed = [49406, *ids, 49407]
        return model(torch.tensor([framed + [49407] * (77 - len(framed))])).last_hidden_state[0]


def test_the_network_is_told_what_transformers_encodes(engine, host, place):
    vectors = drawn(3, WIDTH)
    write(place / "my-style.pt", vectors, "pt")
    _, watch, contexts = generated(engine, host, prompt="a MY-style, cat", negative_prompt="my-style")
    encode = clip_tokenizer().encode
    learned = [49408, 49409, 49410]
    positive = reference([*encode("a"), *learned, *encode(", cat")], vectors)
    negative = reference(learned, vectors)
    told = [row for context in contexts for row in context]
    for expected in (positive, negative):
        assert min(float((row - expected).abs().max()) for row in told) < 1e-4
    digest = hashlib.sha256((place / "my-style.pt").read_bytes()).hexdigest()[:12]
    assert watch.pictures[0].parameters["TI hashes"] == f"my-style: {digest}"
    off = Settings(extension_settings='{"textual_inversion": {"hashes": false}}')
    assert "TI hashes" not in generated(engine, host, prompt="my-style", settings=off)[1].pictures[0].parameters


def test_without_the_word_nothing_changes_and_the_file_is_not_read(engine, host, place):
    plain = generated(engine, Host(()))[1].pictures[0]
    write(place / "style.pt", drawn(1, WIDTH), "pt")
    with_file = generated(engine, host)[1].pictures[0]
    assert np.array_equal(plain.image, with_file.image) and "TI hashes" not in with_file.parameters


def test_the_picture_after_one_with_an_embedding_is_bit_equal(engine, host, place):
    write(place / "style.pt", drawn(2, WIDTH), "pt")
    before = generated(engine, Host(()), prompt="a style cat")[1].pictures[0]
    changed = generated(engine, host, prompt="a style cat")[1].pictures[0]
    after = generated(engine, Host(()), prompt="a style cat")[1].pictures[0]
    assert np.array_equal(before.image, after.image) and not np.array_equal(before.image, changed.image)


def test_a_replaced_file_changes_the_picture(engine, host, place):
    path = write(place / "style.pt", drawn(2, WIDTH), "pt")
    first = generated(engine, host, prompt="a style cat")[1].pictures[0]
    write(path, drawn(2, WIDTH, seed=5), "pt")
    second = generated(engine, host, prompt="a style cat")[1].pictures[0]
    assert not np.array_equal(first.image, second.image)


def test_vectors_that_cross_the_border_of_a_chunk_stay_in_order(engine, host, place):
    vectors = drawn(4, WIDTH)
    write(place / "style.pt", vectors, "pt")
    _, _, contexts = generated(engine, host, prompt="cat " * 73 + "style", negative_prompt="", guidance_scale=1.0)
    cats = clip_tokenizer().encode("cat") * 73
    first = reference([*cats, 49408, 49409], vectors)
    second = reference([49410, 49411], vectors)
    assert contexts[0].shape[1] == 154
    torch.testing.assert_close(contexts[0][0], torch.cat([first, second]), atol=1e-4, rtol=0)


def test_the_counter_counts_vectors(root, host, place):
    write(place / "style.pt", drawn(4, WIDTH), "pt")
    write(place / "other.pt", drawn(4, 99), "pt")
    model = ModelRef(str(root / "models/Stable-diffusion/sd1.safetensors"))
    words = host.words(model_variant(model))
    assert words == {"style": 4}
    tokenizer = clip_tokenizer()
    vocabulary = Vocabulary(tokenizer.encode, tokenizer.comma_id, 75)
    assert count_tokens("a style, other", vocabulary, 20, words) == (7, 75)
    assert count_tokens("cat " * 73 + "style", vocabulary, 20, words) == (77, 150)


@pytest.mark.parametrize("model", ["sd2", "sdxl"])
def test_other_families(engine, host, place, root, model):
    variant = model_variant(ModelRef(str(root / f"models/Stable-diffusion/{model}.safetensors")))
    widths = {name: config["hidden_size"] for name, config in variant.components.items() if "text" in name}
    if model == "sd2":
        write(place / "style.pt", drawn(2, widths["text_encoder"]), "pt")
    else:
        place.mkdir()
        parts = {"clip_l": drawn(2, widths["text_encoder"]), "clip_g": drawn(2, widths["text_encoder_2"])}
        save_file(parts, place / "style.safetensors")
    size = {"width": 64, "height": 64, "model": model}
    plain = generated(engine, Host(()), prompt="a style cat", **size)[2][0]
    _, watch, contexts = generated(engine, host, prompt="a style cat", **size)
    assert "TI hashes" in watch.pictures[0].parameters
    for low, high in ((0, widths["text_encoder"]), (widths["text_encoder"], None)):
        assert contexts[0].shape == plain.shape
        if low < plain.shape[-1]:
            assert not torch.equal(contexts[0][..., low:high], plain[..., low:high])


def test_what_cannot_be_used_is_named_and_read_as_text(engine, host, place):
    plain = generated(engine, Host(()), prompt="a wide nan cat")[1].pictures[0]
    write(place / "wide.pt", drawn(1, 99), "pt")
    write(place / "nan.pt", drawn(1, WIDTH) * float("nan"), "pt")
    result, watch, _ = generated(engine, host, prompt="a wide nan cat")
    assert np.array_equal(plain.image, watch.pictures[0].image)
    assert [warning.split(" ")[2] for warning in result.warnings] == ["nan.pt", "wide.pt"]
    assert "99 wide" in result.warnings[1] and "TI hashes" not in watch.pictures[0].parameters


def test_two_files_of_one_name_are_both_named(engine, host, place):
    write(place / "a" / "style.pt", drawn(1, WIDTH), "pt")
    write(place / "b" / "style.safetensors", drawn(1, WIDTH, 3), "safetensors")
    write(place / "c" / "style.pt", drawn(1, 99), "pt")
    result, _, _ = generated(engine, host, prompt="style")
    [warning] = result.warnings
    assert str(place / "a") in warning and str(place / "b") in warning and str(place / "c") not in warning


def test_the_list_says_what_fits(root, host, place):
    write(place / "style.pt", drawn(2, WIDTH), "pt")
    write(place / "wide.pt", drawn(1, 99), "pt")
    (place / "broken.pt").write_bytes(b"nothing")
    [route] = host.routes()
    variant = model_variant(ModelRef(str(root / "models/Stable-diffusion/sd1.safetensors")))
    listed = route.answer(Asked(variant=variant))
    assert listed["loaded"] == {"style": {"step": 4999, "sd_checkpoint": "81761151", "sd_checkpoint_name": "v1-5",
                                          "shape": WIDTH, "vectors": 2}}
    assert list(listed["skipped"]) == ["broken", "wide"] and listed["skipped"]["broken"]["error"]
