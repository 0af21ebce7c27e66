from __future__ import annotations

from pathlib import Path

import pytest

from workers.facts import cpu_milli, free_mib, local_node, memory_mib


def test_this_machine_has_processors_memory_and_space(tmp_path):
    node = local_node("n1", home=tmp_path / "not" / "yet")
    assert node.name == "n1"
    assert node.cpu_milli >= 1
    assert node.memory_mib > 100
    assert node.scratch_mib > 0
    assert dict(node.labels)["os"] == "linux"


@pytest.mark.parametrize(("text", "expected"), [("50000 100000", 500), ("max 100000", None), ("", None)])
def test_a_processor_quota_counts(tmp_path, text, expected):
    (tmp_path / "cpu.max").write_text(text)
    assert cpu_milli(tmp_path) == (expected or cpu_milli(Path("/nowhere")))


@pytest.mark.parametrize(("text", "expected"), [("1073741824", 1024), ("max", 2048), ("9999999999999", 2048)])
def test_a_memory_limit_counts(tmp_path, text, expected):
    (tmp_path / "memory.max").write_text(text)
    (tmp_path / "meminfo").write_text("MemTotal:        2097152 kB\nMemFree: 5 kB\n")
    assert memory_mib(tmp_path, tmp_path / "meminfo") == expected


def test_free_space_of_a_folder_not_made_yet(tmp_path):
    assert free_mib(tmp_path / "a" / "b") == pytest.approx(free_mib(tmp_path), rel=0.1)
