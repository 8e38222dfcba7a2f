import dataclasses

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch.utils._python_dispatch import TorchDispatchMode

from modules.runtime.attention import Attend, AttentionCall, install, install_in_autoencoder
from modules.runtime.attention_backends import AttentionBackend, fixed
from modules.runtime.attention_choice import AttentionChooser, open_attention

NAME = "mid_block.attentions.0.transformer_blocks.0.attn2"


class Operations(TorchDispatchMode):
    """Writes down the name of every operation."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


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


VIEWS = {"view", "_unsafe_view", "transpose", "t", "unflatten", "flatten", "expand"}


def test_on_a_cpu_a_layer_is_diffusers_operations_and_no_more(layer):
    hidden, context = tensors()
    processor = Attend(NAME, open_attention("cpu", (0, 0), {}, lambda: 0))
    with torch.no_grad(), Operations() as ours:
        processor(layer, hidden, context)
    with torch.no_grad(), Operations() as diffusers:
        AttnProcessor2_0()(layer, hidden, context)
    work = [name for name in ours.names if name not in VIEWS]
    assert work == [name for name in diffusers.names if name not in VIEWS | {"div"}]  # they divide by 1 at the end
    assert sum("scaled_dot_product" in name for name in work) == 1


def test_hooks_get_the_backend_that_was_chosen(layer):
    hidden, context = tensors()
    chooser = AttentionChooser([AttentionBackend("zero", fixed(lambda q, k, v: q * 0), automatic=True)])
    seen = []

    def hook(attention, proceed):
        seen.append(attention.core)
        return proceed(attention)

    call = AttentionCall(None, {NAME: (hook,)})
    hooked = Attend(NAME, chooser)(layer, hidden, context, attention=call)
    assert seen == [chooser.attend]
    assert torch.equal(hooked, Attend(NAME, chooser)(layer, hidden, context))
    assert torch.equal(hooked, layer.to_out[0].bias.expand(hooked.shape))


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    return AutoencoderKL(block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
                         down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2).eval()


def test_an_autoencoder_is_exact(autoencoder):
    x, latent = torch.randn(2, 3, 16, 24), torch.randn(1, 4, 8, 6)
    with torch.no_grad():
        expected = autoencoder.encode(x).latent_dist.mean, autoencoder.decode(latent).sample
        install_in_autoencoder(autoencoder, AttentionChooser())
        assert torch.equal(autoencoder.encode(x).latent_dist.mean, expected[0])
        assert torch.equal(autoencoder.decode(latent).sample, expected[1])


@pytest.mark.parametrize("flag", ["opt_sub_quad_attention", "opt_split_attention", "opt_split_attention_v1"])
def test_an_autoencoder_in_pieces(autoencoder, flag):
    latent = torch.randn(1, 4, 8, 6)
    with torch.no_grad():
        expected = autoencoder.decode(latent).sample
        flags = {flag: True, "sub_quad_q_chunk_size": 7, "sub_quad_kv_chunk_size": 5}
        install_in_autoencoder(autoencoder, open_attention("cpu", (0, 0), flags, lambda: 1 << 12))
        torch.testing.assert_close(autoencoder.decode(latent).sample, expected)
