import dataclasses

import pytest
import torch

from modules.core.errors import InvalidRequest
from modules.training import loop, tokenizer
from modules.training import textual_inversion as inversion
from modules.training.config import EmbeddingConfig
from modules.training.diffusion import DiffusionStage
from modules.training.latents import Cache
from modules.training.stages import trained_denoiser
from tests.training.conftest import loop_config

CPU = torch.device("cpu")
OWN = EmbeddingConfig("aglow", "red square", 3, ("{caption}, {word}", "{word} {caption}"))


@pytest.fixture
def words(trained):
    return tokenizer.read(trained.folder / "tokenizer", 24)


@pytest.fixture
def make(config, trained, tmp_path):
    """Return a function that makes a stage for the new word, with the tokenizer that knows it."""
    def make(own=OWN, **changes):
        words = tokenizer.read(trained.folder / "tokenizer", 24)
        model = trained_denoiser(config, trained)
        inversion.attach(model, words, own)
        ids = tokenizer.encode(words, inversion.spelled(["a circle, aglow", "aglow", ""], own)).to(torch.int32)
        cache = Cache(torch.ones(2, 4, 8, 8).half(), ids[:2, None], ids[2])
        changed = dataclasses.replace(config.diffusion, loop=loop_config(lr=5e-2, **changes), text_lr_scale=1.0)
        return DiffusionStage(changed, model, cache, ids[:2].long(), lambda found: found[:, :3], CPU, tmp_path)
    return make


def test_a_word_is_spelled_as_its_vectors_where_it_stands_alone(words):
    known = len(words)
    texts = inversion.spelled(["a cat, aglow", "aglowing", "Aglow aglow"], OWN)
    assert texts[1] == "aglowing" and texts[0].startswith("a cat, <|aglow:0|>")
    words.add_tokens(inversion.pieces(OWN))
    ids = words(texts[0])["input_ids"]
    assert ids[-4:-1] == [known, known + 1, known + 2] and ids[:-4] == words("a cat,")["input_ids"][:-1]


def test_captions_are_put_into_templates_the_same_each_time():
    captions = [f"cat {number}" for number in range(20)]
    found = inversion.mentioned(captions, OWN, "0")
    assert found == inversion.mentioned(captions, OWN, "0") != inversion.mentioned(captions, OWN, "1")
    shapes = {text.replace(caption, "*") for text, caption in zip(found, captions, strict=True)}
    assert shapes == {"*, aglow", "aglow *"}


@torch.no_grad()
def test_at_first_the_word_means_what_it_starts_as(config, trained, words):
    model = trained_denoiser(config, trained)
    ids = words("red square", add_special_tokens=False)["input_ids"]
    wanted = model.encode(tokenizer.encode(words, ["a red square"]))
    inversion.attach(model, words, dataclasses.replace(OWN, vectors=len(ids)))
    spelled = inversion.spelled(["a aglow"], dataclasses.replace(OWN, vectors=len(ids)))
    assert torch.equal(model.encode(tokenizer.encode(words, spelled)), wanted)


def test_only_the_vectors_learn_and_the_loss_falls(make):
    trainer = make(steps=20)
    frozen = {name: value.clone() for name, value in trainer.model.state_dict().items()}

    def loss():
        with torch.no_grad():
            return float(trainer.loss(64, torch.Generator().manual_seed(5)))

    before = loss()
    for number in range(20):
        trainer.step(number)
    assert loss() < before
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, frozen[name])}
    assert len(changed) == 1 and set(trainer.state()["model"]) == changed


def test_resuming_is_exact(make, tmp_path):
    whole, part, rest = make(), make(), make()
    loop.run(whole, whole.config.loop, tmp_path / "whole")
    assert not loop.run(part, part.config.loop, tmp_path / "part", loop.Limits(seconds=0))
    assert loop.run(rest, rest.config.loop, tmp_path / "part")
    assert torch.equal(inversion.vectors(whole.model), inversion.vectors(rest.model))


@pytest.mark.parametrize("own", [dataclasses.replace(OWN, start=" "), dataclasses.replace(OWN, vectors=0)])
def test_a_word_starts_as_something(config, trained, words, own):
    with pytest.raises(InvalidRequest, match="needs a word"):
        inversion.attach(trained_denoiser(config, trained), words, own)


def test_a_tokenizer_of_another_model_is_refused(config, trained, words):
    words.add_tokens(["<|more|>"])
    with pytest.raises(InvalidRequest, match="tokens"):
        inversion.attach(trained_denoiser(config, trained), words, OWN)
