"""A headless Chromium, spoken to over its DevTools protocol: open, type, read, look."""

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request

import websocket

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--remote-debugging-port=0", "--remote-allow-origins=*",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
)  # fmt: skip
START_LIMIT_S = 60
WAIT_LIMIT_S = 30


def find():
    return next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), "")


class Chromium:
    def __init__(self, folder, *, language="en-US", dark=False):
        self.log = (folder / "chromium.log").open("wb")
        profile = folder / f"profile-{language}"
        argv = [find(), *FLAGS, f"--user-data-dir={profile}", f"--accept-lang={language}", "about:blank"]
        self.process = subprocess.Popen(argv, stdout=self.log, stderr=self.log)
        self.port = self._port(profile / "DevToolsActivePort")
        self._numbers = itertools.count(1)
        self.console = []
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/json") as answer:
            page = next(t for t in json.load(answer) if t["type"] == "page")
        self.socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=WAIT_LIMIT_S)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        if dark:
            self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def _port(self, file):
        for _ in range(START_LIMIT_S * 10):
            assert self.process.poll() is None, "chromium ended; see chromium.log"
            if file.exists() and (text := file.read_text()):
                return int(text.split()[0])
            time.sleep(0.1)
        raise AssertionError("chromium did not open its port")

    def ask(self, method, **parameters):
        number = next(self._numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message):
        if message.get("method") == "Log.entryAdded":
            self.console.append(message["params"]["entry"]["text"])
        if message.get("method") == "Runtime.exceptionThrown":
            self.console.append(message["params"]["exceptionDetails"]["text"])

    def open(self, url):
        self.ask("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, script):
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script):
        for _ in range(WAIT_LIMIT_S * 20):
            if self.run(script):
                return
            time.sleep(0.05)
        raise AssertionError(f"never became true: {script}")

    def text(self):
        return self.run("document.body.innerText")

    def screenshot(self, target, width=1280):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        height = self.run("document.documentElement.scrollHeight")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        data = self.ask("Page.captureScreenshot", format="png")["data"]
        target.write_bytes(base64.b64decode(data))
        return target

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)
        self.log.close()
