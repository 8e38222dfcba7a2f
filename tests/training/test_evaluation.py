import pytest
import torch

from modules.training import evaluation, latents
from modules.training.captions import Scene, held_out
from modules.training.compose import GROUNDS, OBJECTS
from modules.training.evaluation import Question
from modules.training.styles import Duotone

CPU = torch.device("cpu")


@pytest.mark.parametrize(("rgb", "wanted"), [  # published values for sRGB and D65
    ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
    ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
    ((0.0, 1.0, 0.0), (87.73, -86.18, 83.18)),
    ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
    ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
])
def test_lab_of_the_primaries(rgb, wanted):
    assert evaluation.lab(torch.tensor(rgb)).tolist() == pytest.approx(wanted, abs=0.02)


def test_grounds_and_colours_are_read_from_composed_pictures(data):
    asked = [(colour, ground) for colour in OBJECTS for ground in GROUNDS if colour != ground]
    pixels = latents.render(data, [Scene(0, colour, ground) for colour, ground in asked], CPU)
    assert evaluation.share(evaluation.grounds(pixels), [ground for _, ground in asked]) == 1.0
    assert evaluation.share(evaluation.colours(pixels), [colour for colour, _ in asked]) >= 0.95


def test_an_empty_picture_has_no_colour():
    assert evaluation.colours(torch.ones(1, 3, 16, 16)) == ["none"]


def test_a_training_picture_is_nearest_to_itself(data):
    pixels = latents.render(data, [Scene(index) for index in range(len(data.entries))], CPU)
    noisy = (pixels + 0.05 * torch.randn(pixels.shape)).clamp(-1, 1)
    assert evaluation.nearest_labels(noisy, data) == [entry.label for entry in data.entries]


def test_label_questions_spread_over_the_data(data):
    questions = evaluation.label_questions(data.entries, 4)
    assert len({question.label for question in questions}) == 4
    assert questions[0] == Question("a waving hand", "waving hand", "white")
    assert len(evaluation.label_questions(data.entries, 99)) == len(data.entries)


def test_combination_questions_are_held_out_ones(data):
    questions = evaluation.combination_questions(data.entries, 20, 0.2)
    assert len(questions) == 20
    bases = {entry.label: entry.base for entry in data.entries}
    for question in questions:
        assert held_out(bases[question.label], question.colour, question.ground, 0.2)
        assert question.colour in question.prompt and question.prompt.endswith(f"{question.ground} background")
        assert question.colour != question.ground
    assert evaluation.combination_questions(data.entries, 5, 0.0) == []


def test_shares_are_of_equal_answers():
    assert evaluation.share(["a", "b", "c", "d"], ["a", "x", "c", "y"]) == 0.5


def test_reconstruction_is_reported_for_both_grounds(data):
    class Same:
        def encode(self, pixels):
            return type("Posterior", (), {"latent_dist": type("Latent", (), {"mean": pixels})})

        def decode(self, values):
            return type("Decoded", (), {"sample": values + 0.02})

    found = evaluation.reconstruction(Same(), data)
    assert found["blue"] == pytest.approx(40.0, abs=0.2) and found["white"] >= 40.0


def test_distance_from_a_palette_is_that_to_the_nearest_mixture():
    style = Duotone(lights=(0, 0, 0), shadows=(200, 0, 0))
    colours = torch.tensor([(100, 0, 0), (100, 30, 40), (0, 0, 60), (255, 0, 0)]) / 127.5 - 1
    pictures = colours[:, :, None, None].expand(4, 3, 2, 2)
    assert torch.allclose(evaluation.off_palette(pictures, style), torch.tensor([0.0, 50, 60, 55]), atol=1e-3)
