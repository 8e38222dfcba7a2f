from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extensions.dynamic_prompts.template import MAX_LENGTH, Wildcards, combinations, expand

LINES = {
    "colour": ("red", "green", "3::blue"),
    "dress": ("__colour__ dress", "{silk|wool} dress"),
    "loop": ("<__loop__>",),
    "ping": ("__pong__",),
    "pong": ("__ping__",),
    **{f"grow{n}": (f"__grow{n + 1}__ __grow{n + 1}__",) for n in range(60)},
    **{f"empty{n}": (f"__empty{n + 1}____empty{n + 1}__",) for n in range(60)},
}


def lookup(name):
    return LINES.get(name, ())


def seen(template, seeds=80):
    return Counter(expand(template, seed, lookup) for seed in range(seeds))


@pytest.mark.parametrize(("template", "expected"), [
    ("{a|b}", ["a", "b"]),
    ("x {a|b|} y", ["x a y", "x b y", "x  y"]),
    ("{a|b}{c|d}", ["ac", "ad", "bc", "bd"]),
    ("{{a|b}|c}", ["a", "b", "c"]),
    ("{2$$a|b|c}", ["a, b", "a, c", "b, a", "b, c", "c, a", "c, b"]),
    ("{2$$ a | b }", ["a, b", "b, a"]),
    ("{2$$ and $$a|b}", ["a and b", "b and a"]),
    ("{2$$ | $$a|b}", ["a | b", "b | a"]),
    ("{1-2$$a|b}", ["a", "b", "a, b", "b, a"]),
    ("{-2$$a|b}", ["a", "b", "a, b", "b, a"]),
    ("{2-$$a|b}", ["a, b", "b, a"]),
    ("{9$$a|b}", ["a, b", "b, a"]),
    ("{0-1$$a}", ["", "a"]),
    ("{2$${a|b}|c}", ["a, c", "b, c", "c, a", "c, b"]),
    ("__colour__", ["red", "green", "blue"]),
    ("{__colour__|x}", ["red", "green", "blue", "x"]),
    ("{2$$__colour__}", ["red, green", "red, blue", "green, red", "green, blue", "blue, red", "blue, green"]),
    ("__dress__", ["red dress", "green dress", "blue dress", "silk dress", "wool dress"]),
    ("<lora:{a|b}:1>", ["<lora:a:1>", "<lora:b:1>"]),
    ("{[a|b]|c}", ["[a|b]", "c"]),
    ("{[a|b}", ["[a", "b"]),
    ("{(a:1.2)|b}", ["(a:1.2)", "b"]),
    (r"{a\|b|c\}}", ["a|b", "c}"]),
    (r"{\$\$|2\$\$a}", ["$$", "2$$a"]),
    ("{a|{b|c}", ["{a|b", "{a|c"]),
])
def test_both_ways_give_exactly_the_known_texts(template, expected):
    assert list(combinations(template, lookup, 100)) == expected
    assert set(seen(template)) == set(expected)


@pytest.mark.parametrize("text", [
    "", "a cat", "[a|b] (x:1.2) [c:d:0.5] <lora:x_y:1>", "{masterpiece}", "{{x}}", "${x}", "{a|b", "a}|b", "{", "}",
    "a__b", "__nothing__", "____", r"\(a\) \\", "{}", "a | b", "<lora:foo__bar__baz:1>",
])
def test_what_is_no_template_is_copied(text):
    assert expand(text, 1, lookup) == text
    assert combinations(text, lookup, 5) == (text,)


@pytest.mark.parametrize(("text", "expected"), [(r"\{a|b\}", "{a|b}"), (r"\_\_colour__", "__colour__"),
                                                (r"\\{a}", r"\\{a}")])
def test_escapes(text, expected):
    assert expand(text, 1, lookup) == expected


def test_the_same_seed_gives_these_texts_for_good():
    # By hand: the first draws of seed 0 are .84 .76 .42 .26, so option 3 of 4, options 2 and 1 of 3, 1.3 of weight 5.
    template = "{a|b|c|d} {2$$e|f|g} __colour__"
    texts = [expand(template, seed, lookup) for seed in (0, 1, 2, 2**64 - 1)]
    assert texts == ["d g, f green", "a g, e blue", "d g, e red", "a f, e blue"]


def test_weights_decide_how_often():
    assert 0.70 < seen("{3::a|b}", 2000)["a"] / 2000 < 0.80
    assert 0.55 < seen("__colour__", 2000)["blue"] / 2000 < 0.65
    assert set(seen("{0::a|b}")) == {"b"}
    assert set(seen("{2$$0::a|b|c}")) == {"b, c", "c, b"}


