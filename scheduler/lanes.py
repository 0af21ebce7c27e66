"""Joins the lanes on Kubernetes (``k8s``) with the way to their bridges (``workers.gateway``), which do not know each
other. Bridges dial the leader: nobody listens before the epoch is taken.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from pathlib import Path

from k8s.api import Api
from k8s.door import from_kubeconfig, in_cluster
from k8s.executor import KubernetesExecutor
from k8s.manifests import JOB
from k8s.mapping import Cards
from k8s.mig import Config, Entry
from k8s.site import Bucket, Site, Volume
from scheduler import mig_file
from scheduler.control import bootstrap
from scheduler.control.clock import SystemClock
from scheduler.control.lanes import KubernetesConfig, MigEntryConfig
from scheduler.control.ports import Clock
from scheduler.control.settings import Settings
from scheduler.control.tokens import Tokens
from scheduler.model.errors import InvalidInput, Problem, StoreError, Unauthorized
from scheduler.store import SqlStore
from workers.gateway import Gateway, server_tls
from workers.messages import Hello


class Lanes:
    """``executor`` is the control plane's; it does nothing before :meth:`lead`."""

    def __init__(self, settings: Settings, config: KubernetesConfig, store: SqlStore, clock: Clock) -> None:
        """Raises KubernetesError when there is no way to ask an API server, or (with ``mig_config_map``) no answer;
        InvalidInput for what that ConfigMap does not have.
        """
        self._config, self._store = config, store
        self._tokens = Tokens(store.token_secret())
        self._epoch = 0
        connect = from_kubeconfig(settings.kubeconfig) if settings.kubeconfig else in_cluster()
        connect()  # a file that is not there is said at the start
        api = Api(connect)
        if config.mig_config_map is not None:
            config = config.model_copy(update={"mig_configs": mig_file.read(api, config.mig_config_map)})
        self.executor = KubernetesExecutor(
            api,
            site_of(config),
            token=self._tokens.derive,
            now_ms=clock.now_ms,
            may_write=self._may_write,
            lane=config.lane,
        )

    @classmethod
    def of(cls, settings: Settings, store: SqlStore) -> Lanes:
        """As the settings say. Raises InvalidInput, KubernetesError."""
        return cls(settings, section(settings), store, SystemClock())

    def lead(self, epoch: int) -> None:
        """This process holds the epoch: listen, and begin. Raises InvalidInput for a port or files it cannot use."""
        self._epoch = epoch
        tls, config = self._config.tls, self._config
        try:
            context = server_tls(Path(tls.certificate), Path(tls.key)) if tls is not None else None
        except OSError as error:
            raise InvalidInput([Problem("kubernetes.tls", f"cannot be used: {error}")]) from None
        try:
            gateway = Gateway(epoch=epoch, tell=self.executor.hear, admit=self._admit, port=config.port, tls=context)
        except OSError as error:
            raise InvalidInput([Problem("kubernetes.gateway", f"port {config.port} cannot be had: {error}")]) from None
        self.executor.open(gateway, epoch)

    def _may_write(self) -> bool:
        try:
            return self._store.epoch() == self._epoch
        except StoreError:
            return False  # the cycle meets the same and ends

    def _admit(self, hello: Hello) -> str:
        """Why a bridge may not come in. A pool cluster shows a token made from its name, a RayJob its attempt's, for as
        long as its lease is open. Raises StoreError.
        """
        lane, attempts = self.executor.carries(hello.cluster)
        if lane == JOB:
            try:
                if self._tokens.check(hello.token, 0) not in attempts:  # however long it runs
                    return "the token is another attempt's"
            except Unauthorized as error:
                return str(error)
        elif not hmac.compare_digest(hello.token.encode(), self._tokens.derive(f"bridge/{hello.cluster}").encode()):
            return "the token is not this cluster's"
        return "" if self._store.epoch() == self._epoch else "this service leads no longer"


def section(settings: Settings) -> KubernetesConfig:
    """``kubernetes`` of the configuration file. Raises InvalidInput."""
    config = bootstrap.read_config(settings.config).kubernetes
    if config is None:
        raise InvalidInput([Problem("kubernetes", f"is missing in {settings.config}, which --kubernetes asks for")])
    return config


def ports(settings: Settings) -> dict[str, int]:
    """What the Service leads to beside the API, by name."""
    return {"gateway": section(settings).port} if settings.kubernetes else {}


def site_of(config: KubernetesConfig) -> Site:
    """As the lanes want it."""
    return Site(
        namespace=config.namespace,
        gateway=config.gateway,
        images=config.images,
        instance=config.instance,
        warm_ms=config.warm,
        cluster_idle_ms=config.idle,
        start_ms=config.start_limit,
        bridge_ms=config.silence_limit,
        shards=config.shards,
        overhead_mib=config.overhead,
        cards=Cards(config.cards),
        mig_configs=tuple(mig_config(name, told) for name, told in sorted(config.mig_configs.items())),
        head_cpu_milli=config.head.cpu_milli,
        head_memory_mib=config.head.memory,
        head_node_selector=config.head.node_selector,
        head_tolerations=tuple(config.head.tolerations),
        bucket=Bucket(**config.s3.model_dump()) if config.s3 is not None else None,
        pull_secrets=tuple(config.pull_secrets),
        runtime_class=config.runtime_class,
        priority_class=config.priority_class,
        volumes=tuple(Volume(claim=v.claim, path=v.path, read_only=v.read_only) for v in config.volumes),
        network_policy=config.network_policy,
        own_submitter=config.own_submitter,
        egress=tuple(config.egress),
        gateway_ca=config.tls.ca_config_map if config.tls is not None else "",
    )


def mig_config(name: str, told: Sequence[MigEntryConfig]) -> Config:
    """A configuration of the MIG manager as the inventory reads it."""
    entries = (
        Entry(
            devices=None if one.devices == "all" else tuple(one.devices),
            profiles=tuple(sorted(one.mig_devices.items())),
            mig_on=one.mig_enabled,
        )
        for one in told
    )
    return Config(name=name, entries=tuple(entries))
