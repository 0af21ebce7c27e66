"""The double as a program: ``python -m tests.fakes.kube NODES``. Prints its address, then obeys lines on stdin.

``compact [KIND]``: forget history. ``heartbeats N``: the next N nodes report anew. ``calls``: how many requests there
were since it was asked last. Each is answered with a line of JSON; it ends with its stdin.
"""

import itertools
import json
import sys
from collections import Counter

from tests.fakes.kube import park
from tests.fakes.kube.server import FakeKubernetes


def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main():
    nodes = int(sys.argv[1])
    turns = itertools.cycle(range(nodes))
    with FakeKubernetes() as double:
        park.fill(double, nodes)
        say(double.url)
        for number, line in enumerate(sys.stdin):
            match line.split():
                case ["compact", *kind]:
                    double.compact(*kind)
                    say("done")
                case ["heartbeats", count]:
                    for turn in itertools.islice(turns, int(count)):
                        double.put(park.node(turn, heartbeat=f"2026-11-26T01:{number % 60:02d}:00Z"))
                    say("done")
                case ["calls"]:
                    say(Counter(f"{seen.verb} {seen.resource}" for seen in double.seen))
                    del double.seen[:]
                case words:
                    raise SystemExit(f"unknown command: {' '.join(words)}")


if __name__ == "__main__":
    main()
