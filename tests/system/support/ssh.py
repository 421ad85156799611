"""A repository host: a real sshd on loopback, with keys that may do everything and keys that may only add."""

import contextlib
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys

from support.cluster import make_directory
from support.process import environment, free_port, must, owner, run, start, wait_until

SSHD = "/usr/sbin/sshd"

SSHD_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
"""

SSH_CONFIG = """
Host *
    Port {port}
    IdentitiesOnly yes
    IdentityFile {directory}/{key}
    UserKnownHostsFile {directory}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    BatchMode yes
    LogLevel ERROR
"""


class SshHost:
    """sshd as the user who owns the repository, and client configurations for each key.

    `free` is a key with all rights, `locked` one whose forced command is create-only for cluster main.
    prefix: what sshd is started through, such as a namespace.
    """

    def __init__(self, directory, programs, config, prefix=()):
        self.directory = make_directory(directory, mode=0o755)
        self.programs = programs
        self.port = free_port()
        for key in ("host_key", "free", "locked", "unknown"):
            must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", self.directory / key)
            (self.directory / f"ssh_{key}").write_text(
                SSH_CONFIG.format(port=self.port, directory=self.directory, key=key), encoding="utf-8")
        serve = f"{programs.pgcairn} serve --config {config} --stdio"
        self.authorize(f"{self._public('free')}\n"
                       f'command="{serve} --create-only --cluster main",restrict {self._public("locked")}\n')
        (self.directory / "known_hosts").write_text(
            f"[127.0.0.1]:{self.port} {self._public('host_key')}\n", encoding="utf-8")
        conf = self.directory / "sshd_config"
        conf.write_text(SSHD_CONFIG.format(port=self.port, directory=self.directory), encoding="utf-8")
        self.remote_program = f"{programs.pgcairn} --config {config}"
        self.log = open(self.directory / "sshd.log", "ab")
        self.process = start(*prefix, SSHD, "-D", "-e", "-f", conf, stderr=self.log, stdout=self.log,
                             **({"as_root": True} if prefix else {}))
        wait_until("sshd listens", self._listens)

    def _public(self, key):
        return (self.directory / f"{key}.pub").read_text(encoding="utf-8").strip()

    def authorize(self, text):
        path = self.directory / "authorized_keys"
        path.write_text(text, encoding="utf-8")
        os.chown(path, *owner())

    def _listens(self):
        assert self.process.poll() is None, (self.directory / "sshd.log").read_text(encoding="utf-8")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def command(self, key="locked"):
        return f"ssh -T -F {self.directory}/ssh_{key}"

    def options(self, key="locked", **more):
        """Of a [repository] section."""
        return {"type": "ssh", "host": "127.0.0.1", "ssh-command": self.command(key),
                "remote-program": self.remote_program, **more}

    def ssh(self, *words, key="locked", **options):
        return run(*self.command(key).split(), "127.0.0.1", *words, **options)

    def clients(self):
        """Process ids of ssh clients of this host."""
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if words[0] == b"ssh" and any(str(self.directory).encode() in word for word in words):
                    found.append(int(path.parent.name))
        return found

    def servers(self):
        """Process ids of the sessions' `pgcairn serve`."""
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if words[0] == str(self.programs.pgcairn).encode() and b"--stdio" in words:
                    found.append(int(path.parent.name))
        return found

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


# -- hand-made frames (storage/ssh_protocol.h)

HELLO, CREATE, WRITE, COMMIT, ABANDON, OPEN, READ, CLOSE, LIST, EXISTS, DURABLE, REMOVE, FREE_SPACE, SWEEP, PRUNE = \
    range(1, 16)
WELCOME, DONE, FAILED, DATA, ENTRIES, ALIVE, WRITER_FAILED = range(64, 71)


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<H", len(value)) + value


class Frames:
    """A client that says whatever it is told to."""

    def __init__(self, host, key="locked", *remote):
        words = [*host.command(key).split(), "127.0.0.1", *remote]
        if os.geteuid() == 0:
            words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *words]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=environment(), cwd="/")
        self.next = 1
        self.send(HELLO, b"PGCSERVE" + struct.pack("<HHB", 1, 1, 1) + text("a thief"), request=0)
        kind, _, payload = self.receive()
        assert kind == WELCOME, payload

    def send(self, kind, payload=b"", request=None, handle=0):
        if request is None:
            request, self.next = self.next, self.next + 1
        self.process.stdin.write(struct.pack("<IHHII", len(payload), kind, 0, request, handle) + payload)
        self.process.stdin.flush()

    def receive(self):
        header = self.process.stdout.read(16)
        if len(header) < 16:
            return None, None, self.process.stderr.read()
        size, kind, _, request, _ = struct.unpack("<IHHII", header)
        return kind, request, self.process.stdout.read(size)

    def ask(self, kind, payload=b"", handle=0):
        """The answer's type, and what it says."""
        self.send(kind, payload, handle=handle)
        answer, _, said = self.receive()
        return answer, said

    def put(self, name, content):
        """Whether an object was created."""
        if self.ask(CREATE, text(name))[0] != DONE:
            return False
        self.send(WRITE, content, request=0)
        return self.ask(COMMIT)[0] == DONE

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=20)
        self.process.stdout.close()
        self.process.stderr.close()


# -- run as a program: a relay that is cut once, after so many bytes

def relay(limit, mark, command):
    """Runs a command and passes on so many bytes of what it answers, then all is gone; from the next time on all of them."""
    if os.path.exists(mark):
        os.execvp(command[0], command)
    pathlib.Path(mark).touch()
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    passed = 0
    while passed < limit:
        data = os.read(child.stdout.fileno(), min(65536, limit - passed))
        if not data:
            sys.exit(child.wait())
        os.write(1, data)
        passed += len(data)
    child.kill()
    os._exit(255)


if __name__ == "__main__":
    relay(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
