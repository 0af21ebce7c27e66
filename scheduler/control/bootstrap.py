"""What every start makes sure of: default queue and tenant, those of the configuration file, first keys, prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from scheduler.control import terms
from scheduler.control.cycle import Cycle, Decide
from scheduler.control.identity import OidcConfig
from scheduler.control.lanes import KubernetesConfig
from scheduler.control.log_rule import LogsConfig
from scheduler.control.money import Money
from scheduler.control.operations import Operations, check_queue, check_tenant
from scheduler.control.ports import KeyRing
from scheduler.control.scheduling import QueueConfig, SchedulingConfig
from scheduler.control.settings import Home, Settings
from scheduler.control.strict import Strict
from scheduler.control.tokens import write_private
from scheduler.engine import Engine
from scheduler.model.errors import InvalidInput, Problem
from scheduler.model.event import Event, QueueSet, TenantSet
from scheduler.model.key import Role
from scheduler.model.queue import Queue, Tenant

DEFAULT = "default"
MOST_BYTES = 1024 * 1024
LEAST_KEY = 32
"""Characters of an operator's key that was not made here: nobody must be able to guess it."""


OWN_FOLDER = "own"
"""In ``roots``: the tenant's folder under the home. A folder really named so can be written ``./own``."""


class TenantConfig(Strict):
    """A tenant in the configuration file. Without roots it gets a folder under the home.

    A relative root starts at the configuration file's folder.
    """

    name: str
    display_name: str = ""
    queues: Annotated[list[str], Field(default_factory=lambda: [DEFAULT])]
    roots: Annotated[list[str], Field(default_factory=list)]
    subsidy_excluded: Annotated[str, Field(max_length=200)] = ""
    """Why no voucher pays for this tenant."""
    budget: terms.Yuan | None = None
    """Most yuan that it may come to owe, in all; left out: no limit."""


class FeedConfig(Strict):
    """Where the park's ledger takes what is sealed."""

    url: str
    key_file: str = ""
    """PEM file with an Ed25519 private key; empty: the home's own, made when it is not there."""

    @field_validator("url")
    @classmethod
    def is_safe(cls, url: str) -> str:
        """Usage is confidential: it leaves this machine encrypted only."""
        parts = urlsplit(url)
        local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and local)):
            return url
        raise PydanticCustomError("feed_url", "must be https://HOST/PATH, or http:// on this machine")


class Config(Strict):
    """The file given by ``--config``."""

    queues: Annotated[list[QueueConfig], Field(default_factory=list)]
    tenants: Annotated[list[TenantConfig], Field(default_factory=list)]
    scheduling: Annotated[SchedulingConfig, Field(default_factory=lambda: SchedulingConfig.model_validate({}))]
    feed: FeedConfig | None = None
    oidc: OidcConfig | None = None
    logs: Annotated[LogsConfig, Field(default_factory=lambda: LogsConfig.model_validate({}))]
    kubernetes: KubernetesConfig | None = None
    """Read with ``--kubernetes`` only."""
    rates: Annotated[list[terms.RateConfig], Field(default_factory=list)]
    policies: Annotated[list[terms.PolicyConfig], Field(default_factory=list)]
    vouchers: Annotated[list[terms.VoucherConfig], Field(default_factory=list)]


def read_config(path: str) -> Config:
    """The configuration file (an empty name: an empty one). Raises InvalidInput with every mistake."""
    if not path:
        return Config.model_validate({})
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput([Problem("--config", f"cannot read {path}: {error.strerror}")]) from None
    if len(data) > MOST_BYTES:
        raise InvalidInput([Problem("--config", f"{path} is larger than 1 MiB")])
    try:
        return Config.model_validate(yaml.load(data, terms.Loader) or {})  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise InvalidInput([Problem("--config", f"{path} is not YAML: {' '.join(str(error).split())}")]) from None
    except ValidationError as error:
        raise InvalidInput(terms.problems_of(error)) from None


def unshared(config: Config) -> list[Problem]:
    """What would lie in the home folder of one of several services, which share none."""
    found = [
        Problem(f"tenants[{at}].roots", "must name folders that all services reach: with --elect they share no home")
        for at, tenant in enumerate(config.tenants)
        if not tenant.roots or OWN_FOLDER in tenant.roots
    ]
    if config.feed is not None and not config.feed.key_file:
        found.append(Problem("feed.key_file", "is needed with --elect: services share no home folder"))
    return found


def require_shared(config: Config, database_url: str) -> None:
    """Raises InvalidInput for what one of several services would keep for itself."""
    problems = unshared(config)
    if database_url.startswith("sqlite"):
        problems.insert(0, Problem("--database", "must be PostgreSQL with --elect: services share no home folder"))
    if problems:
        raise InvalidInput(problems)


