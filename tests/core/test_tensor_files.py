"""Safetensors files written tensor by tensor: the library reads the same bits, and memory holds one tensor at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensor_files import (
    NAMES,
    LazyTensor,
    differing,
    lazy,
    read_lazily,
    read_metadata,
    write_tensors,
)

SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=4)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def made(shape: list[int], dtype: torch.dtype) -> torch.Tensor:
    values = torch.arange(max(1, torch.Size(shape).numel()))[: torch.Size(shape).numel()]
    return (values % 2).to(dtype).reshape(shape)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=SHAPES, dtypes=st.lists(st.sampled_from(list(NAMES)), min_size=4, max_size=4))
def test_the_library_reads_what_was_written(shapes, dtypes, tmp_path):
    tensors = {f"t{i}.weight": made(shape, dtypes[i]) for i, shape in enumerate(shapes)}
    write_tensors(tmp_path / "a.safetensors", {k: lazy(v) for k, v in tensors.items()}, {"title": "ä\n"})
    loaded = load_file(tmp_path / "a.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(loaded[k].dtype == v.dtype and torch.equal(bits(loaded[k]), bits(v)) for k, v in tensors.items())
    assert read_metadata(tmp_path / "a.safetensors") == {"title": "ä\n"}
    written = {k: lazy(v) for k, v in tensors.items()}
    for mapped in (False, True):
        assert not list(differing(read_lazily(tmp_path / "a.safetensors", mapped), written))


def test_strided_tensors_and_special_values_keep_their_bits(tmp_path):
    values = torch.tensor([[float("nan"), -0.0, float("inf")], [1e-45, 3.0, 0.0]]).T
    write_tensors(tmp_path / "a.safetensors", {"a": lazy(values)}, {})
    assert torch.equal(bits(load_file(tmp_path / "a.safetensors")["a"]), bits(values))


def test_pages_of_a_file_outlive_it_and_change_it_not(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.arange(3.0), "b": torch.arange(6).reshape(2, 3)}, path, {"text": "of any length"})
    before = path.read_bytes()
    tensors = {name: tensor.load() for name, tensor in read_lazily(path, mapped=True).items()}
    tensors["a"].add_(1)
    assert path.read_bytes() == before and torch.equal(tensors["a"], torch.arange(1.0, 4.0))
    path.unlink()
    assert torch.equal(tensors["b"], torch.arange(6).reshape(2, 3))


def test_any_difference_is_noticed():
    one = {"a": lazy(torch.zeros(2, 3)), "b": lazy(torch.ones(1))}
    assert list(differing(one, one)) == []
    assert list(differing(one, {**one, "b": lazy(torch.ones(1, 1))})) == ["b"]
    assert list(differing(one, {**one, "a": lazy(torch.zeros(2, 3).half())})) == ["a"]
    assert list(differing(one, {**one, "a": lazy(-torch.zeros(2, 3))})) == ["a"], "the sign of zero"
    assert list(differing(one, {"a": one["a"]})) == ["b"]


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    alive: list[int] = []

    def load(i: int) -> torch.Tensor:
        alive.append(i)
        return torch.full((4,), float(i))

    tensors = {f"t{i}": LazyTensor((4,), torch.float32, lambda i=i: load(i)) for i in range(5)}
    write_tensors(tmp_path / "a.safetensors", tensors, {})
    assert alive == list(range(5)), "each is loaded once, when it is written"


def test_half_keeps_integers_and_refuses_overflow(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"w": lazy(torch.tensor([0.1])), "n": lazy(torch.tensor([70000]))}, {}, True)
    loaded = load_file(tmp_path / "a.safetensors")
    assert loaded["w"].dtype == torch.float16 and loaded["n"].tolist() == [70000]
    with pytest.raises(UserError, match="half=true: a weight is 7e.04, beyond float16's 65504"):
        write_tensors(tmp_path / "b.safetensors", {"w": lazy(torch.tensor([70000.0]))}, {}, half=True)


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"a.safetensors: damaged"):
        read_lazily(path)
    path.write_text("no weights")
    with pytest.raises(UserError, match="damaged, or no safetensors file"):
        read_lazily(path)


def test_data_is_aligned(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"b": lazy(torch.ones(3, dtype=torch.bool)), "f": lazy(torch.ones(2))}, {})
    content: bytes = Path(tmp_path / "a.safetensors").read_bytes()
    assert (8 + int.from_bytes(content[:8], "little")) % 8 == 0
    assert content.endswith(torch.ones(2).numpy().tobytes() + bytes([1, 1, 1])), "wide types first"
