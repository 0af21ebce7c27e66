import pytest

from k8s.accelerators import shipped


@pytest.mark.parametrize(
    ("resource", "told"),
    [
        ("nvidia.com/gpu", ("nvidia", "card", "")),
        ("nvidia.com/gpu.shared", ("nvidia", "share", "")),
        ("nvidia.com/mig-1g.10gb", ("nvidia", "mig", "1g.10gb")),
        ("nvidia.com/mig-1g.24gb.gfx", ("nvidia", "mig", "1g.24gb+gfx")),
        ("nvidia.com/mig-1g.12gb.me.all", ("nvidia", "mig", "1g.12gb+me.all")),
        ("nvidia.com/gpumem", ("nvidia", "part", "")),
        ("huawei.com/Ascend910", ("huawei", "card", "")),
        ("huawei.com/Ascend910B3", ("huawei", "card", "")),
        ("huawei.com/Ascend910B3-memory", ("huawei", "part", "")),
        ("huawei.com/Ascend310P-2c", ("huawei", "share", "")),
        ("cambricon.com/mlu370", ("cambricon", "card", "")),
        ("cambricon.com/mlu.smlu.vmemory", ("cambricon", "part", "")),
        ("hygon.com/hcunum", ("hygon", "share", "")),
        ("hygon.com/dcu", ("hygon", "card", "")),
        ("mthreads.com/vgpu", ("mthreads", "share", "")),
        ("metax-tech.com/gpu", ("metax", "card", "")),
        ("enflame.com/gcu", ("enflame", "card", "")),
        ("iluvatar.ai/BI-V100-vgpu", ("iluvatar", "share", "")),
        ("kunlunxin.com/xpu", ("kunlunxin", "card", "")),
        ("birentech.com/gpu", ("biren", "card", "")),
        ("amd.com/gpu", ("amd", "card", "")),
        ("cpu", None),
        ("hugepages-2Mi", None),
        ("nvidia.com/gpu-driver", None),
        ("rdma/hca", None),
    ],
)
def test_resources_are_told_apart(resource, told):
    found = shipped().find(resource)
    assert told == (None if found is None else (found.vendor.name, found.unit.value, found.profile))


def test_only_nvidias_cards_need_no_toleration():
    vendors = {shipped().find(r).vendor for r in ("nvidia.com/gpu", "huawei.com/Ascend910", "amd.com/gpu")}
    assert {vendor.name: vendor.taint for vendor in vendors} == {"nvidia": "", "huawei": "huawei", "amd": "amd"}
