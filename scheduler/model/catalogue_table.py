"""The card catalogue's rows. Written by ``bin/catalogue`` from ``catalogue.yaml``: edit that, then run it."""

# fmt: off
from __future__ import annotations

from scheduler.model.board import Board, MigProfile

DECODES_AMPERE = ("mpeg2", "vc1", "vp8", "vp9", "vp9-10bit", "h264", "hevc", "hevc-10bit", "hevc-12bit", "hevc-4:4:4",
    "hevc-8k", "av1", "av1-10bit", "av1-8k",)

DECODES_BLACKWELL = ("mpeg2", "vc1", "vp8", "vp9", "vp9-10bit", "h264", "h264-10bit", "h264-4:2:2", "h264-8k", "hevc",
    "hevc-10bit", "hevc-12bit", "hevc-4:2:2", "hevc-4:4:4", "hevc-8k", "av1", "av1-10bit", "av1-8k",)

DECODES_GA100 = ("mpeg2", "vc1", "vp8", "vp9", "vp9-10bit", "h264", "hevc", "hevc-10bit", "hevc-12bit", "hevc-4:4:4",
    "hevc-8k",)

ENCODES_ADA = ("h264", "h264-4:4:4", "hevc", "hevc-10bit", "hevc-4:4:4", "hevc-8k", "av1", "av1-10bit", "av1-8k",)

ENCODES_AMPERE = ("h264", "h264-4:4:4", "hevc", "hevc-10bit", "hevc-4:4:4", "hevc-8k",)

ENCODES_BLACKWELL = ("h264", "h264-10bit", "h264-4:2:2", "h264-4:4:4", "h264-interlaced", "hevc", "hevc-10bit",
    "hevc-4:2:2", "hevc-4:4:4", "hevc-8k", "av1", "av1-10bit", "av1-8k",)

MIG_A100_40 = (MigProfile(name="1g.5gb", most=7, memory_slices=1),
    MigProfile(name="1g.5gb+me", most=1, memory_slices=1), MigProfile(name="1g.10gb", most=4, memory_slices=2),
    MigProfile(name="2g.10gb", most=3, memory_slices=2), MigProfile(name="3g.20gb", most=2, memory_slices=4),
    MigProfile(name="4g.20gb", most=1, memory_slices=4), MigProfile(name="7g.40gb", most=1, memory_slices=8),)

MIG_A100_80 = (MigProfile(name="1g.10gb", most=7, memory_slices=1),
    MigProfile(name="1g.10gb+me", most=1, memory_slices=1), MigProfile(name="1g.20gb", most=4, memory_slices=2),
    MigProfile(name="2g.20gb", most=3, memory_slices=2), MigProfile(name="3g.40gb", most=2, memory_slices=4),
    MigProfile(name="4g.40gb", most=1, memory_slices=4), MigProfile(name="7g.80gb", most=1, memory_slices=8),)

MIG_A30 = (MigProfile(name="1g.6gb", most=4, memory_slices=1), MigProfile(name="1g.6gb+me", most=1, memory_slices=1),
    MigProfile(name="2g.12gb", most=2, memory_slices=2), MigProfile(name="2g.12gb+me", most=1, memory_slices=2),
    MigProfile(name="4g.24gb", most=1, memory_slices=4),)

MIG_B200 = (MigProfile(name="1g.23gb", most=7, memory_slices=1),
    MigProfile(name="1g.23gb+me", most=1, memory_slices=1), MigProfile(name="1g.45gb", most=4, memory_slices=2),
    MigProfile(name="2g.45gb", most=3, memory_slices=2), MigProfile(name="3g.90gb", most=2, memory_slices=4),
    MigProfile(name="4g.90gb", most=1, memory_slices=4), MigProfile(name="7g.180gb", most=1, memory_slices=8),)

MIG_B300 = (MigProfile(name="1g.34gb", most=7, memory_slices=1),
    MigProfile(name="1g.34gb+me", most=1, memory_slices=1), MigProfile(name="1g.67gb", most=4, memory_slices=2),
    MigProfile(name="2g.67gb", most=3, memory_slices=2), MigProfile(name="3g.135gb", most=2, memory_slices=4),
    MigProfile(name="4g.135gb", most=1, memory_slices=4), MigProfile(name="7g.269gb", most=1, memory_slices=8),)

