"""Data of the editing tasks: layered scenes, casts, and users' tables."""

from __future__ import annotations

import csv
import logging
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.correction import apply_powers, fit_powers, light_of, with_highlights
from ragaf_exp.data.light import Light, mired_of, sample_light
from ragaf_exp.data.sources import render
from ragaf_exp.data.sources.casts import PHOTOS, Casts
from ragaf_exp.data.sources.edits import Edits
from ragaf_exp.data.sources.grounds import WAVES, ground
from ragaf_exp.data.sources.insertion import Insertion
from ragaf_exp.data.sources.mixture import Mixture
from ragaf_exp.data.sources.removal import Removal, grown


def test_items_are_functions_of_seed_split_and_index():
    for source in (Removal, Casts):
        one, again, other = source().split("test"), source().split("test"), source(seed=1).split("test")
        train = source().split("train")
        assert (one[3].image == again[3].image).all() and one[3].caption == again[3].caption
        assert (one[3].conditions["given"] == again[3].conditions["given"]).all()
        assert (one[3].image != other[3].image).any() and (one[3].image != train[3].image).any()


@pytest.mark.parametrize("kind", [Casts, Insertion, Removal, Mixture])
def test_captions_are_those_of_the_items_and_need_no_rendering(kind, monkeypatch):
    captions = kind(train=20).split("train").captions(99)
    assert captions == [item.caption for item in kind(train=20).split("train")] and len(set(captions)) > 10
    monkeypatch.setattr(render, "coverage", lambda *args: pytest.fail("rendered"))
    assert kind(size=2048, train=20).split("train").captions(99) == captions


def test_removal_differs_only_where_the_object_and_its_shadow_are():
    reach = []
    items = Removal().split("test")
    for item in (items[i] for i in range(30)):
        given, shadow, removed = (item.conditions[name] for name in ("given", "shadow", "removed"))
        changed = (given.astype(int) - item.image != 0).any(-1)
        assert changed[removed > 0].mean() > 0.95 and (item.conditions["hole"] >= removed).all()
        far = ~grown((removed > 0) | (shadow > 0), 1.5)  # beyond the soft rim
        assert np.abs(given.astype(int) - item.image)[far].max() <= 0.05 * 255, "fainter than a visible shadow"
        reach.append((shadow > item.conditions["hole"]).any())
        assert all(str(o.colour) in item.caption for o in item.objects)
    assert 0.3 < np.mean(reach) < 1, "some shadows leave the mask"


def test_grounds_have_texture_around_the_named_colour():
    rng = np.random.default_rng(0)
    deviation = {kind: float(ground(rng, kind, "grey", 64).std((0, 1)).mean()) for kind in WAVES}
    assert deviation["plain"] < 0.01 and min(v for k, v in deviation.items() if k != "plain") > 3


def test_a_cast_is_undone_by_a_gain_and_a_power():
    import torch

    errors = []
    for i in range(12):
        item = Casts().split("test")[i]
        given, truth = (torch.from_numpy(x.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
                        for x in (item.conditions["given"], item.image))  # fmt: skip
        mapped = apply_powers(given, *fit_powers(given, truth))
        usable = (given.abs() < 0.97).all(1, keepdim=True).expand_as(given)
        errors.append(float((mapped - truth).abs()[usable].mean()) * 127.5)
    assert np.mean(errors) < 2.5, "levels of 255"


def test_clipped_channels_are_the_networks_where_it_is_brighter():
    import torch

    given = torch.tensor([1.0, 1.0, 0.5]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    corrected, output = given - 0.2, torch.tensor([0.9, 0.7, 0.9]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    expected = torch.tensor([0.9, 0.8, 0.3]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    torch.testing.assert_close(with_highlights(corrected, given, output), expected)


def test_a_correction_names_the_light_that_it_undoes():
    """Exactly from gains and power, and nearly from two images."""
    rng = np.random.default_rng(3)
    errors = []
    for _i in range(12):
        light = sample_light(rng, exposure=0.2)
        named = Light.undone_by(1 / (light.gains() * 2.0**light.exposure), 1 / light.gamma)
        assert np.allclose(astuple(named), astuple(light), rtol=2e-3, atol=2e-3)
        grey = rng.integers(20, 140, (32, 32, 3)).astype(np.uint8)  # nothing is clipped
        estimate = light_of(light.render(grey), grey)
        errors.append(mired_of(estimate.kelvin) - mired_of(light.kelvin))
        assert abs(estimate.tint - light.tint) < 0.02 and abs(np.log(estimate.gamma / light.gamma)) < 0.03
    assert np.abs(errors).max() < 3, "mired; the sampled lights span 300"


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "100,0,0,1", "5000,0,0,0", "5000,nan,0,1"])
def test_a_light_that_is_none_is_refused(text):
    with pytest.raises(UserError, match=r"white_balance_params=.*kelvin"):
        Light.read(text, "white_balance_params")


def test_lights_are_read_from_text_lists_and_mappings():
    wanted = Light(2800, 0.02, 0.1, 1.1)
    values = dict(zip(("kelvin", "tint", "exposure", "gamma"), astuple(wanted), strict=True))
    for given in ("2800,0.02,0.1,1.1", "[2800, 0.02, 0.1, 1.1]", list(values.values()), values):
        assert Light.read(given, "light") == wanted


def test_a_neutral_image_is_left_alone():
    """An image that is both given and wanted has gains of 0 and powers of 1."""
    import torch

    image = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0)) * 2 - 1
    gain, power = fit_powers(image, image)
    assert gain.abs().max() < 1e-3 and (power - 1).abs().max() < 1e-3
    assert (apply_powers(image, gain, power) - image).abs().max() < 0.01


