#!/usr/bin/env -S python3
"""Stands for a Python with torchrun: ``FAKE`` says what its training processes do, one unless they are to be torn."""

import os
import signal
import subprocess
import sys

ROOT_CAUSE = """
Root Cause (first observed failure):
[0]:
  time      : 2030-01-01_00:00:00
  host      : localhost
  rank      : 1 (local_rank: 1)
  exitcode  : {code} (pid: 99)
"""
WORKERS = {
    "words": "import os, sys; print(os.environ['WORDS']); print('shisuan_done: {\"loss\": 2}')",
    "nan": 'import time; print(\'shisuan_metric: {"step": 4, "loss": NaN}\'); time.sleep(600)',
    "sleep": "import time; print('begun'); time.sleep(600)",
    "save": (
        "import signal, sys, time\n"
        "def save(*_): print('saved'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save); print('begun'); time.sleep(600)"
    ),
    "raise": "print('[rank0]: KeyError: 1'); print('[rank1]: ValueError: no such text'); raise SystemExit(1)",
    "leaves": "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "torn": (
        "import os, sys, time\n"
        "for word in ('shisuan_', 'status: ', 'rank ', os.environ['LOCAL_RANK'], '\\n', 'left'):\n"
        "    time.sleep(0.05); sys.stdout.write(word)"
    ),
}


def told(*_):
    print("torchrun was told", flush=True)
    sys.exit(9)


def main():
    fake = os.environ["FAKE"]
    if sys.argv[1] == "-u":  # started as the training's Python
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    signal.signal(signal.SIGTERM, told)
    if fake == "slow":
        print("begun", flush=True)
        signal.pause()
    python = os.environ.get("PYTHON_EXEC", sys.executable)
    workers = []
    for rank in range(2 if fake == "torn" else 1):
        env = {**os.environ, "WORDS": " ".join(sys.argv[1:]), "LOCAL_RANK": str(rank)}
        workers.append(subprocess.Popen([python, "-u", "-c", WORKERS[fake]], env=env, start_new_session=True))
    code, *_ = [worker.wait() for worker in workers]
    if code and fake != "save":
        print(ROOT_CAUSE.format(code=code), flush=True)
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main())
