"""Isolation of regions in self-attention: who sees whom, in which blocks, at which cost in memory."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Memory
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.loader import collate
from ragaf_exp.experiments.experiment import run
from ragaf_exp.models.backbones.attention import BiasedAttention, WordBias
from ragaf_exp.models.backbones.dit import DiT
from ragaf_exp.models.backbones.isolation import Columns, attention
from ragaf_exp.models.backbones.joint_attention import JointAttention
from ragaf_exp.models.backbones.mmdit import MMDiT
from ragaf_exp.models.backbones.pretrained_transformer import PretrainedTransformer
from ragaf_exp.models.backbones.token_attention import SelfAttention
from ragaf_exp.models.backbones.unet import TinyUNet
from ragaf_exp.models.conditioning import RegionState, Text
from ragaf_exp.models.regions.word_mask import WordMask
from ragaf_exp.plan.predict import predict
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.memory import save_memory

CHANNELS, WIDTH, TOKENS = 12, 16, 5
BACKBONES = {
    "unet": lambda: TinyUNet(CHANNELS, WIDTH, 2, widths=(32, 64), heads=2, head_width=0),
    "dit": lambda: DiT(CHANNELS, WIDTH, 2, width=32, depth=2, heads=2, head_width=0),
    "mmdit": lambda: MMDiT(CHANNELS, WIDTH, 2, width=32, depth=2, heads=2, head_width=0),
}


def text(items: int = 1) -> Text:
    return Text(torch.randn(items, TOKENS, WIDTH), torch.ones(items, TOKENS, dtype=torch.bool))


def state(sizes, items: int = 1, seed: int = 0) -> RegionState:
    """The background (0), above it two objects (1 left, 2 right), and below it, in the last row, no region."""
    masks = {}
    for h, w in sizes:
        labels = torch.zeros(h, w, dtype=torch.long)
        labels[: h // 2, : w // 2 - (w > 2)], labels[: h // 2, w // 2 :] = 1, 2
        labels[-1] = -1
        masks[h, w] = (labels == torch.arange(3)[:, None, None]).float().expand(items, -1, -1, -1)
    attention = torch.rand(items, 3, TOKENS, generator=torch.Generator().manual_seed(seed))
    nothing = torch.zeros(items, 3, WIDTH)
    real, background = torch.ones(items, 3, dtype=torch.bool), torch.tensor([[1.0, 0, 0]]).expand(items, -1)
    return RegionState(nothing, nothing, attention, real, masks, background=background)


def case(backbone: str, height: int, width: int, items: int = 1, **settings):
    """A backbone whose layers at zero are random, the regions of its latents, and the mask with isolation."""
    torch.manual_seed(0)
    net = BACKBONES[backbone]()
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    shapes = net.shapes(height, width)
    regions = state({shape[1:] for shape in shapes.values()}, items)
    mask = WordMask(shapes, WIDTH, net.cross_layers, **{"strength": 10.0, "isolate": 1.0} | settings)
    return net, regions, mask


def own_attention(net, changed, *inputs) -> dict[int, torch.Tensor]:
    """Call the network, and `changed` with the index and the inputs of every layer of self-attention.

    Each layer gets what it returns: image tokens, those of the text if they are read together, and further arguments.
    Returns the outputs of these layers.
    """
    layers = [m for m in net.modules() if isinstance(m, (SelfAttention, JointAttention))]
    layers = layers or [m for name, m in net.named_modules() if name.endswith(".attn1")]
    outputs: dict[int, torch.Tensor] = {}

    def keep(i, out):
        outputs[i] = out[0] if isinstance(out, tuple) else out

    with ExitStack() as stack, torch.no_grad():
        for i, layer in enumerate(layers):
            before = layer.register_forward_pre_hook(lambda _, args, i=i: changed(i, args))
            after = layer.register_forward_hook(lambda _, args, out, i=i: keep(i, out))
            stack.callback(before.remove)
            stack.callback(after.remove)
        net(*inputs)
    return outputs


def members(regions: RegionState, tokens: int) -> torch.Tensor:
    """The region of each token, -1 = none."""
    (masks,) = [m for (h, w), m in regions.soft_masks.items() if h * w == tokens]
    flat = masks.flatten(2)[0]
    return torch.where(flat.amax(0) > 0, flat.argmax(0), -1)


def with_other(regions: RegionState, x: torch.Tensor) -> torch.Tensor:
    """Replace the tokens of the right object."""
    return torch.where((members(regions, x.shape[1]) == 2)[:, None], torch.randn_like(x), x)


@pytest.mark.parametrize("size", [(8, 8), (8, 16)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_objects_do_not_see_each_other_and_the_background_sees_all(backbone, size):
    """The inputs of every layer are those of an unchanged run, except those of the right object."""
    net, regions, mask = case(backbone, *size)
    x, t, words = torch.randn(1, CHANNELS, *size), torch.tensor([500]), text()
    bias, inputs = mask.words(regions), {}

    def read(words_and_isolation: WordBias, changed) -> dict[int, torch.Tensor]:
        return own_attention(net, changed, x, t, words, {}, words_and_isolation)

    before = read(bias, inputs.setdefault)
    other = {i: (with_other(regions, y), *rest[:1]) for i, (y, *rest) in inputs.items()}
    after = read(bias, lambda i, args: (*other[i], *args[2:]))
    leaking = read(replace(bias, isolation=None), lambda i, args: (*inputs[i][:2], *args[2:]))
    leaked = read(replace(bias, isolation=None), lambda i, args: (*other[i], *args[2:]))
    assert len(before) == net.cross_layers
    for i in before:
        of, change = members(regions, before[i].shape[1]), (after[i] - before[i]).abs().amax(-1)[0]
        assert change[of == 1].max() < 1e-5, "the left object does not see the right one"
        assert (leaked[i] - leaking[i]).abs().amax(-1)[0][of == 1].min() > 1e-3, "without isolation it does"
        for region in (0, -1, 2):
            assert change[of == region].min() > 1e-3, "the background and tokens without a region see all, and it itself"


@pytest.mark.parametrize("backbone", BACKBONES)
def test_objects_see_the_background_themselves_and_the_words_of_the_mask(backbone):
    """The factors equal a dense mask of all pairs, and the word bias where text and image share a softmax."""
    net, regions, mask = case(backbone, 8, 8)
    bias = mask.words(regions)
    for tokens in bias.isolation.cells:
        of, dense = members(regions, tokens), bias.isolated(0, tokens).product()[0, 0]
        hidden = (of[:, None] > 0) & (of[None] > 0) & (of[:, None] != of[None])
        assert torch.equal(dense < -60, hidden) and not dense[~hidden].any()
        joint = bias.jointly_isolated(0, tokens).product()[0, 0]
        assert torch.equal(joint[:, TOKENS:], dense)
        torch.testing.assert_close(joint[:, :TOKENS], bias.at(0, tokens)[0])
        longer = bias.padded(2).jointly_isolated(0, tokens).product()[0, 0]
        assert torch.equal(longer[:, :TOKENS], joint[:, :TOKENS]) and not longer[:, TOKENS : TOKENS + 2].any()


def test_attention_by_factors_is_that_by_a_dense_mask():
    q, k, v = (torch.randn(2, 3, 10, 6, requires_grad=True) for _ in range(3))
    columns = Columns(torch.randn(2, 1, 10, 5), torch.randn(2, 1, 10, 5, requires_grad=True))
    padding = torch.zeros(2, 1, 1, 10).masked_fill(torch.arange(10) > 7, -1e4)
    for scale in (None, 0.3):
        factored = attention(q, k, v, padding, columns, scale)
        dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, padding + columns.product(), scale=scale)
        torch.testing.assert_close(factored, dense, atol=1e-5, rtol=1e-5)
        ours, theirs = (torch.autograd.grad(y.square().sum(), (q, k, v, columns.keys)) for y in (factored, dense))
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert torch.equal(attention(q, k, v, None), torch.nn.functional.scaled_dot_product_attention(q, k, v))


def test_the_first_share_of_the_blocks_is_isolated_and_by_default_none():
    shapes = {"in": (4, 2, 4)}
    regions = state([(2, 4)])
    for share, count in ((0.25, 1), (0.5, 2), (1.0, 4), (0.01, 1)):
        bias = WordMask(shapes, 8, 4, strength=10, share=0.25, isolate=share).words(regions)
        assert [bias.isolated(i, 8) is not None for i in range(4)] == [i < count for i in range(4)]
        assert [bias.jointly_isolated(i, 8) is not None for i in range(4)] == [i < count for i in range(4)]
        assert [bool(bias.at(i, 8).any()) for i in range(4)] == [True, False, False, False]
    assert WordMask(shapes, 8, 4, strength=10).words(regions).isolation is None
    for wrong in (-0.5, 1.5):
        with pytest.raises(UserError, match="injection.isolate=.*: must be from 0 to 1"):
            WordMask(shapes, 8, 4, isolate=wrong)
    with pytest.raises(UserError, match=r"injection.isolate=0.5: .*set injection.hard=true or injection.isolate=0"):
        WordMask(shapes, 8, 4, hard=False, isolate=0.5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_learned_strength_starts_at_no_isolation_and_has_a_gradient(backbone):
    net, regions, mask = case(backbone, 8, 8, strength=0.0)
    x, t, words = torch.randn(1, CHANNELS, 8, 8), torch.tensor([500]), text()
    out = net(x, t, words, {}, mask.words(regions))
    torch.testing.assert_close(out, net(x, t, words, {}), atol=1e-5, rtol=1e-5)
    only = replace(mask.words(regions), log_map={p: 0 * m for p, m in mask.words(regions).log_map.items()})
    only = replace(only, isolation=replace(only.isolation, words=0 * only.isolation.words))
    net(x, t, words, {}, only).square().sum().backward()
    assert mask.gates.grad.abs().min() > 0, "of isolation alone, in every block"


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = [x for x in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(x, torch.Tensor)]
        sizes = [x.untyped_storage().nbytes() // x.element_size() for x in made]  # not of expanded views
        self.elements = max(self.elements, *sizes, 0)
        return out


@pytest.mark.parametrize("backbone", ["dit", "mmdit"])
def test_no_tensor_grows_with_the_square_of_the_tokens(backbone):
    """Four times the tokens make four times the largest tensor; neither forward nor backward has a pair of tokens."""
    largest = {}
    for side in (32, 64):
        net, regions, mask = case(backbone, side, side)
        with Largest() as sizes:
            net(torch.randn(1, CHANNELS, side, side), torch.tensor([500]), text(), {}, mask.words(regions)).sum().backward()
        largest[side] = sizes.elements
    tokens = (64 // 2) ** 2
    assert largest[64] <= 4.1 * largest[32] and largest[64] < tokens**2 / 2


def test_contextual_attention_is_isolated_within_its_windows():
    """Columns are split into windows as keys are; a token of the left object reads none of the right one."""
    torch.manual_seed(0)
    net = DiT(CHANNELS, WIDTH, 2, width=32, depth=2, heads=2, head_width=0, attention="contextual", window=4)
    shapes = net.shapes(8, 16)
    regions = state({shape[1:] for shape in shapes.values()})
    bias = WordMask(shapes, WIDTH, 2, strength=10, isolate=1.0).words(regions)
    inputs, called = {}, (torch.randn(1, CHANNELS, 8, 16), torch.tensor([500]), text(), {}, bias)
    before = own_attention(net, inputs.setdefault, *called)
    of, other = members(regions, 32), {i: (with_other(regions, y), *rest[:1]) for i, (y, *rest) in inputs.items()}
    after = own_attention(net, lambda i, args: (*other[i], *args[2:]), *called)
    for i, out in before.items():
        change = (after[i] - out).abs().amax(-1)[0]
        assert change[of == 1].max() < 1e-5 and change[of == 2].min() > 1e-3


def test_the_self_attention_of_a_block_has_the_index_of_its_cross_attention():
    net = BACKBONES["unet"]()
    processors = {name: p for name, p in net.unet.attn_processors.items() if isinstance(p, BiasedAttention)}
    pairs = [(p, processors[name.replace("attn1", "attn2")]) for name, p in processors.items() if "attn1" in name]
    assert len(pairs) == net.cross_layers and all(own.block == cross.layer for own, cross in pairs)
    assert all(own.layer is None and cross.block is None for own, cross in pairs)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_checkpointing_changes_no_gradient(backbone):
    gradients = []
    for saving in (False, True):
        net, regions, mask = case(backbone, 8, 8, strength=0.0)
        with torch.no_grad():
            mask.gates.fill_(0.5)
        save_memory(net, Memory(checkpointing=saving))
        torch.manual_seed(1)
        out = net(torch.randn(1, CHANNELS, 8, 8), torch.tensor([500]), text(), {}, mask.words(regions))
        out.square().sum().backward()
        gradients.append([p.grad for p in (*net.parameters(), mask.gates) if p.grad is not None])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_the_background_of_a_drawing_is_no_object(tiny, tmp_path):
    """A model reads the background from the regions' features; without a sketch nothing is isolated."""
    cfg = compose_config([*tiny, "injection=mask", "injection.isolate=1.0", "injection.strength=10"])
    parts = assemble(cfg, RunFolder(tmp_path))
    examples = [parts.examples("train")[i] for i in range(2)]
    refine, batch = make_model(parts, "refine").eval(), collate(examples)
    with torch.no_grad():
        isolation = refine.injection.words(refine.condition(batch).region_state).isolation
        nothing = refine.condition(batch, {"sketch": torch.zeros(2, dtype=torch.bool)}).region_state
    for example, objects in zip(examples, isolation.objects, strict=True):
        expected = [float(i < example.regions.count and i != example.regions.background) for i in range(len(objects))]
        assert objects.tolist() == expected and example.regions.background >= 0
    assert any(isolation.at(0, tokens).keys.any() for tokens in isolation.cells)
    empty = refine.injection.words(nothing).isolation
    assert not any(empty.at(0, tokens).keys.any() for tokens in empty.cells)