MIG_GB200 = (MigProfile(name="1g.23gb", most=7, memory_slices=1),
    MigProfile(name="1g.23gb+me", most=1, memory_slices=1), MigProfile(name="1g.47gb", most=4, memory_slices=2),
    MigProfile(name="2g.47gb", most=3, memory_slices=2), MigProfile(name="3g.93gb", most=2, memory_slices=4),
    MigProfile(name="4g.93gb", most=1, memory_slices=4), MigProfile(name="7g.186gb", most=1, memory_slices=8),)

MIG_H100_94 = (MigProfile(name="1g.12gb", most=7, memory_slices=1),
    MigProfile(name="1g.12gb+me", most=1, memory_slices=1), MigProfile(name="1g.24gb", most=4, memory_slices=2),
    MigProfile(name="2g.24gb", most=3, memory_slices=2), MigProfile(name="3g.47gb", most=2, memory_slices=4),
    MigProfile(name="4g.47gb", most=1, memory_slices=4), MigProfile(name="7g.94gb", most=1, memory_slices=8),)

MIG_H200 = (MigProfile(name="1g.18gb", most=7, memory_slices=1),
    MigProfile(name="1g.18gb+me", most=1, memory_slices=1), MigProfile(name="1g.35gb", most=4, memory_slices=2),
    MigProfile(name="2g.35gb", most=3, memory_slices=2), MigProfile(name="3g.71gb", most=2, memory_slices=4),
    MigProfile(name="4g.71gb", most=1, memory_slices=4), MigProfile(name="7g.141gb", most=1, memory_slices=8),)

MIG_HOPPER_96 = (MigProfile(name="1g.12gb", most=7, memory_slices=1),
    MigProfile(name="1g.12gb+me", most=1, memory_slices=1), MigProfile(name="1g.24gb", most=4, memory_slices=2),
    MigProfile(name="2g.24gb", most=3, memory_slices=2), MigProfile(name="3g.48gb", most=2, memory_slices=4),
    MigProfile(name="4g.48gb", most=1, memory_slices=4), MigProfile(name="7g.96gb", most=1, memory_slices=8),)

MIG_RTX_PRO_6000 = (MigProfile(name="1g.24gb", most=4, memory_slices=1),
    MigProfile(name="1g.24gb+gfx", most=4, memory_slices=1),
    MigProfile(name="1g.24gb+me.all", most=1, memory_slices=1),
    MigProfile(name="1g.24gb-me", most=4, memory_slices=1), MigProfile(name="2g.48gb", most=2, memory_slices=2),
    MigProfile(name="2g.48gb+gfx", most=2, memory_slices=2),
    MigProfile(name="2g.48gb+me.all", most=1, memory_slices=2),
    MigProfile(name="2g.48gb-me", most=2, memory_slices=2), MigProfile(name="4g.96gb", most=1, memory_slices=4),
    MigProfile(name="4g.96gb+gfx", most=1, memory_slices=4),)

