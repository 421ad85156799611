"""A TCP relay that cuts, stalls and slows connections at any byte: what HTTP proxies are too polite for.

TLS passes through untouched. It runs in threads of the caller.
"""

import contextlib
import socket
import struct
import threading
import time

from relay import Relay, start

PIECE = 16384
POLL_SECONDS = 0.02
CONNECT_SECONDS = 10


class Wire(Relay):
    """Settings are attributes, changed at any time."""

    def __init__(self, upstream_port):
        self.cut_up_after = None      # bytes of a connection from client to server; then it is reset
        self.cut_down_after = None    # the same in the other direction
        self.cuts_left = None         # so many connections are cut, None: all
        self.bytes_per_second = None  # of each connection and direction
        self.stalled = False          # accepts, and moves nothing
        self.refusing = False         # resets whatever connects, and whatever is connected
        self.connections = 0
        self.cuts = 0
        self.lock = threading.Lock()
        super().__init__(upstream_port)

    def serve(self, client):
        with self.lock:
            self.connections += 1
        if self.refusing:
            reset(client)
            return
        try:
            server = self.connect(CONNECT_SECONDS)
        except OSError:
            reset(client)
            return
        pair = (client, server)
        for end in pair:
            end.settimeout(POLL_SECONDS)
        start(self.pump, client, server, "up", pair)
        self.pump(server, client, "down", pair)

    def pump(self, source, target, direction, pair):
        moved = 0
        try:
            while not self.ended and not self.refusing:
                if self.stalled:
                    time.sleep(POLL_SECONDS)
                    continue
                try:
                    data = source.recv(self.piece_size())
                except socket.timeout:
                    continue
                if not data:
                    break
                limit = self.cut_up_after if direction == "up" else self.cut_down_after
                if limit is not None and moved + len(data) > limit and self.may_cut():
                    target.settimeout(10)
                    target.sendall(data[:max(limit - moved, 0)])
                    time.sleep(POLL_SECONDS)  # a reset overtakes what was not yet delivered
                    break
                moved += len(data)
                while self.stalled and not self.ended:
                    time.sleep(POLL_SECONDS)
                target.settimeout(10)
                target.sendall(data)
                target.settimeout(POLL_SECONDS)
                if self.bytes_per_second:
                    time.sleep(len(data) / self.bytes_per_second)
        except OSError:
            pass
        for end in pair:
            reset(end)

    def piece_size(self):
        return min(PIECE, max(self.bytes_per_second // 20, 1)) if self.bytes_per_second else PIECE

    def may_cut(self):
        with self.lock:
            if self.cuts_left == 0:
                return False
            if self.cuts_left is not None:
                self.cuts_left -= 1
            self.cuts += 1
            return True


def reset(connection):
    """Closed with RST, not FIN."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        connection.close()
