import pytest

from modules.library.training_metadata import TAGS, facts, trained_tags


@pytest.mark.parametrize("text", [
    "", "[", "[]", '{"a": 1}', '{"a": {"x": "y"}}', '{"a": {"x": null}}', '{"a": {"x": 1e999}}', "[" * 99_999])
def test_counts_of_words_that_are_none_are_passed_over(text) -> None:
    assert trained_tags({TAGS: text}) == []


def test_the_commonest_words_come_first() -> None:
    counts = '{"a": {" x ": 1, "y": 5}, "b": {"x": 7, "": 9}}'
    assert trained_tags({TAGS: counts}) == [("x", 8), ("y", 5)]


def test_facts_are_those_that_are_told() -> None:
    told = {"ss_network_dim": "16", "ss_network_alpha": "None", "modelspec.author": "", "other": "x",
            "ss_sd_model_name": "m" * 999}
    assert facts(told) == {"Trained on": "m" * 200, "Rank": "16"}


def test_words_that_are_no_text_are_told_as_far_as_they_are() -> None:
    assert trained_tags({TAGS: '{"a": {"\\ud800x": 1}}'}) == [("?x", 1)]
    assert len(trained_tags({TAGS: f'{{"a": {{"{"x" * 100_000}": 1}}}}'})[0][0]) == 200
    assert facts({"modelspec.title": "\ud800x"}) == {"Title": "?x"}


def test_counts_stay_numbers_that_can_be_told() -> None:
    assert trained_tags({TAGS: f'{{"a": {{"x": {"9" * 4000}}}, "b": {{"x": 1}}}}'}) == [("x", 10**9 + 1)]