BOARDS = (
    Board(id="A10", generation="ampere", compute="8.6", nvml_names=("A10",), memory_gib=24, visible_mib=23028,
        bandwidth_gb_per_s=600, bf16_gflops=125000, fp32_gflops=31200, rt_cores=72, nvenc=1, nvdec=2,
        nvlink_gb_per_s=0, tdp_w=150, rt_generation=2, encodes=ENCODES_AMPERE, decodes=DECODES_AMPERE),
    Board(id="A100-PCIE-40GB", generation="ga100", compute="8.0", nvml_names=("A100-PCIE-40GB",), memory_gib=40,
        visible_mib=40960, bandwidth_gb_per_s=1555, bf16_gflops=312000, fp32_gflops=19500, rt_cores=0, nvenc=0,
        nvdec=5, nvlink_gb_per_s=600, tdp_w=250, decodes=DECODES_GA100, mig=MIG_A100_40),
    Board(id="A100-PCIE-80GB", generation="ga100", compute="8.0", nvml_names=("A100 80GB PCIe",), memory_gib=80,
        visible_mib=81920, bandwidth_gb_per_s=1935, bf16_gflops=312000, fp32_gflops=19500, rt_cores=0, nvenc=0,
        nvdec=5, nvlink_gb_per_s=600, tdp_w=300, decodes=DECODES_GA100, mig=MIG_A100_80),
    Board(id="A100-SXM-40GB", generation="ga100", compute="8.0", nvml_names=("A100-SXM4-40GB",), memory_gib=40,
        visible_mib=40960, bandwidth_gb_per_s=1555, bf16_gflops=312000, fp32_gflops=19500, rt_cores=0, nvenc=0,
        nvdec=5, nvlink_gb_per_s=600, tdp_w=400, decodes=DECODES_GA100, mig=MIG_A100_40),
    Board(id="A100-SXM-80GB", generation="ga100", compute="8.0", nvml_names=("A100-SXM4-80GB",), memory_gib=80,
        visible_mib=81920, bandwidth_gb_per_s=2039, bf16_gflops=312000, fp32_gflops=19500, rt_cores=0, nvenc=0,
        nvdec=5, nvlink_gb_per_s=600, tdp_w=400, decodes=DECODES_GA100, mig=MIG_A100_80),
    Board(id="A16", generation="ampere", compute="8.6", nvml_names=("A16",), memory_gib=16, bandwidth_gb_per_s=200,
        bf16_gflops=18000, fp32_gflops=4500, rt_cores=10, nvenc=1, nvdec=2, nvlink_gb_per_s=0, tdp_w=62,
        rt_generation=2, encodes=ENCODES_AMPERE, decodes=DECODES_AMPERE),
    Board(id="A30", generation="ga100", compute="8.0", nvml_names=("A30",), memory_gib=24, bandwidth_gb_per_s=933,
        bf16_gflops=165000, fp32_gflops=10300, rt_cores=0, nvenc=0, nvdec=4, nvlink_gb_per_s=200, tdp_w=165,
        decodes=DECODES_GA100, mig=MIG_A30),
    Board(id="A40", generation="ampere", compute="8.6", nvml_names=("A40",), memory_gib=48, bandwidth_gb_per_s=696,
        bf16_gflops=150000, fp32_gflops=37400, rt_cores=84, nvenc=1, nvdec=2, nvlink_gb_per_s=112, tdp_w=300,
        rt_generation=2, encodes=ENCODES_AMPERE, decodes=DECODES_AMPERE),
    Board(id="A800-PCIE-80GB", generation="ga100", compute="8.0", nvml_names=("A800 80GB PCIe",), memory_gib=80,
        bandwidth_gb_per_s=1935, bf16_gflops=312000, fp32_gflops=19500, rt_cores=0, nvenc=0, nvdec=5,
        nvlink_gb_per_s=400, tdp_w=300, decodes=DECODES_GA100, mig=MIG_A100_80),
    Board(id="A800-SXM-80GB", generation="ga100", compute="8.0", nvml_names=("A800-SXM4-80GB",), memory_gib=80,
        bandwidth_gb_per_s=2039, bf16_gflops=312000, fp32_gflops=19500, rt_cores=0, nvenc=0, nvdec=5,
        nvlink_gb_per_s=400, tdp_w=400, decodes=DECODES_GA100, mig=MIG_A100_80),
    Board(id="B200", generation="blackwell-b200", compute="10.0", nvml_names=("B200",), memory_gib=180,
        visible_mib=183359, bandwidth_gb_per_s=8000, bf16_gflops=2250000, fp32_gflops=75000, rt_cores=0, nvenc=0,
        nvdec=7, nvlink_gb_per_s=1800, tdp_w=1000, decodes=DECODES_GA100, mig=MIG_B200),
    Board(id="B300", generation="blackwell-b300", compute="10.3", nvml_names=("B300", "B300 SXM6 AC"), memory_gib=288,
        visible_mib=275040, bandwidth_gb_per_s=8000, bf16_gflops=2250000, fp32_gflops=77000, rt_cores=0, nvenc=0,
        nvdec=7, nvlink_gb_per_s=1800, tdp_w=1400, decodes=DECODES_GA100, mig=MIG_B300),
    Board(id="GB200", generation="blackwell-b200", compute="10.0", nvml_names=("GB200",), memory_gib=186,
        bandwidth_gb_per_s=8000, bf16_gflops=2500000, fp32_gflops=80000, rt_cores=0, nvenc=0, nvdec=7,
        nvlink_gb_per_s=1800, tdp_w=1200, decodes=DECODES_GA100, mig=MIG_GB200),
    Board(id="GH200-144GB", generation="hopper", compute="9.0", nvml_names=("GH200 144G HBM3e",), memory_gib=144,
        bandwidth_gb_per_s=4900, bf16_gflops=989000, fp32_gflops=67000, rt_cores=0, nvenc=0, nvdec=7,
        nvlink_gb_per_s=900, tdp_w=1000, decodes=DECODES_GA100),
    Board(id="GH200-96GB", generation="hopper", compute="9.0", nvml_names=("GH200 480GB", "GH200 96GB HBM3"),
        memory_gib=96, bandwidth_gb_per_s=4000, bf16_gflops=989000, fp32_gflops=67000, rt_cores=0, nvenc=0, nvdec=7,
        nvlink_gb_per_s=900, tdp_w=1000, decodes=DECODES_GA100, mig=MIG_HOPPER_96),
    Board(id="H100-NVL-94GB", generation="hopper", compute="9.0", nvml_names=("H100 NVL",), memory_gib=94,
        bandwidth_gb_per_s=3938, bf16_gflops=835000, fp32_gflops=60000, rt_cores=0, nvenc=0, nvdec=7,
        nvlink_gb_per_s=600, tdp_w=400, decodes=DECODES_GA100, mig=MIG_H100_94),
    Board(id="H100-PCIE-80GB", generation="hopper", compute="9.0", nvml_names=("H100 PCIe",), memory_gib=80,
        visible_mib=81559, bandwidth_gb_per_s=2039, bf16_gflops=756000, fp32_gflops=51000, rt_cores=0, nvenc=0,
        nvdec=7, nvlink_gb_per_s=600, tdp_w=350, decodes=DECODES_GA100, mig=MIG_A100_80),
    Board(id="H100-SXM-80GB", generation="hopper", compute="9.0", nvml_names=("H100 80GB HBM3",), memory_gib=80,
        visible_mib=81559, bandwidth_gb_per_s=3350, bf16_gflops=989000, fp32_gflops=67000, rt_cores=0, nvenc=0,
        nvdec=7, nvlink_gb_per_s=900, tdp_w=700, decodes=DECODES_GA100, mig=MIG_A100_80),
    Board(id="H20-141GB", generation="hopper", compute="9.0", nvml_names=("H20", "H20-3e"), memory_gib=141,
        bandwidth_gb_per_s=4800, bf16_gflops=148000, fp32_gflops=44000, rt_cores=0, nvenc=0, nvdec=7,
        nvlink_gb_per_s=900, tdp_w=500, decodes=DECODES_GA100),
    Board(id="H20-96GB", generation="hopper", compute="9.0", nvml_names=("H20",), memory_gib=96,
        bandwidth_gb_per_s=4000, bf16_gflops=148000, fp32_gflops=44000, rt_cores=0, nvenc=0, nvdec=7,
        nvlink_gb_per_s=900, tdp_w=400, decodes=DECODES_GA100, mig=MIG_HOPPER_96),
    Board(id="H200-SXM-141GB", generation="hopper", compute="9.0", nvml_names=("H200",), memory_gib=141,
        visible_mib=143771, bandwidth_gb_per_s=4800, bf16_gflops=989000, fp32_gflops=67000, rt_cores=0, nvenc=0,
        nvdec=7, nvlink_gb_per_s=900, tdp_w=700, decodes=DECODES_GA100, mig=MIG_H200),
    Board(id="L20", generation="ada", compute="8.9", nvml_names=("L20",), memory_gib=48, bandwidth_gb_per_s=864,
        bf16_gflops=119500, fp32_gflops=59400, rt_cores=92, nvenc=3, nvdec=3, nvlink_gb_per_s=0, tdp_w=275,
        rt_generation=3, encodes=ENCODES_ADA, decodes=DECODES_AMPERE),
    Board(id="L4", generation="ada", compute="8.9", nvml_names=("L4",), memory_gib=24, visible_mib=23034,
        bandwidth_gb_per_s=300, bf16_gflops=121000, fp32_gflops=30300, rt_cores=60, nvenc=2, nvdec=4,
        nvlink_gb_per_s=0, tdp_w=72, rt_generation=3, encodes=ENCODES_ADA, decodes=DECODES_AMPERE),
    Board(id="L40", generation="ada", compute="8.9", nvml_names=("L40",), memory_gib=48, bandwidth_gb_per_s=864,
        bf16_gflops=181000, fp32_gflops=90500, rt_cores=142, nvenc=3, nvdec=3, nvlink_gb_per_s=0, tdp_w=300,
        rt_generation=3, encodes=ENCODES_ADA, decodes=DECODES_AMPERE),
    Board(id="L40S", generation="ada", compute="8.9", nvml_names=("L40S",), memory_gib=48, visible_mib=46068,
        bandwidth_gb_per_s=864, bf16_gflops=362000, fp32_gflops=91600, rt_cores=142, nvenc=3, nvdec=3,
        nvlink_gb_per_s=0, tdp_w=350, rt_generation=3, encodes=ENCODES_ADA, decodes=DECODES_AMPERE),
    Board(id="RTX-4090", generation="ada", compute="8.9", nvml_names=("GeForce RTX 4090",), memory_gib=24,
        bandwidth_gb_per_s=1008, bf16_gflops=165000, fp32_gflops=82600, rt_cores=128, nvenc=2, nvdec=1,
        nvlink_gb_per_s=0, tdp_w=450, rt_generation=3, encodes=ENCODES_ADA, decodes=DECODES_AMPERE),
    Board(id="RTX-4090-D", generation="ada", compute="8.9", nvml_names=("GeForce RTX 4090 D",), memory_gib=24,
        bandwidth_gb_per_s=1008, bf16_gflops=147000, fp32_gflops=73500, rt_cores=114, nvenc=2, nvdec=1,
        nvlink_gb_per_s=0, tdp_w=425, rt_generation=3, encodes=ENCODES_ADA, decodes=DECODES_AMPERE),
    Board(id="RTX-5090", generation="blackwell", compute="12.0", nvml_names=("GeForce RTX 5090",), memory_gib=32,
        bandwidth_gb_per_s=1792, bf16_gflops=210000, fp32_gflops=104800, rt_cores=170, nvenc=3, nvdec=2,
        nvlink_gb_per_s=0, tdp_w=575, rt_generation=4, encodes=ENCODES_BLACKWELL, decodes=DECODES_BLACKWELL),
    Board(id="RTX-5090-D-v2", generation="blackwell", compute="12.0", nvml_names=("GeForce RTX 5090 D v2",),
        memory_gib=24, bandwidth_gb_per_s=1340, bf16_gflops=210000, fp32_gflops=104800, rt_cores=170, nvenc=3,
        nvdec=2, nvlink_gb_per_s=0, tdp_w=575, rt_generation=4, encodes=ENCODES_BLACKWELL, decodes=DECODES_BLACKWELL),
    Board(id="RTX-6000-Ada", generation="ada", compute="8.9", nvml_names=("RTX 6000 Ada Generation",), memory_gib=48,
        bandwidth_gb_per_s=960, bf16_gflops=364000, fp32_gflops=91100, rt_cores=142, nvenc=3, nvdec=3,
        nvlink_gb_per_s=0, tdp_w=300, rt_generation=3, encodes=ENCODES_ADA, decodes=DECODES_AMPERE),
    Board(id="RTX-PRO-6000-MaxQ", generation="blackwell", compute="12.0",
        nvml_names=("RTX PRO 6000 Blackwell Max-Q Workstation Edition",), memory_gib=96, bandwidth_gb_per_s=1792,
        rt_cores=188, nvenc=4, nvdec=4, nvlink_gb_per_s=0, tdp_w=300, rt_generation=4, encodes=ENCODES_BLACKWELL,
        decodes=DECODES_BLACKWELL, mig=MIG_RTX_PRO_6000),
    Board(id="RTX-PRO-6000-Server", generation="blackwell", compute="12.0",
        nvml_names=("RTX PRO 6000 Blackwell Server Edition",), memory_gib=96, visible_mib=97887,
        bandwidth_gb_per_s=1597, bf16_gflops=500000, fp32_gflops=126000, rt_cores=188, nvenc=4, nvdec=4,
        nvlink_gb_per_s=0, tdp_w=600, rt_generation=4, encodes=ENCODES_BLACKWELL, decodes=DECODES_BLACKWELL,
        mig=MIG_RTX_PRO_6000),
    Board(id="RTX-PRO-6000-Workstation", generation="blackwell", compute="12.0",
        nvml_names=("RTX PRO 6000 Blackwell Workstation Edition",), memory_gib=96, bandwidth_gb_per_s=1792,
        bf16_gflops=500000, fp32_gflops=126000, rt_cores=188, nvenc=4, nvdec=4, nvlink_gb_per_s=0, tdp_w=600,
        rt_generation=4, encodes=ENCODES_BLACKWELL, decodes=DECODES_BLACKWELL, mig=MIG_RTX_PRO_6000),
    Board(id="T4", generation="turing", compute="7.5", nvml_names=("Tesla T4", "T4"), memory_gib=16,
        visible_mib=15360, bandwidth_gb_per_s=320, bf16_gflops=0, fp32_gflops=8100, rt_cores=40, nvenc=1, nvdec=2,
        nvlink_gb_per_s=0, tdp_w=70, rt_generation=1, encodes=ENCODES_AMPERE, decodes=DECODES_GA100),
)
