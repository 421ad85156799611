"""Which pages of a cluster changed, and what they take compressed: the yardstick of an incremental."""

import hashlib
import os
import pathlib
import subprocess

PAGE_BYTES = 8192
DIRECTORIES = ("base", "global", "pg_xact", "pg_multixact")  # what a backup takes pages from
NEVER_SENT = ("pgsql_tmp", "pg_internal.init")
DIGEST_BYTES = 8


class Pages:
    """Digests of all pages of a data directory at one moment, compared with those of a later one."""

    def __init__(self, data, scratch):
        self.data, self.scratch = pathlib.Path(data), pathlib.Path(scratch)
        self.digests = {}  # path -> digests of its pages, one after the other
        self.look()

    def look(self):
        """Compares with the last look: how many pages changed, and their bytes as lz4.

        The yardstick is what an lz4 file of 64 KiB blocks takes that holds these pages and nothing
        else: no page numbers, no digests, no map.
        """
        changed, seen = 0, {}
        with open(self.scratch, "wb") as scratch:
            with subprocess.Popen(["lz4", "-q", "-1", "-B4", "--no-frame-crc", "-c"],
                                  stdin=subprocess.PIPE, stdout=scratch) as lz4:
                for path in self.files():
                    digests = bytearray()
                    before = self.digests.get(path, b"")
                    for page in pages_of(path):
                        digest = hashlib.blake2b(page, digest_size=DIGEST_BYTES).digest()
                        if before and before[len(digests):len(digests) + DIGEST_BYTES] == digest:
                            digests += digest
                            continue
                        digests += digest
                        if self.digests:  # the first look has nothing to compare with
                            changed += 1
                            lz4.stdin.write(page)
                    seen[path] = bytes(digests)
        if lz4.returncode != 0:
            raise RuntimeError(f"lz4 failed with exit status {lz4.returncode}")
        compressed = os.path.getsize(self.scratch)
        os.unlink(self.scratch)
        self.digests = seen
        return {"changed_pages": changed, "changed_lz4": compressed}

    def files(self):
        for directory in DIRECTORIES:
            for top, _, names in os.walk(self.data / directory):
                for name in sorted(names):
                    if not name.startswith(NEVER_SENT):
                        yield os.path.join(top, name)


def pages_of(path):
    with open(path, "rb") as file:
        while chunk := file.read(128 * PAGE_BYTES):
            for start in range(0, len(chunk), PAGE_BYTES):
                yield chunk[start:start + PAGE_BYTES]
