import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.core.errors import InvalidModel
from modules.runtime.patches import (
    TOKENS,
    Applied,
    AttentionHook,
    Embedding,
    Replacement,
    WeightDelta,
    apply,
    low_rank,
    undo,
    wording,
)


class TextEncoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = torch.nn.Module()
        self.embeddings.token_embedding = torch.nn.Embedding(10, 4)


class Model:
    def __init__(self, dtype=torch.float32):
        torch.manual_seed(0)
        unet = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Conv2d(6, 5, 1)).to(dtype)
        self.modules = {"unet": unet, "text_encoder": TextEncoder().to(dtype)}
        self.applied = Applied()

    def parameters(self):
        return {(part, name): value
                for part, module in self.modules.items() for name, value in module.named_parameters()}


def delta(name, key, scale, seed=0):
    shape = {"0.weight": (6, 4), "1.weight": (5, 6)}[name]
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(shape[0], 2, generator=generator), torch.randn(2, shape[1], generator=generator)
    return WeightDelta("unet", name, key, scale, low_rank(up, down, 0.5))


def embedding(word, count, seed=0):
    vectors = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return Embedding("text_encoder", word, word, 1.0, vectors)


POOL = (
    delta("0.weight", "a", 0.7), delta("0.weight", "a", 0.2), delta("0.weight", "b", -1.0, 1),
    delta("1.weight", "a", 1.0), embedding("cat", 2), embedding("dog", 1, 1),
    AttentionHook("attn1", "h", 1.0, lambda scale: lambda layer, go: go(layer)),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_deltas_are_added_in_float32_and_rounded_once(dtype):
    model = Model(dtype)
    before = model.modules["unet"][0].weight.detach().clone()
    apply(model, [POOL[0], POOL[2]])
    expected = before.double()
    for patch in (POOL[0], POOL[2]):
        expected += patch.scale * patch.delta(before.float()).double()
    expected = expected.float().to(dtype)
    rtol = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(model.modules["unet"][0].weight, expected, rtol=rtol, atol=1e-6)
    assert model.modules["unet"][0].weight.dtype == dtype


def replacement(key, seed=0, shape=(6, 4)):
    value = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Replacement("unet", "0.weight", key, lambda: value)


def test_a_replacement_takes_the_weights_place_and_changes_are_made_to_it():
    model = Model(torch.float16)
    before = model.modules["unet"][0].weight
    apply(model, [POOL[0], replacement("other")])
    base = replacement("other").value().half()
    expected = base.double() + 0.7 * POOL[0].delta(base.float()).double()
    torch.testing.assert_close(model.modules["unet"][0].weight.double(), expected, rtol=1e-3, atol=1e-6)
    apply(model, [replacement("other")])
    assert torch.equal(model.modules["unet"][0].weight, base)
    first = model.modules["unet"][0].weight
    apply(model, [replacement("other"), POOL[3]])
    assert model.modules["unet"][0].weight is first
    apply(model, [])
    assert model.modules["unet"][0].weight is before


def test_a_replacement_may_have_other_sides_of_one_and_must_fit():
    model = Model()
    apply(model, [replacement("wide", shape=(6, 4, 1, 1))])
    assert model.modules["unet"][0].weight.shape == (6, 4)
    with pytest.raises(InvalidModel, match="wrong does not fit"):
        apply(model, [replacement("wrong", shape=(4, 6))])
    assert model.applied == Applied()


def test_a_replacement_of_a_text_encoder_changes_how_texts_are_encoded():
    model = Model()
    table = torch.ones(10, 4)
    apply(model, [Replacement("text_encoder", TOKENS, "merge", lambda: table), POOL[4]])
    assert torch.equal(model.modules["text_encoder"].embeddings.token_embedding.weight[:10], table)
    assert len(wording(model.applied)) == 2 and model.applied.words["text_encoder"]["cat"] == (10, 11)


def test_a_weight_of_eight_bits_is_replaced_by_one_of_sixteen():
    model = Model(torch.float8_e4m3fn)
    weight = model.modules["unet"][0].weight
    before = weight.detach().double()
    apply(model, [POOL[0]])
    changed = model.modules["unet"][0].weight
    expected = before + 0.7 * POOL[0].delta(before.float()).double()
    assert changed.dtype == torch.float16
    torch.testing.assert_close(changed.double(), expected, rtol=1e-3, atol=1e-6)
    undo(model)
    assert model.modules["unet"][0].weight is weight


def test_a_change_beyond_what_a_type_can_hold_is_refused_and_undone():
    model = Model(torch.float16)
    originals = model.parameters()
    with pytest.raises(InvalidModel, match="huge makes 0.weight larger"):
        apply(model, [POOL[3], WeightDelta("unet", "0.weight", "huge", 1e9, torch.ones_like)])
    assert all(model.parameters()[place] is value for place, value in originals.items())


def test_low_rank_changes_pointwise_convolutions():
    model = Model()
    before = model.modules["unet"][1].weight.detach().clone()
    up, down = torch.randn(5, 3, 1, 1), torch.randn(3, 6, 1, 1)
    apply(model, [WeightDelta("unet", "1.weight", "c", 2.0, low_rank(up, down, 0.25))])
    expected = before + 0.5 * torch.einsum("or,ri->oi", up[..., 0, 0], down[..., 0, 0])[..., None, None]
    torch.testing.assert_close(model.modules["unet"][1].weight, expected)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(POOL), max_size=5, unique=True), min_size=1, max_size=6))
