# ruff: noqa: PTH123, PTH208
"""Tries to get what it should not, and prints what it got as one line of JSON. Arguments: JSON of targets."""

import json
import os
import socket
import sys
import urllib.request

targets = json.loads(sys.argv[1])
got: dict[str, object] = {}


def attempt(name, action):
    try:
        got[name] = action()
    except BaseException as error:  # noqa: BLE001
        print(f"{name}: {error!r}")


def read(path):
    with open(path, "rb") as file:
        return file.read(200).decode(errors="replace")


def environs():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if targets["secret"] in read(f"/proc/{pid}/environ"):
                found.append(pid)
        except OSError:
            continue
    if not found:
        raise LookupError("no secret in any environment")
    return found


def kill_service():
    os.kill(targets["service_pid"], 0)
    with open(f"/proc/{targets['service_pid']}/cmdline") as file:
        return file.read()


for path in targets["read"]:
    attempt(f"read {path}", lambda path=path: read(path))
for path in targets["write"]:
    attempt(f"write {path}", lambda path=path: open(path, "w").write("x"))  # noqa: SIM115
for path in targets["list"]:
    attempt(f"list {path}", lambda path=path: os.listdir(path))
attempt("environments", environs)
attempt("connect", lambda: socket.create_connection(("127.0.0.1", targets["port"]), 2).close() or "connected")
attempt("http", lambda: urllib.request.urlopen(f"http://127.0.0.1:{targets['port']}/", timeout=2).status)
attempt("signal the service", kill_service)
attempt("become root again", lambda: os.setuid(0) or read("/etc/shadow"))
attempt("mount", lambda: os.system("mount -t tmpfs none /mnt 2>/dev/null") == 0 or 1 / 0)
attempt("device", lambda: os.mknod(os.environ["SHISUAN_WORK"] + "/mem", 0o20666, os.makedev(1, 1)) or "made")
own = os.environ["SHISUAN_OUTPUTS"] + "/mine"
with open(own, "w") as file:
    file.write("own work folder is writable")
print("GOT " + json.dumps(got), flush=True)
