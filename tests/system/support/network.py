"""A TCP way to a server that tests can stop, cut, and lead to another server."""

import contextlib
import pathlib
import signal
import socket
import struct
import subprocess
import sys

from support.cluster import PORT, ROOT
from support.process import wait_until

ESTABLISHED = "01"
SSL_REQUEST = struct.pack("!II", 8, 80877103)


class Network:
    """A process that forwards connections; it is stopped like a network that swallows packets."""

    def __init__(self, directory, server):
        self.directory = pathlib.Path(directory)
        self.lead_to(server)
        self.listener = socket.create_server(("127.0.0.1", 0))  # kept, or others could get its port
        self.port = self.listener.getsockname()[1]
        self.process = None
        self.start()

    def lead_to(self, *servers):
        """Where new connections go: each to the next of the servers, and from then on to the last."""
        new = self.directory / "network.new"
        new.write_text("\n".join(f"{server.directory}/.s.PGSQL.{PORT}" for server in servers), encoding="utf-8")
        new.rename(self.directory / "network")

    def conninfo(self, user="pgcairn"):
        return f"host=127.0.0.1 port={self.port} user={user} dbname=postgres"

    def start(self):
        descriptor = self.listener.fileno()
        self.process = subprocess.Popen([sys.executable, ROOT / "tests/support/forward.py", str(descriptor),
                                         self.directory / "network"], pass_fds=[descriptor])
        wait_until("the network works", self.answers)

    def answers(self):
        """Not only the kernel for it: this connection has been led where it goes."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.sendall(SSL_REQUEST)
            connection.recv(1)
            return True
        return False

    def connections(self):
        """How many there are, also those that nobody has taken yet."""
        lines = pathlib.Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        return sum(words[1].endswith(f":{self.port:04X}") and words[3] == ESTABLISHED
                   for words in map(str.split, lines))

    def stop(self):
        """Nothing comes through, and nobody is told: the kernel goes on to answer for the process."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def freeze(self):
        """Nothing comes through what is connected now; new connections work."""
        self.process.send_signal(signal.SIGUSR1)

    def cut(self):
        """Connections are reset, as by a failover that takes an address along; new ones work at once."""
        self._end()
        self.start()

    def _end(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self._end()
        self.listener.close()