def apply(  # noqa: PLR0917 (each is a different thing)
    settings: Settings, config: Config, cycle: Cycle, operations: Operations, keys: KeyRing, home: Home, money: Money
) -> None:
    """Bring tenants, queues and prices to what the settings say, then see that each tenant has a key.

    Raises InvalidInput.
    """
    queues = [q.queue(q.name) for q in config.queues]
    if all(q.name != DEFAULT for q in queues):
        queues.insert(0, Queue(name=DEFAULT))
    tenants = [_tenant(t, Path(settings.config).absolute().parent, operations) for t in config.tenants]
    if all(t.name != DEFAULT for t in tenants):
        tenants.insert(0, Tenant(name=DEFAULT, display_name="Default"))
    # Queues before tenants, so that a tenant may use a queue of the same file.
    for position, queue in enumerate(queues):
        cycle.call(_put_queue(queue, f"queues[{position}]."))
    for position, tenant in enumerate(tenants):
        cycle.call(_put_tenant(_rooted(tenant, settings, operations), f"tenants[{position}]."))
    if settings.operator_key:
        _given_key(keys, home, settings.operator_key)
    else:
        _first_keys(keys, home, [t.name for t in tenants])
    _put_terms(config, money)


def _put_terms(config: Config, money: Money) -> None:
    """Record what is not recorded yet. Prices before policies before vouchers, so that one file may hold them all."""
    for position, rate in enumerate(config.rates):
        money.set_rate(rate.card(), f"rates[{position}]")
    if not money.has_rates():
        money.set_rate(terms.example_card(), "rates")
    for position, policy in enumerate(config.policies):
        money.set_policy(policy.version(), f"policies[{position}]")
    for position, voucher in enumerate(config.vouchers):
        money.set_voucher(voucher.voucher(), f"vouchers[{position}].")


def _tenant(config: TenantConfig, folder: Path, operations: Operations) -> Tenant:
    return Tenant(
        name=config.name,
        display_name=config.display_name,
        queues=tuple(config.queues),
        storage_roots=tuple(_root(root, config.name, folder, operations) for root in config.roots),
        subsidy_excluded=config.subsidy_excluded,
        budget_micro_yuan=-1 if config.budget is None else config.budget,
    )


def _root(root: str, tenant: str, folder: Path, operations: Operations) -> str:
    if "://" in root:
        return root
    return operations.own_root(tenant) if root == OWN_FOLDER else str((folder / root).resolve())


def _rooted(tenant: Tenant, settings: Settings, operations: Operations) -> Tenant:
    """``default`` may also use the folders given by ``--root``."""
    made = operations.with_root(tenant)
    if made.name != DEFAULT:
        return made
    more = tuple(str(Path(root).resolve()) for root in settings.roots)
    return replace(made, storage_roots=tuple(dict.fromkeys((*made.storage_roots, *more))))


def _put_queue(queue: Queue, pointer: str) -> Decide[None]:
    def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], None]:
        if queue in tuple(engine.queues()):
            return (), None
        check_queue(engine, queue, pointer)
        return (QueueSet(at_ms=now_ms, queue=queue),), None

    return decide


def _put_tenant(tenant: Tenant, pointer: str) -> Decide[None]:
    def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], None]:
        if tenant in tuple(engine.tenants()):
            return (), None
        check_tenant(engine, tenant, pointer)
        return (TenantSet(at_ms=now_ms, tenant=tenant),), None

    return decide


def _given_key(keys: KeyRing, home: Home, file: str) -> None:
    """One of several services makes none: each would make its own, and nobody would know which. Raises InvalidInput."""
    try:
        secret = Path(file).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise InvalidInput([Problem("--operator-key", f"cannot read {file}: {error}")]) from None
    if len(secret) < LEAST_KEY:
        raise InvalidInput([Problem("--operator-key", f"{file}: must hold {LEAST_KEY} characters or more")])
    keys.keep_key(secret, DEFAULT, Role.OPERATOR, label="given at the start")
    write_private(home.key, f"{secret}\n".encode())  # for the command, on this machine


def _first_keys(keys: KeyRing, home: Home, tenants: Sequence[str]) -> None:
    """Written before it is told to anyone; a crash in between leaves an unused key, never a missing one."""
    if not home.key.exists():
        _, secret = keys.add_key(DEFAULT, Role.OPERATOR, label="first key of this installation")
        write_private(home.key, f"{secret}\n".encode())
    for tenant in tenants:
        path = home.keys / tenant
        if tenant != DEFAULT and not path.exists():
            _, secret = keys.add_key(tenant, Role.TENANT, label="from the configuration file")
            write_private(path, f"{secret}\n".encode())
