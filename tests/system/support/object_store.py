"""S3 servers for tests: buckets, configuration sections that lead there, and proxies that make trouble on the way.

PGCAIRN_TEST_S3 chooses the server: swift (default), ceph, or none, with which these tests are skipped.
PGCAIRN_TEST_S3_SERVER names the directory of one that runs already (tests/services/s3).
"""

import itertools
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

from support.cluster import ROOT, make_directory
from support.process import owner

sys.path.insert(0, str(ROOT / "tests/services"))
# pylint: disable=wrong-import-position
import servers  # noqa: E402
from haproxy import FaultProxy  # noqa: E402
from s3_client import S3Client, S3Error  # noqa: E402,F401 # for tests
from service import ServiceFailed  # noqa: E402
from wire import Wire  # noqa: E402

bucket_numbers = itertools.count(1)


def chosen_engine():
    engine = os.environ.get("PGCAIRN_TEST_S3") or "swift"
    if engine == "none":
        pytest.skip("PGCAIRN_TEST_S3=none")
    assert engine in servers.ENGINES, f"PGCAIRN_TEST_S3={engine}"
    return engine


def has_attributes(directory):
    """Swift keeps what it knows of an object in extended attributes; memory file systems learnt them late."""
    probe = pathlib.Path(directory) / "attributes"
    probe.touch()
    try:
        os.setxattr(probe, "user.test", b"1")
        return True
    except OSError:
        return False
    finally:
        probe.unlink()


def running_server(scratch_root):
    """A generator for a fixture: the server that was chosen, stopped at the end if it is ours."""
    engine = chosen_engine()
    described = os.environ.get("PGCAIRN_TEST_S3_SERVER")
    if described:
        server = servers.Described(described)
        assert server.engine == engine, f"{described} is {server.engine}"
        yield server
        return
    if engine == "swift":
        assert shutil.which("swift-proxy-server") and shutil.which("haproxy"), (
            "no S3 server to test with: tools/install-dependencies --s3, or PGCAIRN_TEST_S3=none")
    made = None if has_attributes(scratch_root) else tempfile.mkdtemp(prefix="pgcairn-s3-", dir="/var/tmp")
    try:
        server = servers.start(engine, pathlib.Path(made or scratch_root) / "s3")
    except ServiceFailed as failed:
        pytest.fail(str(failed))
    yield server
    server.stop()
    if made:
        shutil.rmtree(made, ignore_errors=True)


class Bucket:
    """An empty bucket of its own, and what a configuration needs to reach it."""

    def __init__(self, server, directory, lock=False):
        self.server = server
        self.directory = make_directory(directory, mode=0o755)
        self.name = f"bucket-{os.getpid()}-{next(bucket_numbers)}"
        self.client = server.client()
        self.client.make_bucket(self.name, lock)
        self.ca = self.file("ca.pem", server.certificates.ca.read_text(encoding="ascii"), 0o644)
        self.key_file = self.file("access-key", server.key + "\n")
        self.secret_file = self.file("secret-key", server.secret + "\n")
        self.proxies = []

    def file(self, name, text, mode=0o600):
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        os.chown(path, *owner())
        return path

    def section(self, endpoint=None, **more):
        """Keys of [repository]; those given as None are left out. TLS with our own CA."""
        words = {"path": None, "type": "s3", "endpoint": endpoint or self.server.endpoint, "bucket": self.name,
                 "region": self.server.region, "uri-style": "path", "access-key-file": self.key_file,
                 "secret-key-file": self.secret_file, "ca-file": self.ca,
                 **({} if self.server.conditional_create else {"writers": "one"})}
        words.update({name.replace("_", "-"): value for name, value in more.items()})
        return words

    # -- trouble on the way

    def faults(self, certificate=None):
        """A proxy with TLS in front of the server, all faults off."""
        proxy = FaultProxy(self.directory / f"proxy{len(self.proxies)}", self.server.plain_port,
                           certificate or self.server.certificates.server, self.client)
        self.proxies.append(proxy)
        return proxy

    def wire(self):
        """A relay in front of the server's TLS port."""
        relay = Wire(self.server.tls_port)
        self.proxies.append(relay)
        return relay

    # -- what is stored

    def objects(self, prefix=""):
        """Sizes by name."""
        return self.client.list(self.name, prefix)

    def get(self, name):
        return self.client.get(self.name, name)

    def put(self, name, data):
        self.client.put(self.name, name, data)

    def delete(self, name):
        self.client.delete(self.name, name)

    def close(self):
        """Its objects go with the server."""
        for proxy in self.proxies:
            proxy.close()
