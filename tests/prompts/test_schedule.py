import lark
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.prompts.schedule import Part, Stage, plan_prompts, schedule, text_at

STEPS = 10

# The language once more, for a general parser: without the characters that malformed text leaves over.
GRAMMAR = lark.Lark(r"""
start: item*
?item: TEXT -> text | edit | alternation | emphasis
emphasis: OPEN part CLOSE | OPEN part COLON part CLOSE | LEFT part RIGHT
edit: "[" [part ":"] part ":" WHEN "]"
alternation: "[" part ("|" part)+ "]"
part: item*
OPEN: "("
CLOSE: ")"
LEFT: "["
RIGHT: "]"
COLON: ":"
TEXT: /([^\\\[\]():|]|\\.)+/
WHEN: /\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)\s*/
""")


def evaluate(node, step, steps):
    """Return the text of a tree of ``GRAMMAR`` at ``step``, counted from 1."""
    if node is None:
        return ""
    if isinstance(node, lark.Token):
        return str(node)
    children = node.children
    if node.data == "edit":
        before, after, when = children
        last = int(float(when) * steps) if "." in when else int(float(when))
        return evaluate(before if step <= last else after, step, steps)
    if node.data == "alternation":
        return evaluate(children[(step - 1) % len(children)], step, steps)
    return "".join(evaluate(child, step, steps) for child in children)


def nested(inner):
    when = st.sampled_from(["3", "0.5", " .25 ", "12", "0", "-1", "7.", "+4"])
    return st.one_of(
        st.builds("[{}:{}:{}]".format, inner, inner, when),
        st.builds("[{}:{}]".format, inner, when),
        st.builds("[{}|{}|{}]".format, inner, inner, inner),
        st.builds("[{}]".format, inner),
        st.builds("({})".format, inner),
        st.builds("({}:1.3)".format, inner),
        st.builds("{}{}".format, inner, inner),
    )


WELL_FORMED = st.recursive(st.sampled_from(["a", "b c", " ", "", r"\[", r"\:", "1"]), nested, max_leaves=6)


def stages(*pairs):
    return tuple(Stage(*pair) for pair in pairs)


def alternating(*texts):
    return stages(*((step, texts[(step - 1) % len(texts)]) for step in range(1, STEPS + 1)))


@pytest.mark.parametrize(("prompt", "expected"), [
    ("test", stages((10, "test"))),
    ("", stages((10, ""))),
    ("a [b:3]", stages((3, "a "), (10, "a b"))),
    ("a [b: 3]", stages((3, "a "), (10, "a b"))),
    ("a [b:3 ]", stages((3, "a "), (10, "a b"))),
    ("a [b::3]", stages((3, "a b"), (10, "a "))),
    ("a [[[b]]:2]", stages((2, "a "), (10, "a [[b]]"))),
    ("[(a:2):3]", stages((3, ""), (10, "(a:2)"))),
    ("a [b : c : 1] d", stages((1, "a b  d"), (10, "a  c  d"))),
    ("a[b:[c:d:2]:1]e", stages((1, "abe"), (2, "ace"), (10, "ade"))),
    ("a [unbalanced", stages((10, "a [unbalanced"))),
    ("a [b:.5] c", stages((5, "a  c"), (10, "a b c"))),
    ("a [b:1.0] c", stages((10, "a  c"))),
    ("((a][:b:c [d:3]", stages((3, "((a][:b:c "), (10, "((a][:b:c d"))),
    ("(x [a:b:3]", stages((3, "(x a"), (10, "(x b"))),
    ("[a:b:3]]", stages((3, "a]"), (10, "b]"))),
    ("a:b [c:d:5]", stages((5, "a:b c"), (10, "a:b d"))),
    ("[a|(b:1.1)]", alternating("a", "(b:1.1)")),
    ("[fe|]male", alternating("female", "male")),
    ("[fe|||]male", alternating("female", "male", "male", "male")),
    ("[a|b|[c:d:2]]", alternating("a", "b", "d")),
    ("[a:b:0]", stages((10, "b"))),
    ("[a:b:-1]", stages((10, "b"))),
    ("[a:b:1e1]", stages((10, "a"))),
    ("[a:b:99]", stages((10, "a"))),
    ("[a:b:1e999]", stages((10, "a"))),
    ("[1:2:3]", stages((3, "1"), (10, "2"))),
    (r"[a\:b:c:5]", stages((5, r"a\:b"), (10, "c"))),
    (r"\[a:b:5]", stages((10, r"\[a:b:5]"))),
    ("[a:b]", stages((10, "[a:b]"))),
    ("[5]", stages((10, "[5]"))),
    ("[a:b: 5 5]", stages((10, "[a:b: 5 5]"))),
    ("[a:b:0.5:c:5]", stages((10, "[a:b:0.5:c:5]"))),
    ("[(a:b:c):d:5]", stages((10, "[(a:b:c):d:5]"))),
    ("[x [a:b] :y:5]", stages((10, "[x [a:b] :y:5]"))),
    ("[a (b:c:5]", stages((10, "[a (b:c:5]"))),
    # A bar that belongs to no alternation makes the whole prompt plain text.
    ("a [{b|d{:.5] c", stages((10, "a [{b|d{:.5] c"))),
    ("(a|b) [c:d:5]", stages((10, "(a|b) [c:d:5]"))),
    ("[a:3] [b|c", stages((10, "[a:3] [b|c"))),
    ("[a:b:3] \\", stages((10, "[a:b:3] \\"))),
])
def test_schedules_are_the_known_ones(prompt, expected):
    assert schedule(prompt, STEPS) == expected


