"""The Pod Security Standard ``restricted`` as of Kubernetes 1.36, which contains ``baseline``."""

from collections.abc import Iterator, Mapping
from typing import Any

Raw = Mapping[str, Any]
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SECCOMP = {"RuntimeDefault", "Localhost"}


def violations(spec: Raw) -> list[str]:
    """What the profile refuses in a pod: ``field: why``."""
    return [*_pod(spec), *(found for at, one in _containers(spec) for found in _container(at, one, spec))]


def _containers(spec: Raw) -> Iterator[tuple[str, Raw]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for one in spec.get(kind) or ():
            yield f"{kind}[{one['name']}]", one


def _pod(spec: Raw) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"{name}: shares the host's"
    for volume in spec.get("volumes") or ():
        kinds = volume.keys() - {"name"}
        if not kinds <= VOLUMES:
            yield f"volumes[{volume['name']}]: {', '.join(sorted(kinds - VOLUMES))}"
    context = spec.get("securityContext") or {}
    for sysctl in context.get("sysctls") or ():
        if sysctl["name"] not in SYSCTLS:
            yield f"securityContext.sysctls: {sysctl['name']}"
    yield from _shared("securityContext", context)


def _shared(at: str, context: Raw) -> Iterator[str]:
    """What pods and containers may say alike."""
    if context.get("runAsUser") == 0:
        yield f"{at}.runAsUser: root"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{at}.windowsOptions.hostProcess"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in SELINUX or selinux.get("user") or selinux.get("role"):
        yield f"{at}.seLinuxOptions"
    for name, allowed in (("seccompProfile", SECCOMP), ("appArmorProfile", SECCOMP)):
        profile = context.get(name)
        if profile is not None and profile.get("type") not in allowed:
            yield f"{at}.{name}: {profile.get('type')}"


def _container(at: str, one: Raw, spec: Raw) -> Iterator[str]:
    own, pods = one.get("securityContext") or {}, spec.get("securityContext") or {}
    yield from _shared(f"{at}.securityContext", own)
    if own.get("privileged"):
        yield f"{at}: privileged"
    if own.get("procMount", "Default") != "Default":
        yield f"{at}: procMount"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{at}: allowPrivilegeEscalation is not false"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield f"{at}: does not drop ALL capabilities"
    if not set(capabilities.get("add") or ()) <= {"NET_BIND_SERVICE"}:
        yield f"{at}: adds capabilities"
    if own.get("runAsNonRoot", pods.get("runAsNonRoot")) is not True:
        yield f"{at}: runAsNonRoot is not true"
    if (own.get("seccompProfile") or pods.get("seccompProfile") or {}).get("type") not in SECCOMP:
        yield f"{at}: no seccompProfile"
    for port in one.get("ports") or ():
        if port.get("hostPort"):
            yield f"{at}: hostPort {port['hostPort']}"
    handlers = [one.get(name) or {} for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += [handler for handler in (one.get("lifecycle") or {}).values() if isinstance(handler, Mapping)]
    for handler in handlers:
        if any((handler.get(kind) or {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield f"{at}: a probe of another host"
