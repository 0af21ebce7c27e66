"""What keeps a pod from running, or ended it: a kind that decides, and the words of Kubernetes for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Raw = Mapping[str, Any]


class Kind(StrEnum):
    """Of trouble; it stands before the words, as in ``image_pull: ErrImagePull: no such image``."""

    IMAGE_PULL = "image_pull"
    UNSCHEDULABLE = "unschedulable"
    CONFIGURATION = "configuration"
    """A Secret, a volume or a setting of the pod that is not there or not right."""
    OUT_OF_MEMORY = "out_of_memory"
    EVICTED = "evicted"
    CRASHED = "crashed"
    OTHER = "other"


KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"), Kind.IMAGE_PULL),
    **dict.fromkeys(("ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"), Kind.IMAGE_PULL),
    **dict.fromkeys(("Unschedulable", "SchedulerError", "SchedulingGated"), Kind.UNSCHEDULABLE),
    **dict.fromkeys(("CreateContainerConfigError", "CreateContainerError", "RunContainerError"), Kind.CONFIGURATION),
    **dict.fromkeys(("UnexpectedAdmissionError", "StartError", "ContainerCannotRun"), Kind.CONFIGURATION),
    "OOMKilled": Kind.OUT_OF_MEMORY,
    **dict.fromkeys(("Evicted", "Preempting", "NodeShutdown", "Terminated", "NodeAffinity"), Kind.EVICTED),
    **dict.fromkeys(("Error", "CrashLoopBackOff", "ContainerStatusUnknown", "DeadlineExceeded"), Kind.CRASHED),
}
"""By the reason that kubelet or scheduler give."""
_FINE = frozenset({"ContainerCreating", "PodInitializing", "Completed"})
_LONGEST = 1_000
"""Characters of a message: that of a scheduler names every node's reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that is wrong."""

    kind: Kind
    said: str
    """Reason and message, as Kubernetes has them."""

    def __str__(self) -> str:
        return self.said if self.kind is Kind.OTHER else f"{self.kind.value}: {self.said}"

    @property
    def is_its_own(self) -> bool:
        """The work itself is to blame: it would come to the same end anywhere."""
        return self.kind is Kind.OUT_OF_MEMORY


def trouble_of(status: Raw) -> Trouble | None:
    """The first thing that is wrong with a pod. A container that was ended before it waits again says why."""
    for state in _states(status):
        reason = state.get("reason")
        if reason and reason not in _FINE:
            code = f" (exit code {state['exitCode']})" if "exitCode" in state else ""
            return _made(str(reason), f"{reason}{code}", state.get("message"))
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reason = str(condition.get("reason", ""))
            return _made(reason, reason, condition.get("message"))
    reason, message = str(status.get("reason", "")), status.get("message")
    return _made(reason, reason, message) if reason or message else None


def _states(status: Raw) -> Iterator[Raw]:
    """Of all containers that wait or have ended, those first that prepare."""
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state = container.get("state") or {}
        before = (container.get("lastState") or {}).get("terminated")
        if before and (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff":
            yield before
        yield state.get("waiting") or state.get("terminated") or {}


def _made(reason: str, head: str, message: Any) -> Trouble:
    said = ": ".join(filter(None, (head, str(message or "").strip())))
    return Trouble(kind=KINDS.get(reason, Kind.OTHER), said=said[:_LONGEST])
