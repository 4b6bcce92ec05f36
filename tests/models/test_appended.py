"""Region tokens appended to the text: one softmax when the gates are open, nothing when they are closed, and training."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import init_from_start, make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.loader import collate
from ragaf_exp.experiments.experiment import run
from ragaf_exp.models.backbones.dit import DiT
from ragaf_exp.models.backbones.mmdit import MMDiT
from ragaf_exp.models.backbones.unet import TinyUNet
from ragaf_exp.models.conditioning import Appended, RegionState, Text
from ragaf_exp.models.regions.appended import AppendedTokens
from ragaf_exp.plan.predict import predict
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.step_noise import sample_step_noise
from ragaf_exp.training.trainer import Trainer

SMALL = {"width": 32, "depth": 2, "heads": 2}
KINDS = {DiT: SMALL, MMDiT: SMALL, TinyUNet: {"widths": (32, 32), "heads": 2}}
NAMES = {"tiny": [], "dit": ["backbone.width=32", "backbone.depth=2"], "mmdit": ["backbone.width=32", "backbone.depth=2"]}


def network(kind: type):
    torch.manual_seed(0)
    net = kind(12, 8, 2, **KINDS[kind])
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return net.eval()


def given() -> tuple[Tensor, Tensor, Text]:
    rng = torch.Generator().manual_seed(0)
    text = Text(torch.randn(2, 3, 8, generator=rng), torch.tensor([[True, True, False], [True, True, True]]))
    return torch.randn(2, 12, 4, 4, generator=rng), torch.tensor([1.0, 900.0]), text


def regions(net, gate: float, mask: Tensor | None = None, shift: float = 0.0) -> Appended:
    tokens = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1)) + shift
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]]) if mask is None else mask
    return Appended(tokens, mask, torch.full((net.cross_layers,), gate))


def with_regions(text: Text, appended: Appended) -> Text:
    return Text(text.tokens, text.mask, appended=appended)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_open_gates_are_the_longer_text_and_closed_ones_the_text(kind):
    net, (x, t, text) = network(kind), given()
    if kind is MMDiT:  # whose pooled text does not include regions
        net.pooled.weight.zero_()
    appended = regions(net, 1.0)
    longer = Text(torch.cat([text.tokens, appended.tokens], 1), torch.cat([text.mask, appended.mask], 1))
    plain, whole = net(x, t, text, {}), net(x, t, longer, {})
    assert not torch.allclose(plain, whole, atol=1e-3)
    torch.testing.assert_close(net(x, t, with_regions(text, appended), {}), whole, rtol=1e-4, atol=1e-5)
    assert torch.equal(net(x, t, with_regions(text, regions(net, 0.0)), {}), plain)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_padding_is_never_read_and_without_regions_the_text_is_alone(kind):
    net, (x, t, text) = network(kind), given()
    one, other = regions(net, 1.0), regions(net, 1.0, shift=5.0)
    padded = Appended(torch.where(one.mask[..., None], one.tokens, other.tokens), one.mask, one.gates)
    torch.testing.assert_close(
        net(x, t, with_regions(text, padded), {}), net(x, t, with_regions(text, one), {}), rtol=1e-4, atol=1e-5
    )
    none = regions(net, 1.0, torch.zeros(2, 4, dtype=torch.bool))
    torch.testing.assert_close(net(x, t, with_regions(text, none), {}), net(x, t, text, {}), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_no_bias_of_the_wider_attention_is_stored_per_pixel(kind, monkeypatch):
    net, (x, t, text) = network(kind), given()
    sizes, attention = [], F.scaled_dot_product_attention

    def recorded(q, k, v, attn_mask=None, **options):
        if attn_mask is not None:
            sizes.append((attn_mask.untyped_storage().nbytes(), attn_mask.shape[-1] * len(q) * attn_mask.element_size()))
        return attention(q, k, v, attn_mask=attn_mask, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recorded)
    net(x, t, text, {})
    base = len(sizes)
    sizes.clear()
    net(x, t, with_regions(text, regions(net, 1.0)), {})
    assert sum(stored <= row for stored, row in sizes) >= len(sizes) - base > 0


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_learns_to_read_what_a_region_token_says(kind):
    """From closed gates: the colour of the image is that of a token, and the text says nothing."""
    net = network(kind).train()
    torch.manual_seed(0)
    path = AppendedTokens({"in": (4, 2, 2)}, 8, 8, net.cross_layers)
    optimizer, rng = torch.optim.Adam([*net.parameters(), *path.parameters()], 3e-3), torch.Generator().manual_seed(0)
    state = RegionState(*[torch.zeros(16, 2, 8)] * 3, torch.ones(16, 2, dtype=torch.bool), {})
    colours, text, losses = torch.randn(2, 2, 8, generator=rng), torch.randn(1, 3, 8, generator=rng), []
    for _ in range(150):
        which = torch.randint(0, 2, (16,), generator=rng)
        appended = path.appended(colours[which], state)
        silent = Text(text.expand(16, -1, -1), torch.ones(16, 3, dtype=torch.bool), appended=appended)
        target = (which * 2.0 - 1)[:, None, None, None].expand(16, 12, 4, 4)
        x, t = torch.randn(16, 12, 4, 4, generator=rng), torch.full((16,), 900.0)
        loss = (net(x, t, silent, {}) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) / 5 < 0.2, losses[::10]


def test_a_backbone_whose_attention_has_no_gates_is_refused():
    with pytest.raises(UserError, match=r"injection: AppendedTokens needs a gate .* take injection=tokens"):
        AppendedTokens({"in": (4, 2, 2)}, 8, 8, cross_layers=0)


# --- whole models


def options(tiny: list[str], name: str) -> list[str]:
    own = tiny if name == "tiny" else [option for option in tiny if not option.startswith("backbone.")]
    return [*own, f"backbone={name}", *NAMES[name], "backbone.heads=2", "injection=appended"]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_changes_the_region_path_alone_and_opens_every_gate(tiny, tmp_path, name):
    parts = assemble(compose_config(options(tiny, name)), RunFolder(tmp_path))
    torch.manual_seed(0)
    coarse = make_model(parts, "coarse")
    with torch.no_grad():
        for parameter in coarse.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    model = init_from_start(make_model(parts, "refine"), coarse.state_dict(), "frozen")
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    batch = collate([parts.examples("train")[i] for i in range(4)])
    x0 = parts.codec.encode(batch.image)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    noise = sample_step_noise(parts.diffusion, x0.shape, 1000, {}, 0.0, torch.Generator().manual_seed(0))
    Objective(parts.diffusion)(model, batch, x0, noise)["loss"].backward()
    optimizer.step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed and all(n.startswith(("ragaf.", "injection.", "region_latent.")) for n in changed)
    assert model.injection.open.all() and "injection.project.weight" not in changed


@pytest.mark.parametrize("name", NAMES)
def test_more_regions_take_more_memory_in_the_plan(tiny, name):
    """By more than the region encoder alone takes, which runs in any case."""
    few, many, alone = (
        predict(compose_config([*options(tiny, name), f"regions.max_regions={count}", *more]), "no", ("refine",))[0]
        for count, more in ((2, []), (64, []), (64, ["injection=words"]))
    )
    assert many.parts["activations"] > few.parts["activations"]
    assert many.parts["activations"] > alone.parts["activations"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["tiny", "mmdit"])
def test_both_stages_train_sample_and_resume_to_the_same_bytes(tiny, tmp_path, name, monkeypatch):
    words = [*options(tiny, name), "stage.refine.steps=5", "stage.refine.region_steps=1", "memory.checkpointing=true"]
    whole = run(compose_config([*words, f"runs={tmp_path / 'whole'}"])).path
    assert (whole / "metrics.json").is_file() and list(whole.rglob("attention_steps*.png"))
    step, interrupted = Trainer.step, [*words, f"runs={tmp_path / 'parts'}"]

    def signalled(self, number, batch):
        step(self, number, batch)
        if (self.plan.stage, number) == ("refine", 2):
            os.kill(os.getpid(), signal.SIGUSR1)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="the same command continues"):
        patch.setattr(Trainer, "step", signalled)
        run(compose_config(interrupted))
    one, two = (newest_weights(folder) for folder in (whole, run(compose_config(interrupted)).path))
    assert one == two and load(one)["injection.open"].any()


def newest_weights(folder: Path) -> bytes:
    return (sorted((folder / "checkpoints" / "refine").iterdir())[-1] / "model.safetensors").read_bytes()
