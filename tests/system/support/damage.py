"""Ways to damage what is stored, one object at a time."""

import hashlib
import importlib.util

from support.cluster import ROOT

VERSION_AT, HEADER_CRC_AT, DIGEST_SIZE = 10, 188, 32


def load_reader():
    spec = importlib.util.spec_from_file_location("pgcairn_reader", ROOT / "tools/pgcairn-reader.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reader = load_reader()


def rewrite(path, content):
    """In place, so that owner and mode stay; objects are read-only by convention."""
    with open(path, "r+b") as file:
        file.write(content)
        file.truncate(len(content))


def flip(path, at, bit=0x10):
    content = bytearray(path.read_bytes())
    content[at] ^= bit
    rewrite(path, bytes(content))


def reseal(content):
    """Header CRC and trailer digest made right again, as whoever wrote this on purpose would."""
    content = bytearray(content)
    crc = reader.crc32c(0, bytes(content[:HEADER_CRC_AT]))
    content[HEADER_CRC_AT:HEADER_CRC_AT + 4] = crc.to_bytes(4, "little")
    content[-DIGEST_SIZE:] = hashlib.sha256(content[:-DIGEST_SIZE]).digest()
    return bytes(content)


def flip_in_header(path, _other):
    flip(path, 40)


def flip_in_middle(path, _other):
    flip(path, path.stat().st_size // 2)


def flip_in_trailer(path, _other):
    flip(path, path.stat().st_size - 40)


def truncate(path, _other):
    rewrite(path, path.read_bytes()[:path.stat().st_size // 2])


def empty(path, _other):
    rewrite(path, b"")


def append(path, _other):
    rewrite(path, path.read_bytes() + bytes(512))


def swap(path, other):
    """Another object's content: whole in itself, under the wrong name."""
    mine, theirs = path.read_bytes(), other.read_bytes()
    assert mine != theirs
    rewrite(path, theirs)
    rewrite(other, mine)


def remove(path, _other):
    path.unlink()


DAMAGES = (flip_in_header, flip_in_middle, flip_in_trailer, truncate, empty, append, swap, remove)
