"""A backbone that is no UNet goes through the same doors: both stages, hooks, LoRA, checkpointing, compiled blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from ragaf_exp.assembly import model as assembly
from ragaf_exp.config.build import build
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Memory
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensors import MASK_VALUE
from ragaf_exp.experiments.experiment import run
from ragaf_exp.models.backbones.attention import WordBias
from ragaf_exp.models.backbones.base import NO_MODULATIONS, Backbone
from ragaf_exp.models.backbones.points import Injected, Modulation, Shape
from ragaf_exp.models.blocks import recomputed_blocks, repeated_blocks
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.control.t2i_adapter import T2IHint
from ragaf_exp.models.loading.tuning import add_lora, save_lora


class Attention(nn.Module):
    watch: Callable[[Tensor], object] | None = None

    def __init__(self, width: int, context: int):
        super().__init__()
        self.to_q, self.to_out = nn.Linear(width, width), nn.Linear(width, width)
        self.to_k, self.to_v = nn.Linear(context, width), nn.Linear(context, width)

    def forward(self, x: Tensor, context: Tensor, bias: Tensor | float) -> Tensor:
        logits = self.to_q(x) @ self.to_k(context).transpose(1, 2) / x.shape[-1] ** 0.5 + bias
        attention = logits.softmax(-1)  # (B,h w,T)
        if self.watch is not None:
            self.watch(attention)
        return self.to_out(attention.to(x.dtype) @ self.to_v(context).to(x.dtype))


class Block(nn.Module):
    def __init__(self, width: int, text_width: int):
        super().__init__()
        self.own, self.cross = Attention(width, width), Attention(width, text_width)
        self.feed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        x = x + self.own(x, x, 0.0)
        x = x + self.cross(x, tokens, bias)
        return x + self.feed(x)


class ToyTransformer(Backbone):
    """Pixels of the latent are its tokens; `in` and `block.i` are its injection points, as grids of tokens."""

    attention_layers = {"all": (".own.", ".cross."), "self": (".own.",), "cross": (".cross.",)}
    projections = ("to_q", "to_k", "to_v", "to_out")

    def __init__(self, channels: int, text_width: int, width: int = 32, depth: int = 2):
        super().__init__()
        self.embed, self.unembed, self.time = nn.Linear(channels, width), nn.Linear(width, channels), nn.Linear(1, width)
        self.layers = nn.ModuleList(Block(width, text_width) for _ in range(depth))
        self.width, self.cross_layers = width, depth

    def shapes(self, height: int, width: int) -> dict[str, Shape]:
        return {point: (self.width, height, width) for point in ("in", *(f"block.{i}" for i in range(self.cross_layers)))}

    def forward(
        self, x_t: Tensor, t: Tensor, text: Text, residuals: Mapping[str, Tensor], words: WordBias | None = None,
        modulations: Mapping[str, Modulation] = NO_MODULATIONS,
    ) -> Tensor:  # fmt: skip
        size, at = (x_t.shape[2], x_t.shape[3]), Injected(residuals, modulations)
        x = self.embed(x_t.flatten(2).transpose(1, 2)) + self.time(t[:, None, None] / 1000)
        x = at.on_tokens("in", x, size)
        masked = torch.zeros_like(text.mask, dtype=torch.float32).masked_fill(~text.mask, MASK_VALUE)[:, None]
        for i, layer in enumerate(self.layers):
            bias = masked if words is None else masked + words.at(i, size[0] * size[1])
            x = at.on_tokens(f"block.{i}", layer(x, text.tokens, bias), size)
        return self.unembed(x).transpose(1, 2).unflatten(2, size)

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)

    @contextmanager
    def watch_attention(self, watch: Callable[[Tensor], object]) -> Iterator[None]:
        crossing = [layer.cross for layer in self.layers]
        for attention in crossing:
            attention.watch = watch
        yield
        for attention in crossing:
            attention.watch = None


@pytest.fixture
def as_backbone(monkeypatch):
    def toy(node, key: str, **wiring):
        return ToyTransformer(wiring["channels"], wiring["text_width"]) if key == "backbone" else build(node, key, **wiring)

    monkeypatch.setattr(assembly, "build", toy)


@pytest.mark.long
def test_a_run_of_both_stages_trains_samples_and_reports_with_a_transformer(tiny, as_backbone, tmp_path):
    options = "injection=film injection.words=true injection.points=[in,block] memory.checkpointing=true".split()
    folder = run(compose_config([*tiny, *options, f"runs={tmp_path}"])).path
    assert (folder / "metrics.json").is_file() and (folder / "report.html").is_file()
    assert {path.name for path in (folder / "checkpoints").iterdir()} >= {"coarse", "refine"}
    assert list(folder.rglob("attention_steps*.png")), "the attention of its layers is recorded"


def toy_and_inputs() -> tuple[ToyTransformer, tuple]:
    toy, mask = ToyTransformer(3, 8), torch.tensor([[True, True, False]] * 2)
    return toy, (torch.randn(2, 3, 4, 6), torch.tensor([1, 900]), Text(torch.randn(2, 3, 8), mask))


def test_a_grid_of_tokens_takes_what_a_feature_map_takes():
    toy, given = toy_and_inputs()
    features = torch.randn(2, 32, 4, 6)
    plain, added = toy(*given, {}), toy(*given, {"block.1": features})
    shifted = toy(*given, {}, None, {"block.1": lambda h: h + features})
    assert added.shape == plain.shape and not torch.equal(added, plain) and torch.equal(added, shifted)


def test_its_blocks_are_compiled_and_recomputed_and_its_attention_takes_lora(tmp_path):
    toy, given = toy_and_inputs()
    assert repeated_blocks(toy) == recomputed_blocks(toy) == list(toy.layers)
    plain = toy(*given, {})
    add_lora(toy, True, Memory(tune="lora", lora_rank=2, attention="cross"))
    adapted = {name for name, _ in toy.named_parameters() if ".lora_" in name}
    assert len(adapted) == 2 * 4 * 2 and all(".cross." in name for name in adapted)
    assert torch.equal(toy(*given, {}), plain), "adapters start at zero"
    holder = nn.Module()
    holder.backbone = toy
    assert save_lora(holder, tmp_path / "lora") is None, "diffusers could not read it"


def test_a_hint_that_is_made_for_unets_says_so():
    with pytest.raises(UserError, match="hint=t2i.*ToyTransformer.*hint=lite"):
        T2IHint(ToyTransformer(3, 8), 8, 4)
