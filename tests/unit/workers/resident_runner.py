"""A resident runner for tests: each request names what it should do."""
# ruff: noqa: PTH123

import json
import os
import sys
import time

served = 0
for line in sys.stdin:
    request = json.loads(line)
    served += 1
    print("working on", request.get("say", ""), flush=True)
    match request.get("do"):
        case "fail":
            print("shisuan_fail: asked to fail", flush=True)
            continue
        case "crash":
            os.kill(os.getpid(), 11)
        case "exit":
            sys.exit(0)
        case "wait":
            print("shisuan_status: waiting", flush=True)
            while True:
                time.sleep(0.01)
        case "spin":
            end = time.process_time() + request["cpu_s"]
            while time.process_time() < end:
                pass
        case "write":
            with open(request["out"] + "/result.txt", "w") as file:
                file.write(f"{os.getpid()}")
    print("shisuan_progress: 100")
    print("shisuan_done: " + json.dumps({"pid": os.getpid(), "served": served}), flush=True)