def test_the_held_out_photo_is_never_trained_on():
    source = Casts(photo_share=1.0, holdout="cat", train=40, test=10)
    assert all(item.caption == "" for item in (source.split("train")[i] for i in range(3)))
    with pytest.raises(UserError, match="must be one of"):
        Casts(holdout="dog")
    assert "cat" in PHOTOS


# --- tables


def table(folder: Path, rows: list[dict[str, str]]) -> Path:
    """Write pictures and a table of them."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(mask[:20]).save(folder / "short.png")
    with (folder / "edits.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({key for row in rows for key in row}))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "edits.csv"


ROWS = [{"target_image": f"{x}.png", "input_image": "d.png", "mask": "mask.png", "text": f"picture {x}"} for x in "abc"]


def test_a_table_gives_images_masks_and_captions(tmp_path):
    source = Edits(str(table(tmp_path, ROWS)), size=32)
    items = [item for split in ("train", "val", "test") for item in source.split(split)]
    assert sorted(item.caption for item in items) == ["picture a", "picture b", "picture c"]
    item = items[0]
    assert item.image.shape == item.conditions["given"].shape == (32, 32, 3)
    hole = item.conditions["hole"]
    assert hole.shape == (32, 32) and 0.2 < hole.mean() < 0.35 and hole[16, 16] == 1


def test_a_table_gives_lights(tmp_path):
    rows = [{**ROWS[0], "white_balance_params": "2800,0.02,0.1,1.1"}, {**ROWS[1], "white_balance_params": ""}, ROWS[2]]
    source = Edits(str(table(tmp_path, rows)), size=32)
    items = {item.caption: item for split in ("train", "val", "test") for item in source.split(split)}
    assert np.allclose(items["picture a"].conditions["light"], Light(2800, 0.02, 0.1, 1.1).parameters())
    assert "light" not in items["picture b"].conditions


def test_other_names_of_columns(tmp_path):
    rows = [{"target_image": "a.png", "prompt": "x"}, {"target_image": "b.png", "prompt": "y"}]
    source = Edits(str(table(tmp_path, rows)), size=32)
    assert {item.caption for item in source.split("train")} <= {"x", "y"}
    assert not source.split("train")[0].conditions


@pytest.mark.parametrize(
    "row, message",
    [
        ({"target_image": "absent.png"}, "no such file"),
        ({"target_image": "a.png", "mask": "short.png"}, "is 60x20, and"),
        ({"input_image": "a.png", "target_image": ""}, "it has no target_image"),
        ({"target_image": "a.png", "white_balance_params": "warm"}, "must be kelvin, tint, exposure and gamma"),
    ],
)
def test_bad_rows_are_named_or_skipped(tmp_path, caplog, row, message):
    path = str(table(tmp_path, [*ROWS, row]))
    with pytest.raises(UserError, match="row 4") as error:
        Edits(path)
    assert message in str(error.value) and "\n" not in str(error.value)
    with caplog.at_level(logging.WARNING):
        assert sum(len(Edits(path, on_error="skip").split(s)) for s in ("train", "val", "test")) == 3
    assert "1 of 4 rows" in caplog.text


def test_real_triples(shared_data, tmp_path):
    """Published triples of image and mask, in other conventions and sizes."""
    folder = shared_data / "inpaint" / "PaintByExample"
    with (tmp_path / "t.jsonl").open("w") as file:
        for i in (1, 2, 3):
            file.write(f'{{"target_image": "{folder}/image/example_{i}.png", "mask": "{folder}/mask/example_{i}.png"}}\n')
    source = Edits(str(tmp_path / "t.jsonl"))
    items = [item for split in ("train", "val", "test") for item in source.split(split)]
    assert len(items) == 3 and all(0.1 < item.conditions["hole"].mean() < 0.6 for item in items)
