"""Transformers as backbones: any grid, masks, injection points, attention hooks, LoRA, checkpointing, both stages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import init_from_start, make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Memory
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.loader import collate
from ragaf_exp.experiments.experiment import run
from ragaf_exp.models.backbones.attention import WordBias
from ragaf_exp.models.backbones.dit import DiT
from ragaf_exp.models.backbones.mmdit import MMDiT
from ragaf_exp.models.backbones.positions import POSITIONS, Rotary, SinCos, rotate
from ragaf_exp.models.blocks import recomputed_blocks, repeated_blocks
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.loading.tuning import add_lora
from ragaf_exp.plan.predict import predict
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.memory import save_memory

KINDS = (DiT, MMDiT)
SMALL = {"width": 32, "depth": 2, "heads": 2}


def opened(kind: type, **options):
    """A small network (channels 12, text width 8, codec patches of 2) whose zero-initialised weights say something."""
    torch.manual_seed(0)
    net = kind(12, 8, 2, **{**SMALL, **options})
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return net.eval()


def given(height: int = 4, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Text]:
    rng = torch.Generator().manual_seed(seed)
    text = Text(torch.randn(2, 3, 8, generator=rng), torch.tensor([[True, True, False], [True, True, True]]))
    return torch.randn(2, 12, height, width, generator=rng), torch.tensor([1.0, 900.0]), text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions", sorted(POSITIONS))
@pytest.mark.parametrize("patch_size", [1, 2])
def test_latents_of_any_size_and_aspect_keep_theirs(kind, positions, patch_size):
    net = opened(kind, positions=positions, patch_size=patch_size)
    for size in ((4, 4), (4, 10), (8, 2)):
        x, t, text = given(*size)
        assert net(x, t, text, {}).shape == x.shape
    shapes = net.shapes(4, 4)
    residuals = {point: torch.ones(2, *shape) for point, shape in shapes.items()}
    x, t, text = given(4, 4)
    plain = net(x, t, text, {})
    for point, residual in residuals.items():
        changed = net(x, t, text, {point: residual})
        assert not torch.equal(changed, plain), f"{point} reaches the output"
        modulated = net(x, t, text, {}, None, {point: lambda h, added=residual: h + added})
        torch.testing.assert_close(modulated, changed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions", sorted(POSITIONS))
def test_the_order_of_tokens_matters_by_their_positions_alone(kind, positions):
    """Without convolutions, patches exchanged at the input would be exchanged at the output, but for their positions."""
    net = opened(kind, positions=positions, patch_size=1, head_width=0)
    c, text = torch.randn(2, 32), given()[2]
    x, order = torch.randn(2, 12, 32), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    rotation = net.positions.rotation(3, 4, 16, x.device)
    placed = net.positions.embedding(3, 4, 32, x.device)
    placed = torch.zeros(12, 32) if placed is None else placed

    def through(tokens: Tensor, at: Tensor | float, turned) -> Tensor:
        return net.through(tokens + at, c, text, None, turned, lambda i, y: y)

    anywhere, moved = (through(y, 0.0, None) for y in (x, x[:, order]))
    torch.testing.assert_close(moved, anywhere[:, order])
    somewhere, moved = (through(y, placed, rotation) for y in (x, x[:, order]))
    assert not torch.allclose(moved, somewhere[:, order], atol=1e-3)


def test_rotary_attention_depends_on_offsets_alone():
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    turned = Rotary().rotation(5, 7, 16, q.device)
    logits = rotate(q.expand(1, 1, 35, 16), turned) @ rotate(k.expand(1, 1, 35, 16), turned).transpose(2, 3)
    grid = logits.view(5, 7, 5, 7)
    torch.testing.assert_close(grid[0, 0, 2, 3], grid[2, 3, 4, 6])
    assert not torch.isclose(grid[0, 0, 2, 3], grid[0, 0, 3, 2]), "rows are no columns"


def test_sine_positions_differ_and_are_centred():
    table = SinCos().embedding(6, 4, 32, torch.device("cpu"))
    assert len(table.unique(dim=0)) == 24
    larger = SinCos().embedding(8, 8, 32, torch.device("cpu")).view(8, 8, 32)
    torch.testing.assert_close(larger[1:7, 2:6].reshape(24, 32), table)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_start_as_the_identity_and_the_prediction_as_zero(kind):
    x, t, text = given(4, 4)
    net = kind(12, 8, 2, **SMALL)
    assert not net(x, t, text, {}).any()
    tokens = torch.randn(2, 4, 32)
    through = net.through(
        tokens, torch.randn(2, 32), text, None, net.positions.rotation(2, 2, 16, x.device), lambda i, y: y
    )
    assert torch.equal(through, tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_never_read_and_the_words_and_the_timestep_are(kind):
    net, (x, t, text) = opened(kind), given(4, 4)
    plain = net(x, t, text, {})
    padding = text.tokens.clone()
    padding[0, 2] += 5
    torch.testing.assert_close(net(x, t, Text(padding, text.mask), {}), plain, rtol=1e-4, atol=1e-5)
    other = text.tokens.clone()
    other[0, 1] += 5
    changed = net(x, t, Text(other, text.mask), {})
    assert not torch.allclose(changed[0], plain[0], atol=1e-3)
    torch.testing.assert_close(changed[1], plain[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net(x, t + 50, text, {}), plain, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_watched_and_follows_the_bias_towards_words(kind):
    net, (x, t, text) = opened(kind), given(4, 4)
    towards_second = torch.tensor([-30.0, 0.0, -30.0]).expand(2, 4, 3)
    maps: list[Tensor] = []
    with net.watch_attention(maps.append):
        plain = net(x, t, text, {})
        biased = net(x, t, text, {}, WordBias({4: towards_second}, torch.ones(2)))
        off = net(x, t, text, {}, WordBias({4: towards_second}, torch.zeros(2)))
    assert [tuple(a.shape) for a in maps] == [(2, 4, 3)] * 6
    assert all((a >= 0).all() and (a.sum(-1) <= 1.0001).all() for a in maps)
    ratio = [(a[..., 1] / a.sum(-1)).mean() for a in maps]
    assert min(ratio[2:4]) > 0.999 > max(ratio[:2])
    assert not torch.allclose(biased, plain, atol=1e-3)
    torch.testing.assert_close(off, plain)
    net(x, t, text, {})
    assert len(maps) == 6, "only while it is watched"


@pytest.mark.long
@pytest.mark.parametrize(("kind", "counts"), [(DiT, {"all": 16, "self": 8, "cross": 8}),
                                              (MMDiT, {"all": 14, "self": 8, "cross": 6})])  # fmt: skip
def test_lora_goes_to_the_attention_layers_and_starts_at_nothing(kind, counts):
    for which, count in counts.items():
        net, inputs = opened(kind), (*given(4, 4), {})
        plain = net(*inputs)
        assert len(net.lora_targets(net, which)) == count
        add_lora(net, "refine", Memory(tune="lora", lora_rank=2, attention=which))
        assert sum(".lora_A" in name for name, _ in net.named_parameters()) == count
        assert torch.equal(net(*inputs), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_recomputes_every_block_and_changes_no_gradient(kind):
    def gradients(memory: Memory) -> dict[str, Tensor]:
        net = save_memory(opened(kind, head_width=8), memory)
        assert repeated_blocks(net) == list(net.layers)
        assert set(recomputed_blocks(net)) == {*net.layers, net.head}
        net(*given(4, 4), {}).square().mean().backward()
        return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}

    plain, recomputed = gradients(Memory()), gradients(Memory(checkpointing=True))
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_learns_to_follow_the_text_in_every_part_of_the_image(kind):
    torch.manual_seed(0)
    net = kind(12, 8, 2, **SMALL)
    optimizer, rng = torch.optim.Adam(net.parameters(), 3e-3), torch.Generator().manual_seed(0)
    words = torch.randn(2, 3, 8, generator=rng)
    losses = []
    for _ in range(80):
        which = torch.randint(0, 2, (16,), generator=rng)
        text = Text(words[which], torch.ones(16, 3, dtype=torch.bool))
        target = (which * 2.0 - 1)[:, None, None, None].expand(16, 12, 4, 4)
        x, t = torch.randn(16, 12, 4, 4, generator=rng), torch.full((16,), 900.0)
        loss = (net(x, t, text, {}) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(1) and sum(losses[-5:]) / 5 < 0.2


@pytest.mark.parametrize(("options", "message"), [
    ({"width": 36}, "backbone.width=36: must be a multiple of 4 backbone.heads = 8"),
    ({"positions": "learned"}, "backbone.positions=learned: must be one of"),
    ({"head_width": 8, "channels": 4}, "backbone.head_width=8: the head works on pixels.*codec=pixel"),
])  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_do_not_go_together_are_refused(kind, options, message):
    options = dict(options)
    with pytest.raises(UserError, match=message):
        kind(options.pop("channels", 12), 8, 2, **{**SMALL, **options})


@pytest.fixture(scope="module")
def tokens(tiny) -> list[str]:
    """Overrides of a tiny run with a transformer; a UNet's own keys are left out."""
    return [option for option in tiny if not option.startswith("backbone.")]


