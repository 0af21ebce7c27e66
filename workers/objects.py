"""The one door to boto3: objects of an S3-compatible server, and its errors in words that a user understands.

Credentials, endpoint and region are the agent's: ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY`` (or whatever else
boto3 finds), ``AWS_ENDPOINT_URL_S3``, ``AWS_REGION``. A runner gets none of them. Throttling, 5xx answers and broken
connections are repeated with jitter and a bound by boto3's ``standard`` mode. A write may be bound to the state it was
decided on (``If-None-Match: *``, ``If-Match: <etag>``); the server must honour that, and is asked once per bucket.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

from scheduler.model.errors import StorageError

SCHEME = "s3://"
ATTEMPTS = 8
"""Of one request, the first included: the last pause is at most 20 s (boto3's ``standard`` mode)."""
PART_BYTES = 64 << 20
"""Larger files go up in parts."""
COPY_BYTES = 5 << 30
"""Larger ones are also copied in parts: S3 copies no more in one request."""
MOST_PARTS = 10_000
CONNECT_S, READ_S = 5, 60
SHA256 = "shisuan-sha256"
"""Name of the metadata that holds a file's digest."""
PROBE = "conditional-writes"
NO_ETAG = f'"{"0" * 32}"'

_WORDS = {
    "NoSuchBucket": "there is no bucket {bucket!r}",
    "InvalidBucketName": "{bucket!r} is no bucket's name",
    "AccessDenied": "the agent's credentials may not {verb} {uri}",
    "403": "the agent's credentials may not {verb} {uri}",
    "AllAccessDisabled": "the agent's credentials may not {verb} {uri}",
    "InvalidAccessKeyId": "the server does not know the agent's AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the agent's AWS_SECRET_ACCESS_KEY does not fit its AWS_ACCESS_KEY_ID",
    "ExpiredToken": "the agent's AWS_SESSION_TOKEN has expired",
    "SlowDown": "the server still says to slow down after {attempts} tries of {verb} {uri}",
    "ServiceUnavailable": "the server is still overloaded after {attempts} tries of {verb} {uri}",
    "EntityTooLarge": "{uri} is larger than the server takes",
}
_GONE = frozenset({"NoSuchKey", "404", "NotFound"})
_CHANGED = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})


class Changed(StorageError):
    """The object is not in the state that the write was decided on: look again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A bucket and a key, or the beginning of keys."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """As users write it."""
        return f"{SCHEME}{self.bucket}/{self.key}".rstrip("/")

    def below(self, name: str) -> Place:
        """``name`` in this folder."""
        return Place(bucket=self.bucket, key=f"{self.key}/{name}" if self.key else name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One object as the server tells of it."""

    key: str
    size: int
    etag: str
    sha256: str = ""
    """Where we wrote it, and asked for this object alone."""


def place_of(uri: str) -> Place:
    """The place that ``s3://bucket/key`` names. Keys are taken as they are written, not percent-decoded.

    Raises StorageError.
    """
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    key = key.rstrip("/")
    if not uri.startswith(SCHEME) or not bucket or "\0" in key:
        raise StorageError(f"{uri!r} is not an s3://bucket/key URI")
    if any(part in ("", ".", "..") for part in key.split("/") if key):
        raise StorageError(f"{uri!r} has an empty, '.' or '..' part; write the whole key")
    return Place(bucket=bucket, key=key)


