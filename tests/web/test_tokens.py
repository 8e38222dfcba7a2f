import json
from contextlib import closing
from pathlib import Path

import pytest

from modules.families.clip_tokenizer import clip_tokenizer
from modules.web.chosen import chosen, usual
from modules.web.tokens import count_tokens
from tests.fixtures.fake_engine import FakeEngine, make_app
from tests.fixtures.tiny_models import write_tiny_sd1


def test_a_prompt_without_any_syntax_counts_its_tokens() -> None:
    text = "a photograph of an astronaut riding a horse"
    assert count_tokens(text, usual().vocabulary) == (len(clip_tokenizer().encode(text)), 75)


@pytest.mark.parametrize(("prompt", "same_as"), [
    ("(a cat:1.3)", "a cat"), ("a cat <lora:x:1>", "a cat "), ("a cat AND a dog and a bird", " a dog and a bird"),
    ("a [cat:large brown dog:0.5]", "a large brown dog"),
])
def test_syntax_does_not_count_and_the_longest_text_does(prompt: str, same_as: str) -> None:
    assert count_tokens(prompt, usual().vocabulary)[0] == len(clip_tokenizer().encode(same_as))


def test_room_grows_by_chunks_of_75() -> None:
    assert count_tokens("cat " * 76, usual().vocabulary) == (76, 150)
    assert count_tokens("", usual().vocabulary)[1] == 75


def test_a_folder_with_its_own_tokenizer_counts_with_it(tmp_path: Path) -> None:
    write_tiny_sd1(tmp_path / "models/Stable-diffusion/folder", "diffusers")
    config = tmp_path / "models/Stable-diffusion/folder/text_encoder/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 32}))
    with closing(make_app(tmp_path, FakeEngine(tmp_path), model=False)) as app:
        vocabulary = chosen(app).vocabulary
    assert vocabulary.chunk_size == 30
    assert count_tokens("a cat", vocabulary) == (2, 30)


def test_without_a_usable_checkpoint_clips_vocabulary_counts(tmp_path: Path) -> None:
    with closing(make_app(tmp_path, FakeEngine(tmp_path), model=False)) as app:
        assert chosen(app) == usual()
        (tmp_path / "models/Stable-diffusion").mkdir(parents=True, exist_ok=True)
        (tmp_path / "models/Stable-diffusion/broken.safetensors").write_bytes(b"nothing")
        assert chosen(app) == usual()