def test_the_example_of_many_edits():
    prompt = ("fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6]"
              "[ in background:0.25] [shoddy:masterful:0.5]")
    assert schedule(prompt, 100) == stages(
        (25, "fantasy landscape with a mountain and an oak in foreground shoddy"),
        (50, "fantasy landscape with a lake and an oak in foreground in background shoddy"),
        (60, "fantasy landscape with a lake and an oak in foreground in background masterful"),
        (75, "fantasy landscape with a lake and an oak in background masterful"),
        (100, "fantasy landscape with a lake and a christmas tree in background masterful"),
    )


@pytest.mark.parametrize(("prompt", "expected"), [
    ("a [b:.5] c", stages((10, "a b c"))),
    ("a [b:1.5] c", stages((5, "a  c"), (10, "a b c"))),
    ("a [b:c:3]", stages((10, "a c"))),
    ("a [b:c:13]", stages((3, "a b"), (10, "a c"))),
    ("a [b:c:1]", stages((10, "a c"))),
])
def test_the_second_pass_counts_on(prompt, expected):
    assert schedule(prompt, 10, hires_steps=10) == expected


@pytest.mark.parametrize(("prompt", "hires_steps", "expected"), [
    ("[a:b:.5]", None, stages((5, "a"), (10, "b"))),
    ("[a:b:1.5]", None, stages((1, "a"), (10, "b"))),
    ("[a:b:.5]", 4, stages((5, "a"), (10, "b"))),
])
def test_old_timelines_are_the_same_in_both_passes(prompt, hires_steps, expected):
    assert schedule(prompt, 10, hires_steps=hires_steps, old_timelines=True) == expected


@settings(max_examples=60, deadline=None)
@given(WELL_FORMED, st.integers(1, 12))
def test_well_formed_prompts_agree_with_a_general_parser(prompt, steps):
    tree = GRAMMAR.parse(prompt)
    result = schedule(prompt, steps)
    for step in range(1, steps + 1):
        text = next(stage.text for stage in result if step <= stage.until)
        assert text == evaluate(tree, step, steps)


@given(st.text(alphabet="ab[]():|\\ .5\n", max_size=60), st.integers(1, 30), st.one_of(st.none(), st.integers(1, 30)))
def test_every_step_has_a_text(prompt, steps, hires_steps):
    result = schedule(prompt, steps, hires_steps)
    ends = [stage.until for stage in result]
    assert ends == sorted(set(ends))
    assert ends[0] >= 1
    assert ends[-1] == (steps if hires_steps is None else hires_steps)


@given(st.text(alphabet=st.characters(exclude_characters="[]|\\"), max_size=80))
def test_text_without_square_brackets_is_one_stage(prompt):
    assert schedule(prompt, 20) == (Stage(20, prompt),)


@pytest.mark.parametrize(("step", "expected"), [(0, "a"), (3, "a"), (4, "b"), (10, "b"), (11, "a")])
def test_calls_count_from_zero_and_ends_are_inclusive(step, expected):
    assert text_at(schedule("[a:b:3]", 10), step) == expected


def test_parts_carry_their_weights_and_stages():
    assert plan_prompts("[a:b:3] :1.5 AND c", 10) == (
        Part(1.5, stages((3, "a"), (10, "b"))),
        Part(1.0, stages((10, " c"))),
    )


@pytest.mark.parametrize("prompt", [
    *(unit * (200_000 // len(unit)) for unit in ("[", ")", "|", ":", "\\", "[a|b]", "[a:b:3]", "([", "[(])", "[|",
                                                 "(:", "[::", "[]", ":3]")),
    "[" * 66_000 + ":1]" * 44_000,
    "[" * 50_000 + "a" + ":1]" * 50_000,
    "[a|" * 50_000 + "b" + "]" * 50_000,
    "[" * 100_000 + "]" * 100_000,
    "[a:b:" + " " * 100_000 + "x]",
    "[a:b:" + "1" * 100_000 + "x]",
], ids=lambda prompt: prompt[:8])
def test_very_long_prompts_are_scheduled(prompt):
    result = schedule(prompt, 20)
    assert result[-1].until == 20
    assert all(len(stage.text) <= len(prompt) for stage in result)


def test_deep_edits_are_still_edits():
    assert schedule("[" * 50_000 + "a" + ":1]" * 50_000, 20) == stages((1, ""), (20, "a"))
