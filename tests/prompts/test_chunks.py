import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.prompts.chunks import chunk, count
from modules.prompts.grammar import Weighted, parse_attention

START, END, PAD, COMMA = 1000, 1001, 0, 7


def tokenize(text):
    """One token a word: commas are 7, a word's token is 10 and its length."""
    return [COMMA if word == "," else 10 + len(word) for word in text.split()]


def cut(text, pad_id=END, **options):
    ids = {"comma_id": COMMA, "start_id": START, "end_id": END, "pad_id": pad_id}
    return chunk(parse_attention(text), tokenize, **ids, **options)


def words(chunks):
    return [[token for token in part.tokens if token not in (START, END, PAD)] for part in chunks]


def counted(text):
    return count(parse_attention(text), tokenize, comma_id=COMMA)


def test_an_empty_prompt_is_one_chunk():
    (only,) = cut("")
    assert only.tokens == (START, *[END] * 76)
    assert only.weights == (1.0,) * 77


def test_weights_stand_beside_their_tokens():
    (only,) = cut("a (bb:1.5) [ccc]")
    assert only.tokens[:5] == (START, 11, 12, 13, END)
    assert only.weights[:5] == (1.0, 1.0, 1.5, 1 / 1.1, 1.0)


def test_padding_follows_one_end():
    (only,) = cut("a", pad_id=PAD)
    assert only.tokens == (START, 11, END, *[PAD] * 74)


def test_an_end_in_the_text_ends_the_chunk_for_another_padding():
    entries = (Weighted("x", 1.0),)
    ids = {"comma_id": COMMA, "start_id": START, "end_id": END}
    (padded,) = chunk(entries, lambda _: [5, END, 6], pad_id=PAD, **ids)
    (ended,) = chunk(entries, lambda _: [5, END, 6], pad_id=END, **ids)
    assert padded.tokens == (START, 5, END, *[PAD] * 74)
    assert ended.tokens == (START, 5, END, 6, *[END] * 73)


@pytest.mark.parametrize(("text", "lengths", "shown"), [
    ("a " * 75, [75], (75, 75)),
    ("a " * 76, [75, 1], (76, 150)),
    ("a BREAK b", [1, 1], (76, 150)),
    ("a BREAK", [1], (75, 75)),
    ("BREAK", [0], (75, 75)),
    ("BREAK a", [0, 1], (76, 150)),
    ("", [0], (0, 75)),
    # The comma is token 70 of 75: what follows it moves on.
    ("a " * 69 + ", " + "b " * 10, [70, 10], (85, 150)),
    # Twenty tokens back is near enough, twenty-one is not.
    ("a " * 55 + ", " + "b " * 30, [56, 30], (105, 150)),
    ("a " * 54 + ", " + "b " * 30, [75, 10], (85, 150)),
    # A comma that begins a chunk does not move anything.
    ("a " * 75 + ", " + "b " * 80, [75, 75, 6], (156, 225)),
    # Exactly full, and the next token is a comma itself.
    ("a " * 70 + ", " + "b " * 4 + ", c", [75, 2], (77, 150)),
])
def test_chunks_are_cut_at_commas_and_breaks(text, lengths, shown):
    assert [len(part) for part in words(cut(text))] == lengths
    assert counted(text) == shown


def test_without_backtracking_commas_do_not_matter():
    assert [len(part) for part in words(cut("a " * 69 + ", " + "b " * 10, backtrack=0))] == [75, 5]


@given(st.lists(st.sampled_from(["a", "bb", ",", "BREAK", "(ccc:1.2)", "[d"]), max_size=120), st.integers(0, 12),
       st.integers(3, 12))
def test_chunks_keep_every_token_in_order(parts, backtrack, size):
    text = " ".join(parts)
    chunks = cut(text, backtrack=backtrack, size=size)
    entries = parse_attention(text)
    expected = [token for entry in entries if entry.text != "BREAK" for token in tokenize(entry.text)]
    breaks_in_brackets = [entry for entry in entries if entry.text == "BREAK" and entry.weight != -1]
    if not breaks_in_brackets:
        assert [token for part in words(chunks) for token in part] == expected
    assert {len(part.tokens) for part in chunks} == {size + 2} == {len(part.weights) for part in chunks}
    tokens, room = count(entries, tokenize, comma_id=COMMA, backtrack=backtrack, size=size)
    assert room >= max(tokens, 1)
    assert room == len(chunks) * size
