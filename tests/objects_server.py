"""An S3-compatible server on loopback, for tests: moto's, one request at a time, with faults on demand.

moto looks at ``If-Match`` and writes in two steps; one request at a time makes them one, as on a real server.
Run as a program it prints its port and serves until its standard input ends.
"""

import json
import os
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
BUCKET = "park"


class ObjectsServer:
    """Start it with :func:`serving`."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"
        self.env = KEYS | {"AWS_ENDPOINT_URL_S3": self.url, "NO_PROXY": "127.0.0.1"}

    def fail(self, count, *, code="SlowDown", status=503, method="", path=""):
        """Answer the next ``count`` requests of this method, whose path holds ``path``, with an error."""
        fault = {"count": count, "code": code, "status": status, "method": method, "path": path}
        request = urllib.request.Request(f"{self.url}/__fault", json.dumps(fault).encode(), method="POST")
        urllib.request.urlopen(request).close()

    def asked(self):
        """``METHOD path?query`` of all requests so far."""
        with urllib.request.urlopen(f"{self.url}/__asked") as answer:
            return json.load(answer)


@contextmanager
def serving():
    command = [sys.executable, "-P", __file__]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True) as server:
        try:
            yield ObjectsServer(int(server.stdout.readline()))
        finally:
            server.stdin.close()


class Bucket:
    """What tests do beside the product: as a user of the bucket would."""

    def __init__(self, objects, name):
        self.client, self.name = objects._client, name
        self.client.create_bucket(Bucket=name)

    def put(self, key, text):
        self.client.put_object(Bucket=self.name, Key=key, Body=text)

    def remove(self, key):
        self.client.delete_object(Bucket=self.name, Key=key)

    def texts(self, prefix="", hidden=True):
        """All objects below, names without the prefix; ``hidden``: ours among them."""
        found = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        keys = [item["Key"] for page in found for item in page.get("Contents", ())]
        keys = [key for key in keys if hidden or "/.shisuan/" not in key]
        bodies = {key: self.client.get_object(Bucket=self.name, Key=key)["Body"].read().decode() for key in keys}
        return {key.removeprefix(prefix): body for key, body in bodies.items()}


class Faults:
    """Around moto's application."""

    def __init__(self, app):
        self.app, self.asked, self.fault = app, [], {"count": 0}

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/__fault":
            self.fault = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            return self._say(start_response, "200 OK", b"{}")
        if path == "/__asked":
            return self._say(start_response, "200 OK", json.dumps(self.asked).encode())
        self.asked.append(f"{environ['REQUEST_METHOD']} {path}?{environ.get('QUERY_STRING', '')}")
        fault = self.fault
        if fault["count"] and fault["method"] in ("", environ["REQUEST_METHOD"]) and fault["path"] in path:
            fault["count"] -= 1
            if fault["code"] == "Lost":  # done, but the answer does not arrive
                b"".join(self.app(environ, lambda *_: None))
            body = f"<Error><Code>{fault['code']}</Code><Message>no</Message></Error>".encode()
            return self._say(start_response, f"{fault['status']} Fault", body)
        return self.app(environ, start_response)

    def _say(self, start_response, status, body):
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


def main():
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    WSGIRequestHandler.log_request = lambda *_: None
    server = make_server("127.0.0.1", 0, Faults(DomainDispatcherApplication(create_backend_app)), threaded=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
