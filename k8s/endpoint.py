"""Where a Service without a selector leads: to the one pod that says so last.

Readiness cannot say it: a rolling update waits until new pods are ready, and a standby would never be.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from k8s.api import Api, Object, Only
from k8s.errors import Absent, KubernetesError
from k8s.names import MANAGED_BY, OURS
from k8s.resource import ENDPOINT_SLICES

_log = logging.getLogger(__name__)
SERVICE = "kubernetes.io/service-name"
KEEPER = "endpointslice.kubernetes.io/managed-by"


class Endpoint:
    """One pod's address, to be put into the Service's only EndpointSlice, which has the Service's name."""

    def __init__(self, api: Api, namespace: str, service: str, address: str, ports: Mapping[str, int]) -> None:
        """``ports`` by their names in the Service."""
        self._api, self._namespace, self._service = api, namespace, service
        self._address, self._ports = address, ports

    def publish(self, may: Callable[[], bool]) -> bool:
        """Point the Service to this address if ``may`` allows it; whether that is done, or not to be done any more.

        ``may`` is asked after the present version was read, and only that version is replaced: whoever was allowed
        later has the last word, however long this process sleeps in between.
        """
        try:
            only = self._version()
            if may() and only is None:
                self._api.create(ENDPOINT_SLICES, self._slice(), self._namespace)
            elif may():
                self._api.apply(ENDPOINT_SLICES, self._slice(), self._namespace, only=only, force=True)
        except KubernetesError as error:
            _log.warning("the Service %s/%s cannot be pointed here: %s", self._namespace, self._service, error)
            return False
        return True

    def _version(self) -> Only | None:
        try:
            meta = self._api.get(ENDPOINT_SLICES, self._service, self._namespace)["metadata"]
        except Absent:
            return None
        return Only(uid=meta["uid"], version=meta["resourceVersion"])

    def _slice(self) -> Object:
        return {
            "metadata": {"name": self._service, "labels": {SERVICE: self._service, KEEPER: OURS, MANAGED_BY: OURS}},
            "addressType": "IPv6" if ":" in self._address else "IPv4",
            "endpoints": [{"addresses": [self._address], "conditions": {"ready": True}}],
            "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in sorted(self._ports.items())],
        }
