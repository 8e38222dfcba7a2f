import dataclasses

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from modules.runtime.attention import Attend, AttentionCall, install

NAME = "mid_block.attentions.0.transformer_blocks.0.attn2"


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Attention(query_dim=24, cross_attention_dim=16, heads=4, dim_head=6).eval()


def tensors():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 9, 24, generator=generator), torch.randn(2, 5, 16, generator=generator)


def run(layer, hidden, context, *hooks, name=NAME, key=NAME):
    call = AttentionCall("the inputs", {key: hooks})
    return Attend(name)(layer, hidden, context, attention=call)


def test_without_hooks_it_is_diffusers_processor(layer):
    hidden, context = tensors()
    assert torch.equal(Attend(NAME)(layer, hidden, context), AttnProcessor2_0()(layer, hidden, context))
    itself = Attention(query_dim=24, heads=4, dim_head=6)
    assert torch.equal(Attend(NAME)(itself, hidden), AttnProcessor2_0()(itself, hidden))


def test_without_hooks_a_whole_network_is_exact():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=16, layers_per_block=1,
    ).eval()
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    seen = []

    def see(attention, proceed):
        seen.append(attention.name)
        return proceed(attention)

    with torch.no_grad():
        expected = unet(x, 10.0, context).sample
        install(unet)
        plain = unet(x, 10.0, context, cross_attention_kwargs={"attention": AttentionCall()}).sample
        hooked = unet(x, 10.0, context, cross_attention_kwargs={
            "attention": AttentionCall(None, {"attn1": (see,), NAME: (see, see)}),
        }).sample
    assert torch.equal(plain, expected) and torch.equal(hooked, expected)
    layers = [name for name in unet.attn_processors]
    assert len(seen) == sum("attn1" in name for name in layers) + 2 and seen.count(NAME) == 2


def test_hooks_nest_the_kind_outside_the_name(layer):
    order = []

    def named(name):
        def hook(attention, proceed):
            order.append(name)
            out = proceed(attention)
            order.append(f"/{name}")
            return out
        return hook

    hidden, context = tensors()
    call = AttentionCall(None, {NAME: (named("a"), named("b")), "attn2": (named("kind"),), "attn1": (named("no"),)})
    Attend(NAME)(layer, hidden, context, attention=call)
    assert order == ["kind", "a", "b", "/b", "/a", "/kind"]


def test_a_hook_sees_the_inputs_of_the_call(layer):
    hidden, context = tensors()
    seen = []
    run(layer, hidden, context, lambda attention, proceed: seen.append(attention) or proceed(attention))
    assert seen[0].inputs == "the inputs" and seen[0].name == NAME and seen[0].hidden is hidden


def test_contexts_can_be_replaced_as_by_a_hypernetwork(layer):
    hidden, context = tensors()

    def hook(attention, proceed):
        return proceed(dataclasses.replace(attention, key_context=context * 2, value_context=context + 1))

    def manual(q, k, v):
        split = [part.unflatten(-1, (4, 6)).transpose(1, 2) for part in (q, k, v)]
        weights = (split[0] @ split[1].transpose(-1, -2) / 6**0.5).softmax(-1)
        return layer.to_out[0]((weights @ split[2]).transpose(1, 2).flatten(2))

    expected = manual(layer.to_q(hidden), layer.to_k(context * 2), layer.to_v(context + 1))
    torch.testing.assert_close(run(layer, hidden, context, hook), expected)


def test_an_image_adapter_adds_attention_before_the_projection(layer):
    hidden, context = tensors()
    extra = torch.randn(2, 4, 3, 6)

    def hook(attention, proceed):
        def core(q, k, v):
            return attention.core(q, k, v) + 0.5 * attention.core(q, extra, extra)
        return proceed(dataclasses.replace(attention, core=core))

    q = layer.to_q(hidden).unflatten(-1, (4, 6)).transpose(1, 2)
    added = ((q @ extra.transpose(-1, -2) / 6**0.5).softmax(-1) @ extra).transpose(1, 2).flatten(2)
    expected = Attend(NAME)(layer, hidden, context) + 0.5 * added @ layer.to_out[0].weight.T
    torch.testing.assert_close(run(layer, hidden, context, hook), expected)


def test_perturbed_rows_take_their_own_values(layer):
    itself = Attention(query_dim=24, heads=4, dim_head=6)
    hidden, _ = tensors()

    def hook(attention, proceed):
        def core(q, k, v):
            return torch.cat([attention.core(q[:1], k[:1], v[:1]), v[1:]])
        return proceed(dataclasses.replace(attention, core=core))

    plain, perturbed = Attend(NAME)(itself, hidden), run(itself, hidden, None, hook)
    torch.testing.assert_close(perturbed[:1], plain[:1])
    torch.testing.assert_close(perturbed[1:], itself.to_out[0](itself.to_v(hidden[1:])))


def test_tokens_can_be_merged_and_restored(layer):
    itself = Attention(query_dim=24, heads=4, dim_head=6)
    hidden, _ = tensors()

    def hook(attention, proceed):
        merged = attention.hidden[:, ::3]
        return proceed(dataclasses.replace(attention, hidden=merged)).repeat_interleave(3, dim=1)

    assert run(itself, hidden, None, hook).shape == hidden.shape