def config_of(tokens: list[str], name: str, *more: str):
    sizes = [f"backbone={name}", "backbone.width=32", "backbone.depth=2", "backbone.heads=2"]
    return compose_config([*tokens, *sizes, *more])


@pytest.mark.parametrize("injection", ["tokens", "appended"])
@pytest.mark.parametrize("name", ["dit", "mmdit"])
def test_a_fresh_stage_2_equals_stage_1_to_the_bit(tokens, tmp_path, name, injection):
    cfg = config_of(tokens, name, f"injection={injection}", "injection.words=true")
    parts = assemble(cfg, RunFolder(tmp_path))
    coarse = make_model(parts, "coarse")
    with torch.no_grad():
        for parameter in coarse.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    refine = init_from_start(make_model(parts, "refine"), coarse.state_dict(), "full").eval()
    batch = collate([parts.examples("train")[i] for i in range(3)])
    x_t, t = torch.randn(3, 48, 8, 8), torch.tensor([10, 500, 900])
    with torch.no_grad():
        first, second = coarse.eval()(batch, x_t, t)[0].value, refine(batch, x_t, t)[0].value
    assert first.any() and torch.equal(first, second)


def test_a_size_that_the_patch_does_not_divide_is_refused(tokens, tmp_path):
    with pytest.raises(UserError, match="data.size=36: must be a multiple of 8 for this backbone"):
        assemble(config_of(tokens, "dit", "data.size=36"), RunFolder(tmp_path))


def test_points_of_a_unet_are_refused_with_those_that_exist(tokens, tmp_path):
    with pytest.raises(UserError, match=r"injection.points=.*known are \['block', 'in', 'out'\]"):
        assemble(config_of(tokens, "dit", "injection=film"), RunFolder(tmp_path))


@pytest.mark.long
def test_both_stages_train_sample_report_and_are_planned(tokens, tmp_path):
    """With options that a user may set: checkpointing, FiLM at its points, a bias towards words."""
    more = """injection=film injection.points=[all] injection.words=true memory.checkpointing=true
              stage.coarse.steps=2 stage.refine.steps=2 stage.refine.region_steps=1 data.train=8""".split()
    cfg = config_of(tokens, "dit", *more, f"runs={tmp_path}")
    folder = run(cfg).path
    assert (folder / "metrics.json").is_file() and (folder / "report.html").is_file()
    assert list(folder.rglob("attention_steps*.png")), "the attention of its layers is recorded"
    sizes = [config_of(tokens, "mmdit", f"data.size={side}") for side in (32, 64)]
    small, large = (predict(cfg, "no", ("refine",))[0].parts["activations"] for cfg in sizes)
    assert large > 2 * small, "they grow with the number of tokens"
