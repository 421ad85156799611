"""OpenStack Swift's S3 API on the loopback interface, from the distribution's own packages.

What it is good for: a real, light S3 server of another family than Amazon's. It checks the region and the
payload's digest, and knows no conditional PUT (2.30 answers 501), as some stores for sale don't either.
Five processes: its three servers of accounts, containers and objects, its proxy, and memcached, which it
can't do without. HAProxy does TLS in front of it, as Swift's documentation wants it in production.
"""

import http.client
import os
import pathlib
import pwd
import secrets
import shutil
import subprocess

import haproxy
from certificates import Certificates
from s3_client import S3Client
from service import Daemon, end_all, free_ports, listens, wait_healthy

KEY = "test:tester"  # tempauth's: account and user
PIPELINE = ("catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth copy slo dlo "
            "versioned_writes symlink").split()
STORAGE = ("account", "container", "object")


class Swift:
    """A running server; everything it has lies below its directory."""

    engine = "swift"
    region = "us-east-1"
    key = KEY
    conditional_create = False

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        for name in ("etc", "cache", "devices/d1"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self.secret = secrets.token_hex(20)
        self.certificates = Certificates(self.directory / "tls")
        self.port, self.tls_port, memcached, *storage = free_ports(6)
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.daemons = []
        try:
            self.daemons.append(Daemon(self.directory, "memcached", "memcached", "-u", "nobody", "-l",
                                       "127.0.0.1", "-p", memcached, "-U", "0", "-m", "32"))
            self.configure(dict(zip(STORAGE, storage)), memcached)
            for name in STORAGE:
                self.daemons.append(self.server(name))
            self.daemons.append(self.server("proxy"))
            self.daemons.append(haproxy.tls_in_front(self.directory, self.tls_port, self.port,
                                                     self.certificates.server))
            for port in (memcached, *storage, self.tls_port):
                wait_healthy(self.daemons, "Swift", lambda port=port: listens(port))
            wait_healthy(self.daemons, "Swift", self.is_healthy)
        except BaseException:
            self.stop()
            raise

    def server(self, name):
        return Daemon(self.directory, name, f"swift-{name}-server",
                      self.directory / "etc" / f"{name}.conf")

    def is_healthy(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/healthcheck")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    # -- configuration

    def configure(self, ports, memcached):
        etc = self.directory / "etc"
        self.write("swift.conf", "[swift-hash]\nswift_hash_path_prefix = s3\nswift_hash_path_suffix = test\n"
                                 "[storage-policy:0]\nname = default\ndefault = yes\n")
        make_rings(etc, ports)
        for name in STORAGE:
            # Long time-outs: without Swift's background daemons a listing update that timed out would be lost.
            self.write(f"{name}.conf", self.default(ports[name]) + f"""devices = {self.directory}/devices
mount_check = false
fallocate_reserve = 0
recon_cache_path = {self.directory}/cache
conn_timeout = 10
node_timeout = 60
container_update_timeout = 60
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
""")
        self.write("proxy.conf", self.default(self.port) + f"""[pipeline:main]
pipeline = {' '.join(PIPELINE)} proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 10
node_timeout = 60
""" + "".join(self.filter(name, memcached) for name in PIPELINE))

    def default(self, port):
        return (f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nuser = {self.user}\n"
                f"swift_dir = {self.directory}/etc\n")

    def filter(self, name, memcached):
        more = {"cache": f"memcache_servers = 127.0.0.1:{memcached}\n",
                "tempauth": f"user_test_tester = {self.secret} .admin\n",
                "versioned_writes": "allow_object_versioning = true\n",
                "s3api": f"location = {self.region}\nstorage_domain = s3.localhost\n"
                         "dns_compliant_bucket_names = true\nmin_segment_size = 5242880\n"}
        return (f"[filter:{name}]\nuse = egg:swift#{'memcache' if name == 'cache' else name}\n"
                f"{more.get(name, '')}")

    def write(self, name, text):
        path = self.directory / "etc" / name
        path.write_text(text, encoding="ascii")
        path.chmod(0o600)

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
        shutil.rmtree(self.directory, ignore_errors=True)


# In a process of its own: Swift's library puts eventlet's locks in the place of Python's.
RINGS = """
import sys
from swift.common.ring import RingBuilder
for word in sys.argv[2:]:
    name, port = word.split("=")
    builder = RingBuilder(4, 1, 0)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1,
                     "replication_ip": "127.0.0.1", "replication_port": int(port), "meta": ""})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""


def make_rings(etc, ports):
    """Where things are: one device holds all. One process, where swift-ring-builder needs nine."""
    subprocess.run(["/usr/bin/python3", "-c", RINGS, etc, *(f"{name}={port}" for name, port in ports.items())],
                   check=True, capture_output=True, stdin=subprocess.DEVNULL)
