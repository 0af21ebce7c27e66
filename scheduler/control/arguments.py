"""The service's command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from scheduler.control.settings import Home, Settings
from scheduler.model.errors import InvalidInput, Problem


def parser() -> argparse.ArgumentParser:
    """Of ``python -P -m scheduler.wiring``."""
    made = argparse.ArgumentParser(prog="python -P -m scheduler.wiring", description="The shisuan service.")
    made.add_argument("--home", required=True, help="folder of the installation")
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, default=0, help="0: any free port")
    made.add_argument("--database", default="", help="SQLAlchemy URL; default: SQLite in the home folder")
    made.add_argument("--config", default="", help="YAML file with tenants, queues, prices, policies and vouchers")
    made.add_argument("--root", action="append", default=[], help="storage root of the tenant 'default'; repeatable")
    made.add_argument("--cpus", type=float, default=0, help="offered to jobs; 0: all")
    made.add_argument("--cards", default="", help="simulated cards, e.g. 8xH100")
    made.add_argument("--nodes", default="", help="YAML file of node facts")
    made.add_argument("--ray", default="", help="address of an existing Ray cluster")
    made.add_argument("--kubernetes", action="store_true", help="run work by KubeRay, as --config's kubernetes says")
    made.add_argument("--elect", default="", metavar="NAMESPACE/NAME", help="Lease that several services stand for")
    made.add_argument("--lease-seconds", type=int, default=8, help="a silent leader is replaced after so long")
    made.add_argument("--kubeconfig", default="", help="how to reach the API server; default: as this pod")
    made.add_argument("--publish", default="", metavar="SERVICE", help="point this Service to the leader")
    made.add_argument("--operator-key", default="", help="file with the operator's key; default: made in the home")
    made.add_argument("--stop", action="store_true", help="end the service and the runtime of this home")
    made.add_argument("--migrate", action="store_true", help="bring the database to this program's schema, then end")
    made.add_argument("--verify", action="store_true", help="replay the journal and compare it with the tables")
    return made


def settings(asked: argparse.Namespace) -> Settings:
    """What was asked for. Raises InvalidInput."""
    problems = [
        Problem(f"--root {root}", "no such folder") for root in asked.root if not Path(root).expanduser().is_dir()
    ]
    if asked.cpus < 0:
        problems.append(Problem("--cpus", "must be 0 or more"))
    if not 0 <= asked.port <= 65535:
        problems.append(Problem("--port", "must be 0 to 65535"))
    problems += [*_of_election(asked), *_of_kubernetes(asked)]
    if problems:
        raise InvalidInput(problems)
    return Settings(
        home=str(Home.of(asked.home).path),
        host=asked.host,
        port=asked.port,
        database_url=asked.database,
        config=asked.config,
        roots=tuple(str(Path(root).expanduser().resolve()) for root in asked.root),
        cpu_milli=round(asked.cpus * 1000),
        cards=asked.cards,
        nodes_file=asked.nodes,
        ray_address=asked.ray,
        kubernetes=asked.kubernetes,
        elect=asked.elect,
        lease_s=asked.lease_seconds,
        kubeconfig=asked.kubeconfig,
        publish=asked.publish,
        operator_key=asked.operator_key,
    )


def _of_kubernetes(asked: argparse.Namespace) -> list[Problem]:
    others = {"--ray": asked.ray, "--nodes": asked.nodes, "--cards": asked.cards, "--cpus": asked.cpus}
    problems = [
        Problem(name, "says nothing with --kubernetes: its nodes are") for name, given in others.items() if given
    ]
    if not asked.config:
        problems.append(Problem("--config", "is needed with --kubernetes: its section kubernetes says where and how"))
    return problems if asked.kubernetes else []


def _of_election(asked: argparse.Namespace) -> list[Problem]:
    problems = []
    if asked.elect:
        parts = asked.elect.split("/")
        if len(parts) != 2 or not all(parts):
            problems.append(Problem("--elect", "must be NAMESPACE/NAME"))
        if not asked.operator_key:
            problems.append(Problem("--operator-key", "is needed with --elect: services share no home folder"))
    elif asked.publish:
        problems.append(Problem("--publish", "needs --elect"))
    if asked.lease_seconds < 1:
        problems.append(Problem("--lease-seconds", "must be 1 or more"))
    if asked.publish and not asked.port:
        problems.append(Problem("--publish", "needs a --port that does not change"))
    return problems
