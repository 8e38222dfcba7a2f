import html
import json
import random

import pytest
from transformers import CLIPTokenizer

from modules.core.errors import InvalidModel
from modules.families.clip_tokenizer import clip_tokenizer, folder_tokenizer

PLAIN = (
    "a photo of a cat", "it's WE'RE they'll 'd 'sun don't I'M you'Ve", "masterpiece, (best quality:1.2), 8k 4096",
    "日本語 テスト 漢字",
    "emoji 😀👩‍👩‍👧 🇩🇪", "Ünïcödé café nai\u0308ve e\u0301", "x²½Ⅷ ١٢٣ २",
    "  many \t\n\r spaces \u00a0 nbsp \u2003em",
    "<|endoftext|> hi <|startoftext|>!", "ΣΊΣΥΦΟΣ İstanbul ẞ ǅ ʰ ª º", "___ --- ... !!! a_b a-b #$%",
    "\u200bzero\u200dwidth\ufeff",
    "aaaaaaaaaaaaaaaaaaaa", "कि क्षि", "\x1c\x1d \x85 line\u2028sep", "𝕬𝖇 ſ ﷽", "", " ", "word\u0301\u0302",
)


@pytest.fixture(scope="module")
def reference():
    ours = clip_tokenizer()
    return CLIPTokenizer(vocab=dict(ours.vocabulary), merges=list(ours.ranks))


def ids(reference, text):
    return reference(text, add_special_tokens=False)["input_ids"]


def test_vocabulary_is_complete():
    tokenizer = clip_tokenizer()
    assert len(tokenizer.vocabulary) == 49_408
    assert set(tokenizer.vocabulary.values()) == set(range(49_408))
    assert (tokenizer.start_id, tokenizer.end_id, tokenizer.pad_id, tokenizer.comma_id) == (49406, 49407, 49407, 267)
    # The ids that every CLIP implementation gives to this sentence.
    assert tokenizer.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]


@pytest.mark.parametrize("text", PLAIN)
def test_agrees_with_transformers(reference, text):
    assert clip_tokenizer().encode(text) == ids(reference, text)


def test_agrees_with_transformers_on_random_text(reference):
    rng = random.Random(1)
    alphabet = [*map(chr, range(32, 127)), *map(chr, range(0xC0, 0x250)), *"日本語漢字あアひ가나다😀🚀❤️éñ"]
    alphabet += [" ", " ", "'s", "'re"]
    for _ in range(500):
        text = "".join(rng.choices(alphabet, k=rng.randint(1, 30)))
        if html.unescape(text) == text:
            assert clip_tokenizer().encode(text) == ids(reference, text), text


@pytest.mark.parametrize(("typed", "plain"), [
    ("cats &amp; dogs", "cats & dogs"), ("&amp;lt;b&amp;gt;", "<b>"), ("a woman’s “face”", "a woman's \"face\""),
    ("ｆｕｌｌ，ｗｉｄｔｈ", "full,width"), ("ﬁne", "fine"),
])
def test_text_is_cleaned_as_the_original_tokenizer_does(reference, typed, plain):
    assert clip_tokenizer().encode(typed) == ids(reference, plain)


def test_a_word_of_any_length_is_merged_in_reasonable_work(reference):
    text = "".join(random.Random(2).choices("abcdefgh", k=20_000))
    assert clip_tokenizer().encode(text) == ids(reference, text)


def test_a_folders_own_small_vocabulary(tmp_path):
    letters = sorted(set("a cat".replace(" ", "")))
    specials = ["!", "<|startoftext|>", "<|endoftext|>"]
    pieces = [*letters, *(letter + "</w>" for letter in letters), "ca", "cat</w>", *specials]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "!"}}))
    tokenizer = folder_tokenizer(tmp_path)
    assert tokenizer.encode("a cat") == [pieces.index("a</w>"), pieces.index("cat</w>")]
    assert tokenizer.pad_id == pieces.index("!") and tokenizer.comma_id == -1
    # What the vocabulary cannot spell becomes the end token, as transformers has it.
    reference = CLIPTokenizer(vocab=dict(tokenizer.vocabulary), merges=list(tokenizer.ranks))
    assert tokenizer.encode("a dog") == ids(reference, "a dog")


@pytest.mark.parametrize("damage", ["missing", "json", "merges", "specials"])
def test_a_damaged_folder_is_reported(tmp_path, damage):
    (tmp_path / "vocab.json").write_text("{" if damage == "json" else '{"a": 0}')
    if damage != "missing":
        (tmp_path / "merges.txt").write_text("x" if damage == "merges" else "a b\n")
    with pytest.raises(InvalidModel, match="tokenizer"):
        folder_tokenizer(tmp_path)
