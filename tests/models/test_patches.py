"""Patches of a transformer: windows that overlap, and outputs without seams."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ragaf_exp.models.backbones.patches import OverlapAdd, PatchEmbedding, PatchOutput, fading_window


def border_change(x: torch.Tensor, patch: int) -> float:
    """Mean change across borders of patches, divided by the change elsewhere, for maps (B,C,H,W)."""
    change = x.diff(dim=3).abs().mean(dim=(0, 1, 2))
    border = torch.arange(1, len(change) + 1) % patch == 0
    return float(change[border].mean() / change[~border].mean())


@pytest.mark.parametrize("patch", range(1, 9))
def test_windows_add_up_to_one(patch):
    overlap = patch // 2
    window, grid = fading_window(patch, overlap), torch.ones(1, 1, 4, 5)
    total = F.conv_transpose2d(grid, window[None, None], stride=patch)
    inner = total[..., 2 * overlap : 4 * patch, 2 * overlap : 5 * patch]
    torch.testing.assert_close(inner, torch.ones_like(inner))
    layer = OverlapAdd(3, 2, patch)
    torch.nn.init.ones_(layer.weight), torch.nn.init.zeros_(layer.bias)
    flat = layer(torch.ones(1, 3, 4, 5))
    assert flat.shape == (1, 2, 4 * patch, 5 * patch)
    torch.testing.assert_close(flat, torch.full_like(flat, 3.0), msg="a constant stays one up to the image's border")


@pytest.mark.parametrize("patch", [2, 4])
def test_patches_of_unrelated_features_have_no_seams(patch):
    torch.manual_seed(0)
    x = torch.randn(4, 64, 8, 8)
    layer, split = OverlapAdd(64, 3, patch), torch.nn.Conv2d(64, 3 * patch**2, 1)
    with torch.no_grad():
        assert border_change(layer(x), patch) < 1.1
    layer.weight.data[:] = layer.weight[..., patch : patch + 1, patch : patch + 1]  # each cell of one colour
    split.weight.data[:] = split.weight[:3].repeat_interleave(patch**2, 0)
    split.bias.data[:] = 0
    with torch.no_grad():
        assert border_change(layer(x), patch) < 2.1, "from cell to cell colours change over a patch's width"
        assert border_change(F.pixel_shuffle(split(x), patch), patch) > 100


def test_a_token_reads_its_patch_and_half_of_the_next_ones():
    embedding = PatchEmbedding(3, 32, 2)
    for layer in (embedding.first, embedding.second):  # no other overlap
        torch.nn.init.dirac_(layer.weight), torch.nn.init.zeros_(layer.bias)
    x = torch.zeros(1, 3, 8, 8, requires_grad=True)
    _, tokens = embedding(x, lambda features: features)
    tokens.unflatten(1, (4, 4))[0, 1, 2].sum().backward()
    rows, columns = (x.grad[0].abs().sum(0) > 0).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 4, 3, 6)


@pytest.mark.parametrize(("channels", "pixels"), [(48, 4), (4, 0)])
def test_the_output_starts_at_zero_for_pixels_and_for_latents(channels, pixels):
    embedding = PatchEmbedding(channels, 32, 2)
    output, x = PatchOutput(channels, 32, embedding, pixels), torch.randn(2, channels, 6, 8)
    features, tokens = embedding(x, lambda y: y)
    assert torch.equal(output(tokens, torch.randn(2, 32), features, (3, 4)), torch.zeros_like(x))
    torch.nn.init.normal_(output.last.weight)
    assert output(tokens, torch.randn(2, 32), features, (3, 4)).std() > 0