def test_several_options_are_drawn_without_repeats():
    for text in seen("{3$$a|b|c|1000::d}"):
        assert len(set(text.split(", "))) == 3


@pytest.mark.parametrize(("template", "expected"), [("__loop__", "<__loop__>"), ("__ping__", "__ping__")])
def test_a_wildcard_within_itself_is_text(template, expected):
    assert expand(template, 0, lookup) == expected
    assert combinations(template, lookup, 5) == (expected,)


@pytest.mark.parametrize("template", ["__grow0__", "__empty0__", "{2$$__grow0__|__empty0__}"])
def test_growth_is_bounded(template):
    assert len(expand(template, 0, lookup)) <= MAX_LENGTH
    assert all(len(text) <= MAX_LENGTH for text in combinations(template, lookup, 3))


@pytest.mark.parametrize("unit", ["{", "}", "|", "{a|", "{a|b}", "{a}", "[", "{[", "__", "_", "__a", "\\", "{2$$", "|}",
                                  "{ ", "__colour__", "{2$$__colour__}"])
def test_very_long_templates(unit):
    template = unit * (200_000 // len(unit))
    assert len(expand(template, 0, lookup)) <= MAX_LENGTH
    assert len(combinations(template, lookup, 3)) in (1, 2, 3)


def test_braces_that_are_too_deep_are_text():
    text = expand("{a|" * 60 + "b" + "}" * 60, 3, lambda name: ())
    assert set(text) <= set("{}a|b")
    assert len(combinations("{a|" * 60 + "b" + "}" * 60, lookup, 1000)) == 41


def test_a_limit_is_kept():
    assert combinations("{a|b|c}{d|e|f}", lookup, 4) == ("ad", "ae", "af", "bd")
    assert combinations("{a|b}" * 1000, lookup, 2) == ("a" * 1000, "a" * 999 + "b")
    assert combinations("{a|b}", lookup, 0) == ()


@settings(deadline=None)
@given(st.text(alphabet="ab{}|$[]\\_:1-, ", max_size=60), st.integers(0, 2**64 - 1))
def test_no_text_raises_and_a_seed_is_a_text(template, seed):
    text = expand(template, seed, lookup)
    assert text == expand(template, seed, lookup)
    assert len(combinations(template, lookup, 10)) in range(1, 11)


@given(st.text(alphabet=st.characters(exclude_characters="{}\\_"), max_size=80), st.integers(0, 99))
def test_text_without_specials_comes_back_as_it_is(text, seed):
    assert expand(text, seed, lookup) == text


@pytest.fixture
def folders(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "colours").mkdir(parents=True)
    two.mkdir()
    (tmp_path / "secret.txt").write_text("secret\n", "utf-8")
    (one / "animal.txt").write_bytes("\ufeff# animals\ncat\n\n  dog  \ncat\n".encode())
    (one / "colours" / "warm.txt").write_text("red\n2::orange\n", "utf-8")
    (one / "colours" / "cold.v2.txt").write_text("blue\n", "utf-8")
    (two / "animal.txt").write_text("fox\n", "utf-8")
    (two / "notes.md").write_text("no\n", "utf-8")
    (two / "bytes.txt").write_bytes(b"\xff\xfe ok\n")
    return one, two


def test_wildcards_are_text_files_by_name(folders):
    wildcards = Wildcards(folders)
    assert wildcards.names() == ("animal", "bytes", "colours/cold.v2", "colours/warm")
    assert wildcards("animal") == ("cat", "dog", "fox")
    assert wildcards("colours/warm") == ("red", "2::orange")
    assert wildcards("colours/*") == ("blue", "red", "2::orange")
    assert wildcards("*") == ("cat", "dog", "fox", *wildcards("bytes"))
    assert wildcards("**/warm") == ("red", "2::orange")
    assert wildcards("**/animal") == ("cat", "dog", "fox")
    assert wildcards("notes") == ()
    assert expand("a __colours/warm__ cat", 0, wildcards) in ("a red cat", "a orange cat")


@pytest.mark.parametrize("name", ["../secret", "colours/../../secret", "/etc/passwd", "..", "*/secret", "**/secret", "",
                                  "./../secret", "..\\secret", "link", "**"])
def test_a_name_never_leaves_its_folders(folders, name):
    (folders[0] / "link.txt").symlink_to(folders[0].parent / "secret.txt")
    (folders[0] / "up").symlink_to(folders[0].parent, target_is_directory=True)
    assert "secret" not in Wildcards(folders)(name)
    absolute = str(folders[0].parent / "secret")
    assert Wildcards(folders)(absolute) == ()


def test_a_folder_that_is_missing_has_no_wildcards(tmp_path):
    assert Wildcards([tmp_path / "none"])("animal") == ()