@pytest.mark.long
@pytest.mark.parametrize("backbone", ["tiny", "dit", "mmdit"])
def test_both_stages_train_sample_and_are_planned(tiny, tmp_path, backbone):
    """On scenes that are wider than high, with checkpointing; the plan counts the columns."""
    sizes = ["backbone.width=32", "backbone.depth=2", "backbone.heads=2", f"backbone={backbone}"]
    options = tiny if backbone == "tiny" else [*(o for o in tiny if not o.startswith("backbone.")), *sizes]
    options = [*options, "injection=mask", "injection.strength=10", "data.width=64"]
    isolated = [*options, "injection.isolate=1.0"]
    path = run(compose_config([*isolated, "memory.checkpointing=true", f"runs={tmp_path}"])).path
    assert (path / "metrics.json").is_file() and list(path.glob("samples/test/*/stage2.png"))
    plain, wider = (predict(compose_config(words), "no", ("refine",))[0] for words in (options, isolated))
    assert plain.parts["activations"] < wider.parts["activations"] and plain.parts["weights"] == wider.parts["weights"]


def test_a_transformer_whose_attention_takes_no_bias_is_refused():
    shapes = {"in": (4, 2, 4), "block.0": (8, 1, 2)}
    with pytest.raises(UserError, match="injection: WordMask biases image-to-text attention, and that of this backbone"):
        WordMask(shapes, 8, PretrainedTransformer.cross_layers, isolate=1.0)
