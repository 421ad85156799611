"""A proxy in front of a real PostgreSQL that lies in the BASE_BACKUP stream.

Everything passes untouched but what the server sends while it copies a backup out: there an `Edit`
may change archive names, tar headers, file contents and the manifest.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import socket
import struct
import threading

TAR_BLOCK = 512
PIECE = 32768


class Edit:
    """Honest: overrides tell what to lie about."""

    def archive(self, name, path):
        """An archive's name and tablespace path, as bytes."""
        return name, path

    def header(self, header, name):  # pylint: disable=unused-argument
        """A tar header of 512 bytes; more or fewer bytes may come back."""
        return header

    def content(self, name, data):  # pylint: disable=unused-argument
        """A member's content, padding included."""
        return data

    def archive_end(self, data):
        """The zero blocks after the last member."""
        return data

    def manifest(self, text):
        """The whole backup_manifest."""
        return text


def set_text(header, at, size, text):
    header[at:at + size] = text.ljust(size, b"\0")


def sealed(header):
    """The header's own checksum made right again."""
    header = bytearray(header)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def renamed(header, name):
    header = bytearray(header)
    set_text(header, 0, 100, name)
    return sealed(header)


def retyped(header, kind, link=b""):
    header = bytearray(header)
    header[156:157] = kind
    set_text(header, 157, 100, link)
    return sealed(header)


def resized(header, size):
    header = bytearray(header)
    if size < 8 ** 11:
        header[124:136] = b"%011o " % size
    else:
        header[124:136] = b"\x80" + size.to_bytes(11, "big")
    return sealed(header)


def with_right_hash(manifest):
    """A changed manifest whose own checksum is right again."""
    body = manifest[:manifest.rindex(b'"Manifest-Checksum"')]
    return body + b'"Manifest-Checksum": "%s"}\n' % hashlib.sha256(body).hexdigest().encode()


def manifest_line(entry):
    """An object as the server writes it."""
    return ("{ " + ", ".join(f'"{name}": {json.dumps(value, ensure_ascii=False)}'
                             for name, value in entry.items()) + " }").encode()


def edit_manifest_files(manifest, change):
    """Lets change() work on the list of files; written again as the server would have."""
    parsed = json.loads(manifest)
    change(parsed["Files"])
    version, identifier = parsed["PostgreSQL-Backup-Manifest-Version"], parsed.get("System-Identifier")
    lines = b'{ "PostgreSQL-Backup-Manifest-Version": %d,\n' % version
    if identifier is not None:
        lines += b'"System-Identifier": %d,\n' % identifier
    for name in ("Files", "WAL-Ranges"):
        entries = b",\n".join(map(manifest_line, parsed[name]))
        lines += b'"%s": [\n%s\n],\n' % (name.encode(), entries)
    return with_right_hash(lines + b'"Manifest-Checksum": ""}\n')


class TarEditor:
    """Cuts an archive into members and shows each to the edit."""

    def __init__(self, edit):
        self.edit = edit
        self.pending = b""
        self.name = ""
        self.left = 0  # bytes of the current member, padding included
        self.ended = False

    def feed(self, data):
        self.pending += data
        result = []
        while self.pending and not self.ended:
            if self.left:
                if len(self.pending) < self.left:
                    break
                piece, self.pending = self.pending[:self.left], self.pending[self.left:]
                self.left = 0
                result.append(self.edit.content(self.name, piece))
                continue
            if len(self.pending) < TAR_BLOCK:
                break
            header, self.pending = self.pending[:TAR_BLOCK], self.pending[TAR_BLOCK:]
            if header == bytes(TAR_BLOCK):
                self.pending = header + self.pending
                self.ended = True
                break
            self.name = header[:100].rstrip(b"\0").decode("utf-8", "surrogateescape")
            size = int(header[124:135], 8)
            self.left = (size + TAR_BLOCK - 1) // TAR_BLOCK * TAR_BLOCK
            result.append(self.edit.header(header, self.name))
        return b"".join(result)

    def finish(self):
        return self.edit.archive_end(self.pending)


class CopyEditor:
    """The messages between CopyOutResponse and CopyDone of a base backup."""

    def __init__(self, edit, send):
        self.edit = edit
        self.send = send
        self.tar = None
        self.manifest = None

    def message(self, body):
        kind, payload = body[:1], body[1:]
        if kind == b"n":
            self.end_archive()
            name, path, _ = payload.split(b"\0")
            name, path = self.edit.archive(name, path)
            self.send(b"d", b"n" + name + b"\0" + path + b"\0")
            self.tar = TarEditor(self.edit)
        elif kind == b"m":
            self.end_archive()
            self.manifest = b""
            self.send(b"d", body)
        elif kind == b"d" and self.manifest is not None:
            self.manifest += payload
        elif kind == b"d" and self.tar is not None:
            self.data(self.tar.feed(payload))
        else:
            self.send(b"d", body)

    def data(self, data):
        for at in range(0, len(data), PIECE):
            self.send(b"d", b"d" + data[at:at + PIECE])

    def end_archive(self):
        if self.tar is not None:
            self.data(self.tar.finish())
            self.tar = None

    def finish(self):
        self.end_archive()
        if self.manifest is not None:
            self.data(self.edit.manifest(self.manifest))


class HostileProxy:
    """Listens in `directory` as a server would; `upstream` is the real server's socket."""

    def __init__(self, directory, upstream, edit, port=5432):
        self.edit = edit
        self.upstream = str(upstream)
        path = pathlib.Path(directory) / f".s.PGSQL.{port}"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        os.chmod(path, 0o777)
        self.listener.listen()
        self.threads = []
        self.failures = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.upstream)
            for run in (self._forward, self._rewrite):
                threading.Thread(target=self._guarded, args=(run, client, server), daemon=True).start()

    def _guarded(self, run, client, server):
        try:
            run(client, server)
        except OSError:
            pass  # either side has hung up
        except Exception as failure:  # pylint: disable=broad-except
            self.failures.append(failure)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _forward(client, server):
        while True:
            data = client.recv(65536)
            if not data:
                return
            server.sendall(data)

    def _rewrite(self, client, server):
        stream = server.makefile("rb", buffering=1 << 20)

        def send(kind, body):
            client.sendall(kind + struct.pack("!I", len(body) + 4) + body)

        copy = None
        while True:
            head = stream.read(5)
            if len(head) < 5:
                return  # hung up, maybe in the middle of a message
            kind, (length,) = head[:1], struct.unpack("!I", head[1:])
            body = stream.read(length - 4)
            if kind == b"H":
                copy = CopyEditor(self.edit, send)
            elif kind == b"c" and copy:
                copy.finish()
                copy = None
            if kind == b"d" and copy:
                copy.message(body)
            else:
                send(kind, body)
