"""The card catalogue: where its figures come from, what follows from them, and how boards are recognised."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml

from scheduler.model import catalogue
from scheduler.model.catalogue import BY_ID, by_nvml_name, features, known_models, nominal_mib, resolve_alias

ROOT = Path(__file__).parents[3]
TABLE = yaml.safe_load((ROOT / "scheduler/model/catalogue.yaml").read_text(encoding="utf-8"))


def cells():
    """``(where, column, cell)`` of every value in the table."""
    for group in ("generations", "boards"):
        for row, values in TABLE[group].items():
            for column, cell in values.items():
                if column not in ("nvml", "generation", "mig"):
                    yield f"{row}.{column}", column, cell
    for name, cell in TABLE["geometries"].items():
        yield f"geometries.{name}", "mig", cell


def test_every_value_has_a_unit_a_source_a_date_and_a_confidence():
    for where, column, cell in cells():
        assert len(cell) == 2, where
        source = TABLE["sources"][cell[1]]
        assert TABLE["units"][column], where
        assert source["what"], where
        assert isinstance(source["date"], date), where
        assert source["confidence"] in ("high", "medium", "low"), where


def test_every_unit_and_source_is_used():
    assert set(TABLE["units"]) == {column for _, column, _ in cells()}
    assert set(TABLE["sources"]) == {cell[1] for _, _, cell in cells()}


def test_the_core_carries_what_the_table_says():
    checked = subprocess.run(
        [sys.executable, ROOT / "bin/catalogue", "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_the_check_notices_a_stale_table(tmp_path):
    for name in ("bin/catalogue", "scheduler/model/catalogue.yaml", "scheduler/model/catalogue_table.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    edited = tmp_path / "scheduler/model/catalogue.yaml"
    edited.write_text(
        edited.read_text(encoding="utf-8").replace("tdp: [70, spec]", "tdp: [71, spec]"), encoding="utf-8"
    )
    command = [sys.executable, tmp_path / "bin/catalogue"]
    assert subprocess.run([*command, "--check"], capture_output=True, check=False).returncode == 1
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert subprocess.run([*command, "--check"], capture_output=True, check=False).returncode == 0


# ── what follows for placement ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("model", "has", "lacks"),
    [
        ("A100-SXM-80GB", {"nvdec:hevc", "mig", "nvlink", "bf16"}, {"nvenc:h264", "rt", "nvdec:av1"}),
        ("H100-SXM-80GB", {"nvdec:hevc-10bit", "mig", "nvlink"}, {"nvenc:h264", "nvenc:av1", "rt", "nvdec:hevc-4:2:2"}),
        ("T4", {"nvenc:hevc-10bit", "rt"}, {"nvenc:av1", "bf16", "mig", "nvdec:av1"}),
        ("A10", {"nvdec:av1", "rt"}, {"nvenc:av1", "mig"}),
        ("L4", {"nvenc:av1", "nvenc:av1-10bit", "rt"}, {"nvenc:h264-10bit", "nvdec:hevc-4:2:2", "mig"}),
        ("L40S", {"nvenc:av1", "rt"}, {"mig", "nvlink"}),
        ("RTX-5090", {"nvenc:hevc-4:2:2", "nvenc:h264-10bit", "nvdec:hevc-4:2:2", "nvdec:h264-8k"}, {"mig"}),
        ("RTX-PRO-6000-Server", {"nvenc:av1", "mig", "rt"}, {"nvlink", "nvenc:h264-8k"}),
        ("B200", {"mig", "nvlink"}, {"nvenc:h264", "rt"}),
        ("unknown", set(), {"rt"}),
    ],
)
def test_features(model, has, lacks):
    assert has <= features(model)
    assert not lacks & features(model)


def test_no_data_centre_chip_without_an_encoder_encodes():
    for board in BY_ID.values():
        encodes = any(name.startswith("nvenc:") for name in board.features)
        assert encodes == (board.nvenc > 0), board.id
        assert ("rt" in board.features) == (board.rt_cores > 0) == (board.rt_generation > 0), board.id


def test_422_and_8k_h264_are_blackwells_alone():
    able = {b.id for b in BY_ID.values() if "nvdec:hevc-4:2:2" in b.features or "nvdec:h264-8k" in b.features}
    assert able == {b.id for b in BY_ID.values() if b.generation == "blackwell"}
    assert not [b.id for b in BY_ID.values() if "nvenc:h264-8k" in b.features]


def test_mig_profiles_fit_their_cards():
    for board in BY_ID.values():
        slices = max((profile.memory_slices for profile in board.mig), default=0)
        for profile in board.mig:
            assert profile.most * profile.memory_slices <= slices, (board.id, profile)
            size = int(profile.name.split(".")[1].split("gb")[0])
            rounded_up = profile.most  # a profile is named after its size in whole GB
            assert profile.most * size <= board.memory_gib + rounded_up, (board.id, profile)
        assert slices in (0, 4, 8), board.id


# ── recognising boards ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "memory_mib", "model"),
    [
        ("Tesla T4", 15360, "T4"),
        ("NVIDIA L4", 23034, "L4"),
        ("NVIDIA A10", 23028, "A10"),
        ("NVIDIA L40S", 46068, "L40S"),
        ("NVIDIA A100-SXM4-40GB", 40960, "A100-SXM-40GB"),
        ("NVIDIA A100-SXM4-80GB", 81920, "A100-SXM-80GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, "RTX-PRO-6000-Server"),
        ("NVIDIA H100 80GB HBM3", 81559, "H100-SXM-80GB"),
        ("NVIDIA H200", 143771, "H200-SXM-141GB"),
        ("NVIDIA B200", 183359, "B200"),
        ("NVIDIA B300 SXM6 AC", 275040, "B300"),
        ("nvidia  h100 pcie", 0, "H100-PCIE-80GB"),
        ("NVIDIA H20", 97871, "H20-96GB"),
        ("NVIDIA H20", 143771, "H20-141GB"),
        ("NVIDIA H20", 0, "unknown"),  # two boards of that name: memory decides
        ("NVIDIA L4", 12_000, "unknown"),  # a virtual GPU with half the card
        ("NVIDIA L4", 46_000, "unknown"),
        ("NVIDIA GeForce RTX 4090", 24564, "RTX-4090"),
        ("NVIDIA GeForce RTX 4090 D", 24564, "RTX-4090-D"),
        ("Quadro RTX 6000", 24576, "unknown"),
        ("PPU-ZW810E", 97_000, "unknown"),
        ("", 0, "unknown"),
    ],
)
def test_boards_are_recognised_by_name_and_memory(name, memory_mib, model):
    assert by_nvml_name(name, memory_mib) == model


def test_each_board_is_recognised_by_its_own_row():
    for board in BY_ID.values():
        for name in board.nvml_names:
            assert by_nvml_name(f"NVIDIA {name}", nominal_mib(board.id)) == board.id


@pytest.mark.parametrize(
    ("alias", "models"),
    [
        ("H100", ("H100-NVL-94GB", "H100-PCIE-80GB", "H100-SXM-80GB")),
        ("h100-80gb", ("H100-PCIE-80GB", "H100-SXM-80GB")),
        ("A100-80GB", ("A100-PCIE-80GB", "A100-SXM-80GB")),
        ("H200", ("H200-SXM-141GB",)),
        ("RTX4090", ("RTX-4090", "RTX-4090-D")),
        ("RTX-4090", ("RTX-4090",)),
        ("NVIDIA GeForce RTX 5090", ("RTX-5090", "RTX-5090-D-v2")),
        ("L4", ("L4",)),
        ("B200", ("B200",)),
        ("H", ()),
        ("", ()),
        ("TPU-v5", ()),
    ],
)
def test_short_names(alias, models):
    assert resolve_alias(alias) == models


def test_every_id_is_its_own_alias():
    assert all(resolve_alias(model) == (model,) for model in known_models())


def test_lists_are_sorted_and_hold_no_strays():
    assert list(known_models()) == sorted(known_models())
    assert catalogue.UNKNOWN not in known_models()
    assert set(catalogue.known_features()) >= {"rt", "mig", "nvlink", "bf16", "nvenc:av1", "nvdec:hevc-4:2:2"}
