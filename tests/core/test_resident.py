"""Memory that is given back: pages of weight files leave memory, and every tensor keeps its values."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ragaf_exp.core.resident import drop_pages, new_objects_only, release, weight_mappings
from ragaf_exp.core.tensor_files import read_lazily

COUNT = 8 * 2**20  # numbers of 4 bytes
MAPS = """7f0000000000-7f0000002000 rw-p 00001000 fe:00 12 /a folder/one.safetensors
7f0000003000-7f0000004000 rw-p 00000000 fe:00 14 /lib/libtorch.so
7f0000004000-7f0000005000 rw-p 00000000 00:00 0
7f0000005000-7f0000006000 r--s 00000000 fe:00 13 /folder/two.safetensors
"""


def test_objects_are_collected_while_older_ones_are_passed_over() -> None:
    class Cycle:
        pass

    with new_objects_only():
        older, cycle = gc.get_freeze_count(), Cycle()
        cycle.itself = cycle
        gone = weakref.ref(cycle)
        del cycle
        release()
        assert gone() is None and older > 1000
    assert gc.get_freeze_count() == 0


def of_files() -> int:
    """Bytes of mapped files that are in memory."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile"))
    return 1024 * int(line.split()[1])


def test_only_weight_files_are_chosen() -> None:
    assert list(weight_mappings(MAPS)) == [(0x7F0000000000, 0x7F0000002000), (0x7F0000005000, 0x7F0000006000)]


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="no /proc/self/pagemap")
def test_pages_of_weights_leave_memory_and_tensors_keep_their_values(tmp_path: Path) -> None:
    numbers = torch.arange(COUNT, dtype=torch.float32)
    save_file({"read": numbers, "written": numbers.clone()}, tmp_path / "weights.safetensors")
    tensors = read_lazily(tmp_path / "weights.safetensors", mapped=True)
    read, written = tensors["read"].load(), tensors["written"].load()
    written[-1] = -1
    assert torch.equal(read, numbers)
    before = of_files()
    drop_pages()
    assert before - of_files() > 0.9 * 4 * COUNT
    release()
    assert torch.equal(read, numbers) and written[-1] == -1 and torch.equal(written[:-1], numbers[:-1])