class Objects:
    """One server. Every call waits for the network: make it from a thread that may. All raise StorageError."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._honest: set[str] = set()

    def head(self, place: Place) -> Found | None:
        """The object under exactly this key."""
        with self._words("read", place) as answer:
            answer.update(self._client.head_object(Bucket=place.bucket, Key=place.key))
        if not answer:
            return None
        digest = answer.get("Metadata", {}).get(SHA256, "")
        return Found(key=place.key, size=answer["ContentLength"], etag=answer["ETag"], sha256=digest)

    def read(self, place: Place) -> tuple[bytes, str] | None:
        """A small object's bytes and ETag."""
        with self._words("read", place) as answer:
            got = self._client.get_object(Bucket=place.bucket, Key=place.key)
            answer |= {"data": got["Body"].read(), "etag": got["ETag"]}
        return (answer["data"], answer["etag"]) if answer else None

    def write(self, place: Place, data: bytes, *, over: str) -> str:
        """Put an object where the one with ETag ``over`` is (empty: none may be there); its ETag.

        Raises Changed. An answer that was lost and asked for again also ends so: compare what is there.
        """
        bound = {"IfMatch": over} if over else {"IfNoneMatch": "*"}
        with self._words("write", place) as answer:
            answer.update(self._client.put_object(Bucket=place.bucket, Key=place.key, Body=data, **bound))
        if not answer:
            raise Changed(f"{place.uri} was taken away")
        return str(answer["ETag"])

    def put(self, place: Place, data: bytes) -> None:
        """Put a small object under a key that one process alone writes."""
        with self._words("write", place) as answer:
            answer.update(self._client.put_object(Bucket=place.bucket, Key=place.key, Body=data))
        if not answer:
            raise StorageError(f"{place.uri} was taken away while it was written")

    def upload(self, place: Place, file: BinaryIO, *, size: int, sha256: str) -> None:
        """A file of any size, under a key that names its content: whoever else writes it writes the same."""
        from boto3.s3.transfer import TransferConfig

        parts = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)
        more = {"Metadata": {SHA256: sha256}, "ChecksumAlgorithm": "SHA256"}
        with self._words("write", place):
            self._client.upload_fileobj(file, place.bucket, place.key, ExtraArgs=more, Config=parts)
        found = self.head(place)
        if found is None or found.size != size:
            raise StorageError(f"{place.uri} arrived with {found.size if found else 0} bytes of {size}")

    def download(self, place: Place, etag: str, file: BinaryIO) -> int:
        """Write the object into ``file`` if it still has this ETag; the number of bytes. Raises Changed.

        What we wrote is compared with its digest, the rest with the checksum the server keeps, if it keeps one (boto3
        does that).
        """
        size, digest = 0, hashlib.sha256()
        with self._words("read", place) as answer:
            got = self._client.get_object(Bucket=place.bucket, Key=place.key, IfMatch=etag)
            for chunk in got["Body"].iter_chunks(1 << 20):
                size += file.write(chunk)
                digest.update(chunk)
            answer |= {"size": got["ContentLength"], "sha256": got["Metadata"].get(SHA256, "")}
        if not answer:
            raise Changed(f"{place.uri} was taken away")
        if size != answer["size"]:
            raise StorageError(f"{place.uri} broke off after {size} bytes of {answer['size']}")
        if answer["sha256"] not in ("", digest.hexdigest()):
            raise StorageError(f"{place.uri} is damaged: its bytes do not have the digest it was written with")
        return size

    def copy(self, source: Place, target: Place, *, size: int) -> bool:
        """Give the object at ``source`` the name ``target``, on the server; False when it is not there any more."""
        origin = {"Bucket": source.bucket, "Key": source.key}
        at = {"Bucket": target.bucket, "Key": target.key}
        if size <= COPY_BYTES:
            with self._words("write", target) as answer:
                answer.update(self._client.copy_object(**at, CopySource=origin))
            return bool(answer)
        found = self.head(source)
        with self._words("write", target) as answer:
            if found is not None:
                answer.update(self._copied_in_parts(origin, found, at))
        return bool(answer)

    def _copied_in_parts(self, origin: dict[str, str], found: Found, target: dict[str, str]) -> dict[str, Any]:
        begun = self._client.create_multipart_upload(**target, Metadata={SHA256: found.sha256})
        at = target | {"UploadId": begun["UploadId"]}
        try:
            parts = self._copied_parts(origin, found, at)
            self._client.head_object(**origin)  # ends it when the source was taken away meanwhile
            ended: dict[str, Any] = self._client.complete_multipart_upload(**at, MultipartUpload={"Parts": parts})
        except BaseException:
            self._client.abort_multipart_upload(**at)
            raise
        return ended

    def _copied_parts(self, origin: dict[str, str], found: Found, at: dict[str, str]) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        step = max(PART_BYTES, -(-found.size // MOST_PARTS))
        for number, start in enumerate(range(0, found.size, step), 1):
            made = self._client.upload_part_copy(
                **at,
                PartNumber=number,
                CopySource=origin,
                CopySourceIfMatch=found.etag,
                CopySourceRange=f"bytes={start}-{min(start + step, found.size) - 1}",
            )
            parts.append({"PartNumber": number, "ETag": made["CopyPartResult"]["ETag"]})
        return parts

    def below(self, folder: Place) -> Iterator[Found]:
        """All objects in a folder, in the order of their keys; folder marks (keys that end in ``/``) left out."""
        prefix = f"{folder.key}/" if folder.key else ""
        token: dict[str, str] = {}
        while True:
            with self._words("list", folder) as answer:
                answer.update(self._client.list_objects_v2(Bucket=folder.bucket, Prefix=prefix, **token))
            for item in answer.get("Contents", ()):
                if not item["Key"].endswith("/"):
                    yield Found(key=item["Key"], size=item["Size"], etag=item["ETag"])
            if not answer.get("IsTruncated"):
                return
            token = {"ContinuationToken": answer["NextContinuationToken"]}

    def remove(self, place: Place) -> None:
        """Take one object away, if it is there."""
        with self._words("delete", place):
            self._client.delete_object(Bucket=place.bucket, Key=place.key)

    def check_conditions(self, folder: Place) -> None:
        """Ask once per bucket whether conditional writes are refused when they must be. Raises StorageError."""
        if folder.bucket in self._honest:
            return
        probe = folder.below(PROBE)
        refused = {
            "If-None-Match": self._refuses(probe, "") or self._refuses(probe, ""),
            "If-Match": self._refuses(probe, NO_ETAG),
        }
        ignored = [name for name, was in refused.items() if not was]
        if ignored:
            raise StorageError(
                f"the server of bucket {folder.bucket!r} ignores {' and '.join(ignored)}, so nothing would keep two "
                "attempts from publishing over each other; use a server that honours conditional writes"
            )
        self._honest.add(folder.bucket)

    def _refuses(self, probe: Place, over: str) -> bool:
        try:
            self.write(probe, b"", over=over)
        except Changed:
            return True
        return False

    @contextmanager
    def _words(self, verb: str, place: Place) -> Iterator[dict[str, Any]]:
        """What is put into the mapping is the answer; it stays empty when there is no such object."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield {}
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _GONE:
                return
            if code in _CHANGED:
                raise Changed(f"{place.uri} changed meanwhile") from error
            words = _WORDS.get(code, "the server refused to {verb} {uri}: {error}")
            told = words.format(bucket=place.bucket, uri=place.uri, verb=verb, attempts=ATTEMPTS, error=error)
            raise StorageError(f"{told} (endpoint {self._client.meta.endpoint_url})") from error
        except NoCredentialsError as error:
            raise StorageError(
                "the agent has no S3 credentials: set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
            ) from error
        except (BotoCoreError, Boto3Error) as error:
            raise StorageError(f"could not {verb} {place.uri}: {error}") from error


def connect() -> Objects:
    """The server that the environment names; one client per process. Raises StorageError."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID")
    return _connect(tuple(os.environ.get(name, "") for name in names))


@lru_cache(maxsize=8)
def _connect(settings: tuple[str, ...]) -> Objects:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise StorageError("s3:// needs boto3 on this node: install shisuan[s3]") from error
    config = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        max_pool_connections=32,
    )
    region = settings[2] or settings[3] or "us-east-1"
    try:
        return Objects(boto3.session.Session().client("s3", region_name=region, config=config))
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"the S3 settings of this node do not fit: {error}") from error
