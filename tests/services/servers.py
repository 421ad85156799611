"""The S3 servers by name: started here, or started by somebody else and described in a file."""

import json
import pathlib
import subprocess

from ceph_server import Ceph
from s3_client import S3Client
from service import ServiceFailed, started
from swift_server import Swift

ENGINES = ("swift", "ceph")
ROOT = pathlib.Path(__file__).resolve().parents[2]
CHROOT_SECONDS = 1800  # a chroot is made of 250 MB from a mirror that may be slow
DESCRIPTION = "server.json"


def ceph_root():
    """Where the chroot is; made when it is missing."""
    try:
        result = subprocess.run([ROOT / "tests/matrix", "ceph"], capture_output=True, text=True, check=False,
                                stdin=subprocess.DEVNULL, timeout=CHROOT_SECONDS)
    except subprocess.TimeoutExpired as late:
        raise ServiceFailed(f"tests/matrix ceph was not ready after {CHROOT_SECONDS} s") from late
    if result.returncode != 0:
        raise ServiceFailed(f"tests/matrix ceph:\n{result.stderr[-3000:]}")
    return result.stdout.strip()


def start(engine, directory):
    """A running server, to be stopped by the caller."""
    if engine == "swift":
        return started(lambda: Swift(directory))
    root = ceph_root()
    return started(lambda: Ceph(directory, root))


class Described:
    """A server that somebody else runs."""

    daemons = ()

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        facts = json.loads((self.directory / DESCRIPTION).read_text(encoding="utf-8"))
        self.engine, self.region = facts["engine"], facts["region"]
        self.key, self.secret = facts["key"], facts["secret"]
        self.plain_port, self.tls_port = facts["plain_port"], facts["tls_port"]
        self.conditional_create = facts["conditional_create"]
        self.certificates = CertificateFiles(self.directory / "tls")

    @property
    def endpoint(self):
        return f"https://127.0.0.1:{self.tls_port}"

    def client(self):
        return S3Client(self.endpoint, self.key, self.secret, self.region, self.certificates.ca)

    def stop(self):
        """Not ours to stop."""


class CertificateFiles:
    """What Certificates made."""

    def __init__(self, directory):
        self.ca, self.other_ca = directory / "ca.pem", directory / "other-ca.pem"
        self.server, self.elsewhere = directory / "server.pem", directory / "elsewhere.pem"


def describe(server, directory):
    """For Described, in this file system or, copied with its tls directory, in another."""
    facts = {name: getattr(server, name) for name in
             ("engine", "region", "key", "secret", "plain_port", "tls_port", "conditional_create")}
    path = pathlib.Path(directory) / DESCRIPTION
    new = path.with_suffix(".new")
    new.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    new.chmod(0o600)
    new.rename(path)
