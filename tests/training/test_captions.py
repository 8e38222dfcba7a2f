import random
from collections import Counter

from modules.training import captions
from modules.training.captions import Scene
from modules.training.compose import NATURAL
from modules.training.config import CaptionConfig
from modules.training.dataset import Entry

CAT = Entry("1f408", "cat", "cat", "animals", ("pet",))


def entry(label):
    return Entry("0", label, label.partition(":")[0], "people", ())


def test_subjects_are_plain_words():
    assert captions.subject(CAT) == "cat"
    assert captions.subject(entry("waving hand: dark skin tone")) == "waving hand with dark skin tone"
    assert captions.subject(entry("flag: Norway")) == "flag norway"
    assert captions.subject(entry("kiss: man, man")) == "kiss with man and man"
    assert captions.subject(entry("woman’s hat")) == "woman's hat"


def test_every_deviation_is_named():
    scene = Scene(0, "blue", "yellow", True, "on the left")
    for seed in range(20):
        text = captions.compose_caption(scene, CAT, random.Random(seed), tags=0.5)
        assert text.removeprefix("a ").startswith("small blue cat")
        assert text.endswith("on the left on a yellow background")


def test_the_plain_picture_is_often_just_its_label():
    texts = Counter(captions.compose_caption(Scene(0), CAT, random.Random(seed)) for seed in range(400))
    assert set(texts) == {"cat", "a cat", "cat on a white background", "a cat on a white background"}
    assert texts["cat"] > texts["cat on a white background"] > 20


def test_keywords_follow_the_label():
    text = captions.compose_caption(Scene(0), CAT, random.Random(3), tags=1.0)
    assert text.removeprefix("a ").startswith("cat, pet,")


def test_articles_follow_the_sound_of_vowels():
    assert captions.article("owl") == "an owl" and captions.article("cat") == "a cat"


def test_held_out_combinations_never_appear_in_training():
    config = CaptionConfig(tinted=1.0, ground=1.0, held_out=0.3)
    scenes = captions.draw_scenes([CAT], config, 600, 0)
    assert not any(captions.held_out("cat", scene.colour, scene.ground, 0.3) for scene in scenes)
    seen = {(scene.colour, scene.ground) for scene in scenes}
    assert 40 < len(seen) < 60  # of 70, a third of the 63 that are not on white are kept apart


def test_only_named_combinations_are_held_out():
    assert not captions.held_out("cat", NATURAL, "blue", 1.0)
    assert not captions.held_out("cat", "blue", "white", 1.0)
    assert captions.held_out("cat", "blue", "red", 1.0)


def test_scenes_are_drawn_at_the_rates_asked_for():
    scenes = captions.draw_scenes([CAT], CaptionConfig(tinted=0.5, ground=0.5, placed=0.2, held_out=0.0), 2001, 1)
    assert scenes[0] == Scene(0)
    assert 0.45 < sum(scene.colour != NATURAL for scene in scenes) / 2000 < 0.55
    assert 0.4 < sum(scene.ground != "white" for scene in scenes) / 2000 < 0.5  # white is also one of the ten
    assert 0.16 < sum(scene.small for scene in scenes) / 2000 < 0.24
    assert all(scene.small for scene in scenes if scene.place)


def test_scenes_and_wordings_repeat_and_depend_on_the_picture_alone():
    dog = Entry("1f415", "dog", "dog", "animals", ())
    together = captions.draw_scenes([CAT, dog], CaptionConfig(), 5, 7)
    alone = captions.draw_scenes([dog], CaptionConfig(), 5, 7)
    assert [scene.colour for scene in together[5:]] == [scene.colour for scene in alone]
    assert captions.wordings(together[1], CAT, CaptionConfig(), 3, 0) == captions.wordings(
        together[1], CAT, CaptionConfig(), 3, 0
    )
