"""An HTTP relay behind the fault proxy: does to one request, or to its answer, what HAProxy's rules can't.

HAProxy sends here what it has picked, with the names of the faults in a header (haproxy.py). One request a connection,
plain HTTP, in threads of the caller.
"""

import contextlib
import datetime
import re
import socket
import time

from relay import Relay

FAULT_HEADER = "x-test-fault"
FAULTS = ("delay", "cut", "flip", "short", "unconditional", "stale")
HEAD_LIMIT = 65536
PIECE = 262144
TIMEOUT_SECONDS = 120


class Broken(Exception):
    """A peer went away, or does not speak HTTP."""


class Head:
    """The first line of a message and its headers, names in lower case."""

    def __init__(self, data):
        first, *rest = data.decode("latin-1").split("\r\n")
        self.first = first
        self.headers = {}
        for line in rest:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()

    def encode(self):
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def length(self):
        """Of the body, None: not told."""
        value = self.headers.get("content-length")
        return int(value) if value is not None else None


class Peer:
    """One end of a relayed connection."""

    def __init__(self, connection):
        self.connection = connection
        self.connection.settimeout(TIMEOUT_SECONDS)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kept = b""

    def head(self):
        while b"\r\n\r\n" not in self.kept:
            data = self.connection.recv(PIECE)
            if not data or len(self.kept) > HEAD_LIMIT:
                raise Broken
            self.kept += data
        head, self.kept = self.kept.split(b"\r\n\r\n", 1)
        return Head(head)

    def body(self, length):
        """Pieces of it; with no length, all that comes."""
        while length is None or length > 0:
            data, self.kept = self.kept or self.connection.recv(PIECE), b""
            if not data:
                if length is None:
                    return
                raise Broken
            if length is not None:
                data, self.kept = data[:length], data[length:]
                length -= len(data)
            yield data


class Meddler(Relay):
    """In front of a plain HTTP port. Settings are attributes, changed at any time."""

    def __init__(self, upstream_port):
        self.delay_seconds = 0
        self.stale_seconds = 0     # so old are listings
        self.signer = None         # S3Client: who signs what was changed
        self.listings = {}         # address: (when it was asked, the answer)
        super().__init__(upstream_port)

    def serve(self, client):
        with contextlib.suppress(OSError, Broken), client:
            peer = Peer(client)
            request = peer.head()
            faults = request.headers.pop(FAULT_HEADER, "").split()
            if "delay" in faults:
                time.sleep(self.delay_seconds)
            if "unconditional" in faults:
                self.make_unconditional(request)
            if "stale" in faults and "list-type=2" in request.first:
                self.answer_stale(peer, request)
                return
            with self.forward(peer, request) as server:
                answer_with(Peer(server), client, request, faults)

    def forward(self, peer, request):
        """The connection to the server, the request sent."""
        request.headers["connection"] = "close"
        server = self.connect(TIMEOUT_SECONDS)
        try:
            server.sendall(request.encode())
            for piece in peer.body(request.length() or 0):
                server.sendall(piece)
        except BaseException:
            server.close()
            raise
        return server

    def make_unconditional(self, request):
        """As for a store that does not know `If-None-Match`: it is taken away, and the rest signed anew."""
        if request.headers.pop("if-none-match", None) is None:
            return
        words = re.search(r"Credential=[^/]+/(\S+),\s*SignedHeaders=(\S+),", request.headers["authorization"])
        scope, names = words[1], [name for name in words[2].split(";") if name != "if-none-match"]
        method, address, _ = request.first.split(" ")
        path, _, query = address.partition("?")
        signed, signature = self.signer.signature(method, path, query, {name: request.headers[name] for name in names},
                                                  scope.split("/")[0], scope)
        request.headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={self.signer.key}/{scope}, "
                                            f"SignedHeaders={signed}, Signature={signature}")

    def answer_stale(self, peer, request):
        """What was right a while ago: without what is young, and not asked again for as long."""
        kept = self.listings.get(request.first)
        if kept is None or time.monotonic() - kept[0] > self.stale_seconds:
            asked = time.monotonic()
            with self.forward(peer, request) as server:
                answerer = Peer(server)
                answer = answerer.head()
                body = b"".join(answerer.body(None))
            if answer.headers.pop("transfer-encoding", None):
                body = in_one_piece(body)
            body = self.without_young(body)
            answer.headers["content-length"] = str(len(body))
            kept = self.listings[request.first] = asked, answer.encode() + body
        peer.connection.sendall(kept[1])

    def without_young(self, listing):
        """Entries of what was created in the last while are taken out."""
        oldest = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=self.stale_seconds)

        def keep(match):
            modified = re.search(rb"<LastModified>([^<]*)</LastModified>", match[0])[1].decode()
            return match[0] if datetime.datetime.fromisoformat(modified.replace("Z", "+00:00")) < oldest else b""

        return re.sub(rb"<Contents>.*?</Contents>", keep, listing, flags=re.DOTALL)


def in_one_piece(chunks):
    """https://www.rfc-editor.org/rfc/rfc9112#section-7.1"""
    body = b""
    while chunks:
        size, chunks = chunks.split(b"\r\n", 1)
        length = int(size, 16)
        body, chunks = body + chunks[:length], chunks[length + 2:]
    return body


def answer_with(server, client, request, faults):
    """The server's answer, damaged as asked."""
    answer = server.head()
    method, length = request.first.split(" ")[0], answer.length()
    answer.headers["connection"] = "close"
    if method == "HEAD" or not length:
        client.sendall(answer.encode())
        for piece in () if method == "HEAD" else server.body(length):
            client.sendall(piece)
        return
    half = length // 2
    if "short" in faults:
        answer.headers["content-length"] = str(half)
    # The length of a cut one stays: it ends with the connection.
    left = half if {"short", "cut"} & set(faults) else length
    client.sendall(answer.encode())
    at = 0
    for piece in server.body(length):
        if "flip" in faults and at <= half < at + len(piece):
            piece = piece[:half - at] + bytes([piece[half - at] ^ 1]) + piece[half - at + 1:]
        at += len(piece)
        client.sendall(piece[:left])
        left -= min(left, len(piece))
        if left == 0:
            return
