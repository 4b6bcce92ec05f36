"""The disk cache's entries: they come back to the bit, damaged ones are replaced, names change with every input."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ragaf_exp.assembly.assemble import preparer
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.validate import validate
from ragaf_exp.core.resources import CONF
from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.cache import fingerprint as naming
from ragaf_exp.data.cache.entry import KINDS, Unreadable, pack, unpack
from ragaf_exp.data.cache.prepare import CachedPreparer, cached
from ragaf_exp.data.loader import Preparer
from ragaf_exp.store.encodings import decode, encode
from ragaf_exp.store.entries import Store

NAME = "0" * 16 + "-" + "7" * 32


@pytest.fixture(scope="module")
def parts() -> Preparer:
    return preparer(compose_config(["regions.max_regions=64"]))


class Counting(Preparer):
    """Counts how often something is computed."""

    def __init__(self, prepare: Preparer):
        super().__init__(prepare.sketch, prepare.regions, prepare.graph)
        self.calls = 0

    def __call__(self, item: Item) -> Example:
        self.calls += 1
        return super().__call__(item)


def item(sketch: np.ndarray, image: np.ndarray | None = None) -> Item:
    image = np.zeros((*sketch.shape, 3), np.uint8) if image is None else image
    return Item("key", image, "a caption", drawing=sketch)


def house(size: int = 64) -> np.ndarray:
    """A sketch with three regions and the grey levels of a drawing."""
    sketch = np.zeros((size, size), np.float32)
    sketch[10:50, 10] = sketch[10:50, 50] = sketch[10, 10:51] = sketch[50, 10:51] = 1
    sketch[30, 10:50] = np.float32(200) / np.float32(255)
    return sketch


def assert_same(one: Example, other: Example) -> None:
    """Every array and number of two examples, to the bit; arrays can be written to."""
    for field, kind in KINDS.items():
        a, b = attrgetter(field)(one), attrgetter(field)(other)
        if kind is np.ndarray:
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), field
            assert b.flags.writeable and b.flags.c_contiguous and b.flags.aligned, field
        else:
            assert a == b and isinstance(b, int), field


def behind(prepare: Preparer, folder: Path, **about) -> CachedPreparer:
    return CachedPreparer(prepare, Store(folder, 1e9), {"about": about})


KIND = st.sampled_from([bool, np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64])
SHAPE = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40)
FEW = hnp.arrays(np.int16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=60), elements=st.integers(-1, 2))
LEVELS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=60)).map(
    lambda a: a.astype(np.float32) / np.float32(255)
)


@given(array=st.one_of(KIND.flatmap(lambda kind: hnp.arrays(kind, SHAPE)), FEW, LEVELS, FEW.map(lambda a: -0.0 * a)))
def test_arrays_come_back_to_the_bit(array):
    encoding, packed = encode(array)
    back = decode(encoding, memoryview(packed), array.dtype, array.shape)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert back.flags.writeable and len(packed) <= array.nbytes


@given(cells=st.integers(0, 8), soft=st.booleans(), noise=st.floats(0, 1), seed=st.integers(0, 9), side=st.integers(1, 70))
@settings(deadline=None, max_examples=40)
def test_entries_come_back_to_the_bit(parts, cells, soft, noise, seed, side):
    """From no region (all stroke) and one (blank) to 64."""
    rng = np.random.default_rng(seed)
    sketch = (rng.random((side, 64)) < noise / 8).astype(np.float32)
    if cells:
        sketch[:: max(1, side // cells)] = sketch[:, :: 64 // cells] = 1
    if soft:
        sketch *= rng.random(sketch.shape, np.float32)
    made = parts(item(sketch))
    assert_same(made, unpack(NAME, pack(NAME, made), made.item))


def test_the_extremes_are_among_them(parts):
    grid = np.zeros((80, 80), np.float32)
    grid[::10] = grid[:, ::10] = 1
    counts = []
    for sketch in (np.ones((9, 9), np.float32), np.zeros((9, 9), np.float32), grid):
        made = parts(item(sketch))
        assert_same(made, unpack(NAME, pack(NAME, made), made.item))
        counts.append(made.regions.count)
    assert counts[:2] == [0, 1] and counts[2] > 30


def test_an_entry_is_a_fraction_of_its_arrays(parts):
    made = parts(item(house(512)))
    assert len(pack(NAME, made)) < (made.sketch.nbytes + made.regions.labels.nbytes) / 20


def test_every_field_is_stored_or_refused(parts):
    """A new field of the dataclasses is stored automatically; one of an unsupported type fails here."""
    assert set(KINDS.values()) == {np.ndarray, int} and {"sketch", "regions.depth", "graph.edges"} <= set(KINDS)
    made = parts(item(house()))
    with pytest.raises(TypeError):
        pack(NAME, replace(made, regions=replace(made.regions, count="three")))


def test_other_fields_are_a_miss(parts, monkeypatch):
    made = parts(item(house()))
    content = pack(NAME, made)
    for kinds in ({**KINDS, "regions.new": int}, {**KINDS, "regions.labels": int},
                  {k: v for k, v in KINDS.items() if k != "regions.count"}):  # fmt: skip
        monkeypatch.setattr("ragaf_exp.data.cache.entry.KINDS", kinds)
        with pytest.raises(Unreadable):
            unpack(NAME, content, made.item)


# damage


def test_every_cut_and_every_flipped_bit_is_detected(parts):
    made = parts(item(house()))
    content = pack(NAME, made)
    damaged = [content[:n] for n in range(0, len(content), 3)] + [content + b"\0", content[1:]]
    for at in range(0, len(content), 5):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        damaged.append(bytes(flipped))
    for bad in damaged:
        with pytest.raises(Unreadable):
            unpack(NAME, bad, made.item)
    with pytest.raises(Unreadable):
        unpack(NAME.replace("7", "8"), content, made.item)  # whole, but another picture's


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "pickle", "another's"])
def test_a_damaged_entry_is_replaced(damage, parts, tmp_path):
    counting = Counting(parts)
    cache, mine, other = behind(counting, tmp_path), item(house()), item(1 - house())
    made = cache(mine)
    cache(other)
    path, others = sorted(tmp_path.glob("*/*.graph"), key=lambda p: naming.content_hash(mine) not in p.name)
    whole = path.read_bytes()
    path.write_bytes({
        "cut": whole[: len(whole) // 2], "flipped": whole[:99] + bytes([whole[99] ^ 4]) + whole[100:], "empty": b"",
        "foreign": b"\x89PNG\r\n" * 99, "pickle": b"\x80\x04cos\nsystem\n.", "another's": others.read_bytes(),
    }[damage])  # fmt: skip
    for _ in range(2):  # computed again, then read again
        assert_same(made, behind(counting, tmp_path)(mine))
        assert counting.calls == 3 and path.read_bytes() == whole


def test_damage_goes_even_where_nothing_can_be_written(parts, tmp_path):
    cache = behind(parts, tmp_path)
    cache(item(house()))
    (path,) = tmp_path.glob("*/*.graph")
    path.write_bytes(b"damaged")
    cache.store.writable = False
    assert cache(item(house())).regions.count == 3 and not path.exists()


# what is computed, and when


def test_a_second_epoch_and_a_second_process_only_read(parts, tmp_path):
    counting = Counting(parts)
    drawings = [item(np.roll(house(), i, axis=1)) for i in range(5)]
    cache = behind(counting, tmp_path)
    first = [cache(one) for one in drawings]
    for reader in (cache, behind(counting, tmp_path)):
        for made, one in zip(first, drawings, strict=True):
            stored = reader(replace(one, key="another", caption="other words"))
            assert_same(made, stored)
            assert (stored.item.key, stored.item.caption) == ("another", "other words")
    assert counting.calls == 5 and cache.computed == 5 and not list(tmp_path.rglob("*.tmp"))


def test_an_augmented_sketch_goes_past_it(parts, tmp_path):
    cache = behind(parts, tmp_path)
    for _ in range(2):
        assert_same(parts(item(1 - house())), cache.from_sketch(item(house()), 1 - house()))
    assert not list(tmp_path.iterdir())


def test_disabled_it_is_not_there(parts, tmp_path):
    assert cached(parts, compose_config(["cache=none"])) is parts
    cached(parts, compose_config([f"cache.folder={tmp_path / 'new'}"]))
    assert not (tmp_path / "new").exists()  # made when first written to


# names


def test_the_name_changes_with_the_content():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    sketch = np.zeros((4, 4), np.float32)
    other, dot = image.copy(), sketch.copy()
    other[3, 3, 2] ^= 1
    dot[0, 0] = 1e-30
    items = [item(sketch, image), item(sketch, other), item(dot, image), item(-sketch, image),
             item(sketch.astype(np.float64), image), Item("key", image, ""), item(sketch.reshape(2, 8), image),
             item(sketch, image.reshape(2, 8, 3)), item(sketch, image.view(np.int8))]  # fmt: skip
    hashes = {naming.content_hash(one) for one in items}
    assert len(hashes) == len(items) and all(len(h) == 32 for h in hashes)
    turned = np.asfortranarray(image)
    assert naming.content_hash(item(sketch, turned)) == naming.content_hash(items[0])


def described(cfg) -> str:
    return naming.fingerprint(naming.describe(cfg))


def changed(value: object) -> object:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}x"


@pytest.mark.parametrize("group", naming.GROUPS)
def test_the_name_changes_with_every_value_of_every_option(group):
    base = compose_config([])
    names, wanted = {described(base)}, 1
    for path in sorted((CONF / group).glob("*.yaml")):
        cfg = validate(OmegaConf.create({**base, group: OmegaConf.load(path)}))
        names.add(described(cfg))
        wanted += cfg[group] != base[group]
        for key, value in cfg[group].items():
            other = OmegaConf.create(OmegaConf.to_container(cfg))
            other[group][key] = changed(value)
            names.add(described(other))
            wanted += 1
    assert len(names) == wanted


def test_the_name_does_not_depend_on_the_rest():
    same = ([], ["seed=3"], ["data.size=32"], ["cache.gigabytes=2"], ["optim.clip=3"], ["graph/backend=pyg"])
    assert len({described(compose_config(words)) for words in same}) == 1


def test_the_name_changes_with_a_weights_files_content(tmp_path):
    names = []
    for file, content in (("a", b"1"), ("b", b"1"), ("a", b"2")):
        (tmp_path / file).write_bytes(content)
        names.append(described(compose_config(["sketch=pidinet", f"sketch.weights={tmp_path / file}"])))
    assert names[0] == names[1] != names[2]


def test_the_name_changes_with_the_code_and_the_libraries(monkeypatch, tmp_path):
    before = described(compose_config([]))
    (tmp_path / "sketch").mkdir()
    (tmp_path / "sketch" / "new.py").write_text("LOW = 1\n")
    for name, replacement in (("PACKAGE", tmp_path), ("sources", lambda: [tmp_path / "sketch" / "new.py"])):
        monkeypatch.setattr(naming, name, replacement)
    versions = []
    for content in ("LOW = 1\n", "LOW = 2\n"):
        (tmp_path / "sketch" / "new.py").write_text(content)
        naming.code_version.cache_clear()
        versions.append(described(compose_config([])))
    naming.code_version.cache_clear()
    monkeypatch.undo()
    assert described(compose_config([])) == before and len({before, *versions}) == 3
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99")
    assert described(compose_config([])) != before


def imports(path: Path) -> set[Path]:
    """This package's files that a file imports from, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
        names |= {str(node.module)} if isinstance(node, ast.ImportFrom) else set()
    mine = [name for name in names if name.split(".")[0] in ("ragaf_exp", "eval")]
    return {Path(importlib.util.find_spec(name).origin) for name in mine}


def test_all_code_that_affects_the_entries_is_hashed():
    """Whatever the options of sketch, regions and graph import is hashed, but for what computes nothing."""
    idle = {naming.PACKAGE / name for name in ("core/errors.py", "core/hub.py", "config/__init__.py")}
    targets = [OmegaConf.load(path)._target_ for group in naming.GROUPS for path in (CONF / group).glob("*.yaml")]
    visited: set[Path] = set()
    ahead = {Path(importlib.util.find_spec(target.rpartition(".")[0]).origin) for target in targets}
    while ahead:
        path = ahead.pop()
        visited.add(path)
        ahead |= imports(path) - visited
    assert naming.PACKAGE / "core/types.py" in visited and len(visited) > 10
    assert visited - idle <= set(naming.sources())
