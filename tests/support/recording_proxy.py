"""A proxy in front of a real PostgreSQL that takes down what BASE_BACKUP streams through it.

Every byte passes untouched. Per backup it keeps, for each tar member, its kind, mode, size and
SHA-256, and the server's manifest: what a restore of that backup has to give, known without any of
our own C code.
"""

import dataclasses
import hashlib
import struct

from hostile_proxy import TAR_BLOCK, HostileProxy

FILE, LINK, DIRECTORY = b"0", b"2", b"5"


@dataclasses.dataclass
class Member:
    """One file, directory or link of an archive."""

    kind: bytes
    mode: int
    size: int
    link: str
    sha256: str = ""


class TarRecorder:
    """Cuts an archive that comes in pieces of any size into members."""

    def __init__(self):
        self.members = {}
        self.header = bytearray()
        self.member = None
        self.digest = None
        self.left = 0     # bytes of the member's content still to come
        self.padding = 0  # then this many that fill its last block
        self.ended = False

    def feed(self, data):
        view = memoryview(data)
        while len(view):
            if self.left:
                piece, view = view[:self.left], view[self.left:]
                self.digest.update(piece)
                self.left -= len(piece)
                if not self.left:
                    self.member.sha256 = self.digest.hexdigest()
            elif self.padding:
                piece, view = view[:self.padding], view[self.padding:]
                self.padding -= len(piece)
            else:
                piece, view = view[:TAR_BLOCK - len(self.header)], view[TAR_BLOCK - len(self.header):]
                self.header += piece
                if len(self.header) == TAR_BLOCK:
                    self.begin_member(bytes(self.header))
                    self.header.clear()

    def begin_member(self, header):
        if header == bytes(TAR_BLOCK):
            self.ended = True
            return
        assert not self.ended, "a member after the end of the archive"
        name = text(header[:100])
        prefix = text(header[345:500])
        name = (f"{prefix}/{name}" if prefix else name).rstrip("/")
        assert name not in self.members, f"member {name} comes twice"
        self.member = Member(header[156:157], number(header[100:108]), number(header[124:136]),
                             text(header[157:257]))
        self.members[name] = self.member
        self.digest = hashlib.sha256()
        self.member.sha256 = self.digest.hexdigest()
        self.left = self.member.size
        self.padding = -self.member.size % TAR_BLOCK


class Recording:
    """What the server sent for one backup: members by archive, and the manifest.

    An archive's key is the oid of its tablespace as text, "" for the data directory.
    """

    def __init__(self):
        self.archives = {}
        self.places = {}  # directories of the tablespaces on the server
        self.manifest = None
        self.tar = None
        self.whole = False

    def message(self, body):
        kind, payload = body[:1], body[1:]
        if kind == b"n":
            self.end_archive()
            name, place, _ = payload.split(b"\0")
            oid = name.decode().removesuffix(".tar")
            oid = "" if oid == "base" else oid
            self.places[oid] = place.decode()
            self.tar = TarRecorder()
            self.archives[oid] = self.tar.members
        elif kind == b"m":
            self.end_archive()
            self.manifest = bytearray()
        elif kind == b"d" and self.manifest is not None:
            self.manifest += payload
        elif kind == b"d" and self.tar is not None:
            self.tar.feed(payload)

    def end_archive(self):
        if self.tar is not None:
            assert not self.tar.left and not self.tar.padding, "an archive ends inside a member"
        self.tar = None

    def end(self):
        self.end_archive()
        self.whole = True

    def tablespaces(self):
        return [oid for oid in self.archives if oid]


class RecordingProxy(HostileProxy):
    """Listens in `directory` as the server of the socket `upstream` would; `recordings` grows."""

    def __init__(self, directory, upstream):
        self.recordings = []
        super().__init__(directory, upstream, None)

    def take(self):
        """The one recording since the last call."""
        taken, self.recordings = self.recordings, []
        assert self.failures == [], self.failures
        (recording,) = taken
        assert recording.whole
        return recording

    def _rewrite(self, client, server):
        stream = server.makefile("rb", buffering=1 << 20)
        recording = None
        while True:
            head = stream.read(5)
            if len(head) < 5:
                return
            kind, (length,) = head[:1], struct.unpack("!I", head[1:])
            body = stream.read(length - 4)
            client.sendall(head + body)
            if kind == b"H":
                recording = Recording()
            elif kind == b"d" and recording:
                recording.message(body)
            elif kind == b"c" and recording:
                recording.end()
            elif kind == b"C" and recording and recording.archives:
                self.recordings.append(recording)
                recording = None


def text(field):
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def number(field):
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.split(b"\0", 1)[0].strip() or b"0", 8)
