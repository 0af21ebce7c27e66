"""A process's pod, in the control-group spellings that nodes have."""

import os

import pytest

from workers.pods import HOST, pod_of

UID = "3f9c1a52-7b1e-4c1d-9f0a-0123456789ab"
SYSTEMD = UID.replace("-", "_")

LAYOUTS = {
    "cgroupfs v2": (f"0::/kubepods/burstable/pod{UID}/5d1c0ffee\n", UID),
    "cgroupfs v2, guaranteed": (f"0::/kubepods/pod{UID}/5d1c0ffee\n", UID),
    "systemd v2": (f"0::/kubepods.slice/kubepods-pod{SYSTEMD}.slice/cri-containerd-5d1c.scope\n", UID),
    "systemd v2, best effort": (
        f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SYSTEMD}.slice/crio-5d1c.scope\n", UID,
    ),
    "v1, a line per controller": (
        f"12:devices:/kubepods/burstable/pod{UID}/5d1c\n3:cpu,cpuacct:/kubepods/burstable/pod{UID}/5d1c\n1:name=systemd:/\n",
        UID,
    ),
    "a node that is itself a container": (
        f"0::/docker/pod00000000-0000-0000-0000-000000000000/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SYSTEMD}.slice/x\n",
        UID,
    ),
    "seen from a container with a control-group namespace of its own": (
        f"0::/../../kubepods-burstable-pod{SYSTEMD}.slice/cri-containerd-5d1c.scope\n", UID,
    ),
    "so, with cgroupfs": (f"0::/../../pod{UID}/5d1c0ffee\n", UID),
    "the host's display server": ("0::/user.slice/user-1000.slice/session-2.scope\n", HOST),
    "a folder that only looks like one": ("0::/system.slice/podman-pod1234.service\n", HOST),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_pod_is_read_from_the_control_group(tmp_path, layout):
    text, pod = LAYOUTS[layout]
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "cgroup").write_text(text)
    assert pod_of(17, tmp_path) == pod


def test_a_process_that_is_gone_has_no_answer(tmp_path):
    assert pod_of(17, tmp_path) is None


def test_this_process_has_one():
    assert pod_of(os.getpid()) is not None
