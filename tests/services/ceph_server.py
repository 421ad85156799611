"""Ceph's S3 gateway on the loopback interface: one monitor, one OSD in memory, one radosgw, in a chroot.

What it is good for: a production-grade server whose conditional writes hold in a race, with checksums and object
lock. The chroot comes from `tests/matrix ceph`; our state lies in a directory of its own below its /srv. Needs root.
"""

import base64
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import time
import uuid

from certificates import Certificates
from s3_client import S3Client
from service import Daemon, ServiceFailed, end_all, free_ports, listens, wait_healthy

COMMAND_SECONDS = 90

# One node, nothing kept, nobody waited for.
CONFIGURATION = """[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 0
paxos propose interval = 0.05
paxos min wait = 0.01
mon data = {home}/mon
osd data = {home}/osd
osd objectstore = memstore
memstore device bytes = 8G
osd memory target = 939524096
run dir = {home}/run
crash dir = {home}/run
admin socket = {home}/run/$name.asok
log file = {home}/log/$name.log
keyring = {home}/keyring
rgw data = {home}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port} ssl_endpoint=127.0.0.1:{tls_port} ssl_certificate={home}/server.pem ssl_private_key={home}/server.pem
rgw dns name = s3.localhost
rgw rados pool pg num min = 1
rgw thread pool size = 64
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = testkey-1={kms_key}
"""


class Ceph:
    """A running gateway; a user with one key pair and no buckets."""

    engine = "ceph"
    region = "us-east-1"
    conditional_create = True

    def __init__(self, directory, root):
        self.directory, self.root = pathlib.Path(directory), pathlib.Path(root)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.key, self.secret = secrets.token_hex(10), secrets.token_hex(20)
        self.certificates = Certificates(self.directory / "tls")
        self.port, self.tls_port, self.mon_port = free_ports(3)
        name = f"pgcairn-{secrets.token_hex(6)}"
        self.home = pathlib.Path("/srv") / name  # as the chroot sees it
        self.state = self.root / "srv" / name
        self.daemons = []
        try:
            self.make()
        except BaseException:
            self.stop()
            raise

    # -- making

    def inside(self, *words):
        return ["env", f"CEPH_CONF={self.home}/ceph.conf", "chroot", str(self.root), *map(str, words)]

    def must(self, *words, stdin=None):
        try:
            result = subprocess.run(self.inside(*words), input=stdin, text=True, capture_output=True,
                                    timeout=COMMAND_SECONDS, check=False)
        except subprocess.TimeoutExpired as late:
            raise ServiceFailed(f"Ceph: {words[0]} took more than {COMMAND_SECONDS} s\n{self.said()}") from late
        if result.returncode != 0:
            raise ServiceFailed(f"Ceph: {' '.join(map(str, words))}\n{result.stdout}{result.stderr}{self.said()}")
        return result.stdout

    def said(self):
        return "".join(f"\n{daemon.name}: {daemon.tail()}" for daemon in self.daemons)

    def authorize(self, *words):
        self.must("ceph-authtool", self.home / "keyring", *words)

    def run(self, name, *words):
        self.daemons.append(Daemon(self.directory, name, *self.inside(*words)))

    def make(self):
        for name in ("mon", "osd", "log", "run", "rgw"):
            (self.state / name).mkdir(parents=True)
        shutil.copy(self.certificates.server, self.state / "server.pem")
        fsid, osd = uuid.uuid4(), uuid.uuid4()
        (self.state / "ceph.conf").write_text(CONFIGURATION.format(
            fsid=fsid, mon=self.mon_port, home=self.home, port=self.port, tls_port=self.tls_port,
            kms_key=base64.b64encode(os.urandom(32)).decode()), encoding="ascii")
        self.start_monitor(fsid)
        self.start_osd(osd)
        self.must("radosgw-admin", "user", "create", "--uid=test", "--display-name=test",
                  f"--access-key={self.key}", f"--secret={self.secret}")
        self.run("rgw", "radosgw", "-n", "client.rgw", "-f")
        wait_healthy(self.daemons, "Ceph", lambda: listens(self.port) and listens(self.tls_port))

    def start_monitor(self, fsid):
        self.must("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{self.mon_port}]",
                  self.home / "monmap")
        self.authorize("--create-keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        self.authorize("--gen-key", "-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *")
        self.authorize("--gen-key", "-n", "client.rgw", "--cap", "mon", "allow rw", "--cap", "osd", "allow rwx")
        self.must("ceph-mon", "--mkfs", "-i", "a", "--monmap", self.home / "monmap", "--keyring",
                  self.home / "keyring")
        self.run("mon", "ceph-mon", "-i", "a", "-f")

    def start_osd(self, osd):
        key = self.must("ceph-authtool", "--gen-print-key").strip()
        self.must("timeout", "60", "ceph", "osd", "new", osd, "-i", "-",
                  stdin=json.dumps({"cephx_secret": key}))
        self.authorize("-n", "osd.0", "--add-key", key)
        self.must("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self.run("osd", "ceph-osd", "-i", "0", "-f")

    # -- what it offers

    @property
    def endpoint(self):
        return f"https://127.0.0.1:{self.tls_port}"

    @property
    def plain_port(self):
        return self.port

    def client(self):
        return S3Client(self.endpoint, self.key, self.secret, self.region, self.certificates.ca)

    def stop(self):
        end_all(self.daemons)
        # The OSD writes a last word on its way out.
        for _ in range(3):
            shutil.rmtree(self.state, ignore_errors=True)
            if not self.state.exists():
                break
            time.sleep(0.1)
        shutil.rmtree(self.directory, ignore_errors=True)