def test_any_sequence_is_undone_bit_by_bit(sequence):
    model, fresh = Model(torch.float16), Model(torch.float16)
    originals = model.parameters()
    for wanted in sequence:
        apply(model, wanted)
        assert model.applied.patches == tuple(wanted)
    # What is in force depends on the last plan alone.
    apply(fresh, sequence[-1])
    assert all(torch.equal(value, fresh.parameters()[place]) for place, value in model.parameters().items())
    undo(model)
    assert all(model.parameters()[place] is value for place, value in originals.items())
    assert all(torch.equal(value, Model(torch.float16).parameters()[place]) for place, value in originals.items())


def test_the_same_plan_again_touches_nothing():
    model, calls = Model(), []

    def counted(weight):
        calls.append(1)
        return torch.ones_like(weight)

    for _ in range(3):
        apply(model, [WeightDelta("unet", "0.weight", "x", 1.0, counted)])
    assert len(calls) == 1
    apply(model, [WeightDelta("unet", "0.weight", "x", 0.5, counted)])
    assert len(calls) == 2


@given(sequence=st.lists(st.lists(st.sampled_from(POOL), max_size=6), min_size=2, max_size=5))
@settings(max_examples=40, deadline=None)
def test_going_from_one_set_to_another_is_the_same_as_coming_from_none(sequence):
    model, fresh = Model(torch.float16), Model(torch.float16)
    for patches in sequence:
        apply(model, patches)
    apply(fresh, sequence[-1])
    expected = fresh.parameters()
    assert all(torch.equal(value, expected[place]) for place, value in model.parameters().items())
    assert model.applied.words == fresh.applied.words
    assert model.applied.originals.keys() == fresh.applied.originals.keys()


def test_a_change_of_one_of_many_reads_and_writes_only_what_it_touches():
    model, read = Model(), []

    def change(part, name, key, scale):
        def counted(weight):
            read.append((key, name))
            return torch.ones_like(weight)
        return WeightDelta(part, name, key, scale, counted)

    def wanted(scale):
        return [change("unet", "0.weight", f"everywhere {number}", 1.0) for number in range(15)] + [
            change("unet", "1.weight", "here", scale), POOL[4]]

    apply(model, wanted(0.5))
    assert len(read) == 16
    before = model.parameters()
    read.clear()
    apply(model, wanted(0.7))
    assert read == [("here", "1.weight")]
    after = model.parameters()
    assert [place for place in after if after[place] is not before[place]] == [("unet", "1.weight")]
    apply(model, wanted(0.7)[:15])
    assert read == [("here", "1.weight")] and len(model.applied.originals) == 1


def test_words_get_ids_after_the_vocabulary():
    model = Model()
    patch = delta("0.weight", "a", 1.0)
    apply(model, [POOL[4], patch, POOL[5]])
    assert model.applied.words == {"text_encoder": {"cat": (10, 11), "dog": (12,)}}
    table = model.modules["text_encoder"].get_parameter(TOKENS)
    assert table.shape == (13, 4)
    assert torch.equal(table[10:12], POOL[4].vectors) and torch.equal(table[12:], POOL[5].vectors)


def test_a_delta_and_words_on_one_table_are_both_undone():
    model = Model()
    original = model.modules["text_encoder"].get_parameter(TOKENS)
    shift = WeightDelta("text_encoder", TOKENS, "s", 1.0, torch.ones_like)
    apply(model, [shift, POOL[4]])
    table = model.modules["text_encoder"].get_parameter(TOKENS)
    torch.testing.assert_close(table[:10], original + 1)
    undo(model)
    assert model.modules["text_encoder"].get_parameter(TOKENS) is original


def test_hooks_get_their_scale():
    model = Model()
    apply(model, [AttentionHook("attn1", "h", 0.3, lambda scale: lambda layer, go: scale)])
    assert model.applied.hooks["attn1"][0](None, None) == 0.3


@pytest.mark.parametrize("bad", [
    WeightDelta("unet", "9.weight", "x", 1.0, torch.ones_like),
    WeightDelta("decoder", "0.weight", "x", 1.0, torch.ones_like),
    WeightDelta("unet", "1.weight", "x", 1.0, low_rank(torch.ones(7, 1), torch.ones(1, 3))),
    Embedding("text_encoder", "wide", "x", 1.0, torch.ones(1, 9)),
])
def test_a_patch_for_another_model_leaves_this_one_as_it_was(bad):
    model = Model()
    originals = model.parameters()
    apply(model, [POOL[3]])
    with pytest.raises(InvalidModel, match="another kind of model"):
        apply(model, [POOL[0], POOL[4], bad])
    assert all(model.parameters()[place] is value for place, value in originals.items())
    assert model.applied == Applied()
