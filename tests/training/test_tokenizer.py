import json
from collections import Counter

import pytest

from modules.families.clip_tokenizer import folder_tokenizer
from modules.training import tokenizer

TEXTS = ["low low low low low", "lower lower", "newest " * 6, "widest widest widest", "a blue côte, 3 \"cats\""]


def slow_merges(words, count):
    """The definition: recount all pairs for every merge."""
    merges = []
    for _ in range(count):
        pairs = Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:], strict=False):
                pairs[pair] += times
        if not pairs:
            break
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        words = {tokenizer.merge(word, merges[-1]): times for word, times in words.items()}
    return merges


def test_the_first_merges_are_those_of_the_paper():
    words = Counter({("l", "o", "w</w>"): 5, ("l", "o", "w", "e", "r</w>"): 2,
                     ("n", "e", "w", "e", "s", "t</w>"): 6, ("w", "i", "d", "e", "s", "t</w>"): 3})
    assert tokenizer.learn_merges(words, 3) == [("e", "s"), ("es", "t</w>"), ("l", "o")]


def test_incremental_counts_equal_a_full_recount():
    words = tokenizer.split_words(TEXTS)
    assert tokenizer.learn_merges(words, 40) == slow_merges(words, 40)


def test_merging_joins_repeated_pairs_once():
    assert tokenizer.merge(("a", "a", "a"), ("a", "a")) == ("aa", "a")


def test_ids_agree_with_the_reader_that_the_page_uses(tmp_path):
    own = tokenizer.train(TEXTS, 560, 12, tmp_path)
    reader = folder_tokenizer(tmp_path)
    for text in [*TEXTS, "unseen Wörter 42!", ""]:
        assert own(text)["input_ids"][1:-1] == reader.encode(text)
    assert len(json.loads((tmp_path / "vocab.json").read_text("utf-8"))) <= 560


def test_captions_are_framed_padded_and_cut(tmp_path):
    own = tokenizer.train(TEXTS, 560, 6, tmp_path)
    ids = tokenizer.encode(own, ["low", "low " * 20, ""])
    assert ids.shape == (3, 6)
    start, end = own.bos_token_id, own.eos_token_id
    assert ids[0].tolist() == [start, own.convert_tokens_to_ids("low</w>"), end, end, end, end]
    assert ids[1, -1] == end and ids[2].tolist() == [start, *[end] * 5]


def test_a_vocabulary_without_room_for_bytes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="514"):
        tokenizer.train(TEXTS, 100, 8, tmp_path)
