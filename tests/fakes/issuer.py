"""An OpenID issuer on loopback: real keys, the code flow with PKCE for whoever asks, and switches for what goes wrong.

Its signatures are made with ``cryptography`` alone, so that the product is held to the standard and not to its library.
"""

import base64
import hashlib
import hmac
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

CLIENT, SECRET, AUDIENCE = "shisuan-page", "s3cret:/ +", "shisuan"


def b64(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def part(told):
    return b64(json.dumps(told).encode())


def number(value, size=None):
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class FakeIssuer:
    """Runs from construction to :meth:`close`."""

    def __init__(self):
        self.claims = {"sub": "alice", "tenant": "studio-a", "groups": ["artists"]}
        """Of whoever signs in."""
        self.now_s = 1_800_000_000
        self.asked = []
        """Paths, in order."""
        self.status = 200
        """Of every answer, when it is not 200."""
        self.says = {}
        """Beside what it says of itself."""
        self.changes = {}
        """Of the next ID token's claims."""
        self._codes = {}
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.issuer = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.keys, self.published = {}, []
        self.rotate("r1")
        self.rotate("e1", keep=True)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    # ── keys and tokens ──────────────────────────────────────────────────────────────────────────────────────────

    def rotate(self, kid, *, keep=False):
        """A new key, of elliptic curves if its name begins with ``e``; the others are published no longer."""
        made = ec.generate_private_key(ec.SECP256R1()) if kid[0] == "e" else rsa.generate_private_key(65_537, 2_048)
        self.keys[kid] = made
        self.published = [*(self.published if keep else ()), kid]

    def jwks(self):
        return {"keys": [self._jwk(kid) for kid in self.published]}

    def _jwk(self, kid):
        public = self.keys[kid].public_key().public_numbers()
        if kid[0] == "e":
            shape = {"kty": "EC", "crv": "P-256", "x": number(public.x, 32), "y": number(public.y, 32)}
        else:
            shape = {"kty": "RSA", "n": number(public.n), "e": number(public.e)}
        return {**shape, "kid": kid, "use": "sig"}

    def token(self, kid="r1", *, alg=None, header=None, **changes):
        """An access token; a claim that is None is left out."""
        standard = {"iss": self.url, "aud": AUDIENCE, "iat": self.now_s, "exp": self.now_s + 300}
        claims = {k: v for k, v in {**standard, **self.claims, **changes}.items() if v is not None}
        alg = alg or ("ES256" if kid[0] == "e" else "RS256")
        text = f"{part({'alg': alg, 'kid': kid, **(header or {})})}.{part(claims)}"
        return f"{text}.{b64(self._sign(kid, alg, text.encode()))}"

    def _sign(self, kid, alg, data):
        key = self.keys[kid]
        if alg == "none":
            return b""
        if alg.startswith("HS"):  # the old trick: the public key as a password
            return hmac.digest(json.dumps(self._jwk(kid)).encode(), data, "sha256")
        if kid[0] == "e":
            r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())

    # ── the flow ─────────────────────────────────────────────────────────────────────────────────────────────────

    def sign_in(self, url):
        """What a browser is sent back with, once its user has agreed."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        code = secrets.token_urlsafe(8)
        self._codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state'], 'iss': self.url})}"

    def redeem(self, form, authorization):
        asked = self._codes.pop(form.get("code", ""), None)
        verifier = b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        said = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        if [unquote(said[0]), unquote(said[2].replace("+", " "))] != [CLIENT, SECRET]:
            return 401, {"error": "invalid_client"}
        if asked is None or verifier != asked["code_challenge"] or form.get("redirect_uri") != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant", "error_description": "code, verifier or address are wrong"}
        told = self.token(**{"aud": asked["client_id"], "nonce": asked["nonce"], **self.changes})
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": told}

    def answer(self, method, path, form, authorization):
        self.asked.append(path)
        if self.status != 200:
            return self.status, {"error": "temporarily_unavailable"}
        if path == "/.well-known/openid-configuration":
            names = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
            return 200, {"issuer": self.url, **{k: self.url + v for k, v in names.items()}, **self.says}
        if path == "/keys":
            return 200, self.jwks()
        if (method, path) == ("POST", "/token"):
            return self.redeem(form, authorization)
        return 404, {}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    issuer: FakeIssuer


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/authorize?"):
            self.send_response(302)
            self.send_header("Location", self.server.issuer.sign_in(self.path))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._answer("")

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _answer(self, body):
        form = {name: values[0] for name, values in parse_qs(body).items()}
        authorization = self.headers.get("Authorization", "")
        status, told = self.server.issuer.answer(self.command, urlsplit(self.path).path, form, authorization)
        raw = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_):
        pass
