"""An S3 object store in this process: an HTTP server on loopback with one bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BUCKET = "faces"


@contextmanager
def s3_server() -> Iterator[str]:
    """Start a server, set the usual variables of S3 clients to it, and yield its address."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    # s3fs caches clients, which keep the address of an earlier server.
    s3fs.S3FileSystem.clear_instance_cache()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", address)
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            boto3.client("s3").create_bucket(Bucket=BUCKET)
            yield address
    finally:
        server.stop()


def objects(prefix: str = "") -> list[str]:
    """Return the names of the bucket's objects below `prefix`."""
    import boto3

    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [one["Key"] for page in pages for one in page.get("Contents", [])]
