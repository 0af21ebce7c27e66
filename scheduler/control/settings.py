"""What one installation is told at its start, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Arguments of ``python -P -m scheduler.wiring``, kept in ``instance.json`` for whoever stops it."""

    home: str
    """Absolute folder that holds everything of the instance."""
    host: str = "127.0.0.1"
    port: int = 0
    """0: any free port; ``instance.json`` names the one taken."""
    database_url: str = ""
    """Empty: SQLite in the home folder."""
    config: str = ""
    """YAML file with tenants and queues, applied at each start."""
    roots: tuple[str, ...] = ()
    """Further storage roots of the tenant ``default``."""
    cpu_milli: int = 0
    """Offered to jobs on the embedded node; 0: all the machine has."""
    cards: str = ""
    """Simulated cards of the embedded node, e.g. ``8xH100``."""
    nodes_file: str = ""
    """YAML file of node facts, in place of what the machine says about itself."""
    ray_address: str = ""
    """An existing Ray cluster; empty: start one."""
    kubernetes: bool = False
    """Work goes to KubeRay, as the configuration file's ``kubernetes`` says, and to no Ray of our own."""
    elect: str = ""
    """``NAMESPACE/NAME`` of the Lease that several services stand for; empty: this is the only service."""
    lease_s: int = 8
    """Others take over from a leader that was silent for so long."""
    kubeconfig: str = ""
    """How to reach the API server; empty: as the pod's service account."""
    publish: str = ""
    """A Service without a selector, in the Lease's namespace, that is to lead to the leader."""
    operator_key: str = ""
    """File with the operator's key, in place of one made in the home folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the control plane; each default says why."""

    tick_ms: int = 1_000
    """Longest sleep of the cycle: deadlines of silent leases are noticed within a second."""
    gather_ms: int = 50
    """Longest pause after a transaction, in which reports gather for the next one; users' verbs do not wait for it."""
    ends_per_cycle: int = 200
    """Ends of attempts that one cycle hears, a third more than the starts it may make: it and its transaction stay
    within about 0.1 s when a crowd ends at once. The rest comes with the next cycle, which waits for nothing."""
    silence_ms: int = 120_000
    """A lease nobody has spoken of for this long after it was ordered, or after the runtime came back, is lost. Longer
    than a Ray worker takes to start on a busy machine (about 30 s), shorter than a person's patience."""
    call_timeout_ms: int = 60_000
    """A user's verb waits this long for the cycle before it gives up with an error."""
    token_ms: int = 86_400_000
    """An attempt's token outlives its step's timeout, or lives a day."""
    still_ms: int = 15_000
    """A service whose cycle has not come round for this long says that it is not ready: longer than the slowest honest
    cycle of a full farm (a second), shorter than anybody waits for an answer."""
    body_bytes: int = 2 * 1024 * 1024
    """A request above 2 MiB is refused unread: the largest honest job file is far below."""


@dataclass(frozen=True, slots=True)
class Home:
    """Names of the files under one home folder."""

    path: Path

    @classmethod
    def of(cls, text: str) -> Home:
        """The home at ``text``, absolute."""
        return cls(Path(text).expanduser().resolve())

    @property
    def instance(self) -> Path:
        """JSON: pid, url, started_ms, settings. Mode 0600."""
        return self.path / "instance.json"

    @property
    def key(self) -> Path:
        """The first operator's key. Mode 0600."""
        return self.path / "key"

    @property
    def keys(self) -> Path:
        """A file per tenant made by the configuration file. Mode 0600."""
        return self.path / "keys"

    @property
    def lock(self) -> Path:
        """Held by the one service of this home."""
        return self.path / "service.lock"

    @property
    def feed_key(self) -> Path:
        """Ed25519 private key that signs the feed, PEM. Mode 0600."""
        return self.path / "feed.key"

    @property
    def feed_cursor(self) -> Path:
        """What the feed's receiver said last; only shown."""
        return self.path / "feed.cursor"

    @property
    def log(self) -> Path:
        """The service's own log, JSON lines."""
        return self.path / "logs" / "service.log"

    def storage(self, tenant: str) -> Path:
        """First storage root of a tenant that was given none."""
        return self.path / "storage" / tenant

    def prepare(self) -> None:
        """Create the folders, closed to other users of the machine."""
        for folder in (self.path, self.log.parent, self.keys):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
