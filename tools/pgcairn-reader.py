#!/usr/bin/python3
"""Read a pgcairn repository without pgcairn.

Written from docs/format.md alone, sharing no code with the C programs: the executable specification
of the format and the way out when nothing else is left. Needs Python 3.9, python3-lz4 and
python3-zstandard; with python3-cryptography the keyed digests are checked too, and encrypted
repositories are read: keys are given in front of the command. `scrub` needs none.

    pgcairn-reader.py [--key-file FILE]... [--passphrase-file FILE] REPOSITORY COMMAND
    pgcairn-reader.py REPOSITORY list
    pgcairn-reader.py REPOSITORY restore {BID|LABEL|latest} TARGET [--cluster NAME]
                      [--tablespace-map OID=DIR]... [--no-wal] [--config-to DIR] [--no-checksums]
    pgcairn-reader.py REPOSITORY wal NAME OUT [--cluster NAME] [--incarnation SYSTEMID-MAJOR]
    pgcairn-reader.py REPOSITORY scrub

It only reads the repository. Exit status: 0 done, 1 damage or failure, 2 usage. A restore that
failed leaves a directory without global/pg_control, which no server starts.
"""

import argparse
import base64
import binascii
import bisect
import collections
import hashlib
import hmac
import json
import os
import re
import struct
import sys

import lz4.block
import zstandard

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
except ImportError:
    AESGCM = None

KIB, MIB = 1024, 1024 * 1024
UNIT = 8192
REGION_UNITS = 16384
FRAME_SLOTS = 16
HEADER, TRAILER = 192, 64
HEADER_LIMIT = 65536
FRAME_STORED_LIMIT = MIB + 4 * KIB
NODE_LIMIT = MIB
INDEX_LIMIT = 64 * MIB
JSON_LIMIT = 16 * MIB
KEY_LIMIT = 1025
DEPTH_LIMIT = 8
WAL_FRAME = 131072
WAL_FILE_LIMIT = 1024 * MIB
HISTORY_LIMIT = MIB
SCRYPT_MEMORY_LIMIT = 1024 * MIB
STANZAS_HEAD, STANZA, STANZAS_LIMIT = 36, 80, 16
DATA, SEALED, META = 1, 2, 3  # key modes

REPOSITORY, KEY, INCARNATION, INTENT, PACK, MAP, REFS, FATE, MARK, WAL = 1, 2, 3, 4, 5, 6, 7, 8, 9, 15


class Damage(Exception):
    """Stored bytes are not what the format says they must be."""


class Refused(Exception):
    """The request cannot be done as asked; nothing is known to be damaged."""


def note(text):
    print(f"pgcairn-reader: {text}", file=sys.stderr)


# ---------------------------------------------------------------------------------------------
# Digests
# ---------------------------------------------------------------------------------------------


def crc32c_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = crc32c_table()

# x^6777 + x^484 + x^100 + 1 is a multiple of the Castagnoli polynomial, and so is every polynomial
# with these exponents times a power of two (squaring doubles exponents over GF(2)). The message
# is held as one big integer whose bit 0 is the highest power. Then bit i may be cleared if
# bits i + 6777 - 484, i + 6777 - 100 and i + 6777 are flipped: a few shifts of the whole integer
# halve it, at some 200 MB/s, where a loop over bytes makes 9. The loop takes the last 850 bytes.
CRC_TOP, CRC_MIDDLE, CRC_LOW = 6777, 484, 100
CRC_PIECE = 131072


def crc32c(crc, data):
    """CRC-32C; crc32c(crc32c(0, a), b) == crc32c(0, a + b)."""
    register = crc ^ 0xFFFFFFFF
    for start in range(0, len(data), CRC_PIECE):
        piece = data[start : start + CRC_PIECE]
        if len(piece) > KIB:
            piece = crc32c_fold(register, piece)
            register = 0
        for byte in piece:
            register = CRC_TABLE[(register ^ byte) & 0xFF] ^ register >> 8
    return register ^ 0xFFFFFFFF


def crc32c_fold(register, data):
    """A short message with the CRC of data, whose first four bytes take the register in."""
    bits = 8 * len(data)
    message = int.from_bytes(data, "little") ^ register
    scale = 1
    while CRC_TOP * scale * 2 < bits:
        scale *= 2
    while scale:
        top = CRC_TOP * scale
        near, far = top - CRC_MIDDLE * scale, top - CRC_LOW * scale
        while bits > top:
            step = min(near, bits - top)
            head = message & (1 << step) - 1
            message >>= step
            message ^= head << near - step ^ head << far - step ^ head << top - step
            bits -= step
        scale //= 2
    padding = -bits % 8  # zeros at the front change nothing once the register is taken in
    return (message << padding).to_bytes((bits + padding) // 8, "little")


def hkdf(key, salt, info, size=32):
    """RFC 5869 with SHA-256; info is text or bytes."""
    info = info.encode() if isinstance(info, str) else info
    pseudo_random_key = hmac.new(salt or bytes(32), key, "sha256").digest()
    out = block = b""
    for count in range(1, 1 + (size + 31) // 32):
        block = hmac.new(pseudo_random_key, block + info + bytes([count]), "sha256").digest()
        out += block
    return out[:size]


class KeyedDigest:
    """Algorithm 1: AES-256, under a second key, of the GMAC of the message with a zero nonce."""

    def __init__(self, root_key, repository_id, purpose):
        key = hkdf(root_key, repository_id, f"pgcairn1 {purpose}")
        self.mac_key = hkdf(key, b"", f"{purpose}/gmac")
        self.mac = AESGCM(self.mac_key)
        cipher = Cipher(algorithms.AES(hkdf(key, b"", f"{purpose}/aes")), modes.ECB())
        self.block = cipher.encryptor()

    def of(self, message):
        return self.block.update(self.mac.encrypt(bytes(12), b"", bytes(message)))

    def begin(self):
        return Cipher(algorithms.AES(self.mac_key), modes.GCM(bytes(12))).encryptor()

    def finish(self, stream):
        stream.finalize()
        return self.block.update(stream.tag)


# ---------------------------------------------------------------------------------------------
# Foreign bytes
# ---------------------------------------------------------------------------------------------


class Parse:
    """A bounded walk over bytes that may hold anything; `what` names them in complaints."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def fail(self, text):
        raise Damage(f"{self.what}: {text} (near byte {self.at})")

    def take(self, size):
        if size > len(self.data) - self.at:
            self.fail("ends too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "little")

    def varint(self, limit=(1 << 64) - 1):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift > 0:
                    self.fail("a varint longer than it needs to be")
                if value > limit:
                    self.fail(f"{value} where at most {limit} is allowed")
                return value
        self.fail("an endless varint")

    def expect(self, size, value, meaning):
        found = self.number(size)
        if found != value:
            self.fail(f"{meaning} is {found}, not {value}")

    def done(self):
        if self.at != len(self.data):
            self.fail("bytes left over")


def decompress(codec, stored, raw_length, what):
    try:
        if codec == 0:
            raw = stored
        elif codec == 1:
            raw = lz4.block.decompress(stored, uncompressed_size=raw_length)
        elif codec == 2:
            # The size in the frame is what the library would allocate, so it is checked first.
            if zstandard.frame_content_size(stored) not in (raw_length, -1):
                raise Damage(f"{what}: does not decode to {raw_length} bytes")
            raw = zstandard.ZstdDecompressor().decompress(stored, max_output_size=raw_length)
        else:
            raise Damage(f"{what}: codec {codec} is unknown")
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, ValueError) as error:
        raise Damage(f"{what}: does not decode: {error}") from None
    if len(raw) != raw_length:
        raise Damage(f"{what}: decodes to {len(raw)} bytes, not to {raw_length}")
    return raw


class Json:
    """One JSON object whose members are asked for by name and type."""

    def __init__(self, data, what):
        self.what = what
        if len(data) > JSON_LIMIT:
            raise Damage(f"{what}: JSON longer than {JSON_LIMIT} bytes")
        try:
            self.members = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise Damage(f"{what}: not JSON: {error}") from None
        if not isinstance(self.members, dict):
            raise Damage(f"{what}: not a JSON object")

    def get(self, name, kind, optional=False):
        value = self.members.get(name)
        if value is None and optional:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise Damage(f"{self.what}: '{name}' is missing or not of type {kind.__name__}")
        return value

    def number(self, name, limit):
        value = self.get(name, int)
        if not 0 <= value <= limit:
            raise Damage(f"{self.what}: '{name}' is out of range")
        return value

    def bytes_of(self, name, size):
        text = self.get(name, str)
        if not re.fullmatch(r"[0-9a-f]{%d}" % (2 * size), text):
            raise Damage(f"{self.what}: '{name}' is not {size} bytes in hex")
        return bytes.fromhex(text)

    def lsn(self, name):
        text = self.get(name, str)
        if not re.fullmatch(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}", text):
            raise Damage(f"{self.what}: '{name}' is not an LSN")
        high, low = text.split("/")
        return int(high, 16) << 32 | int(low, 16)


# ---------------------------------------------------------------------------------------------
# Keys
# ---------------------------------------------------------------------------------------------


class WrongKey(Exception):
    """A slot that these secrets do not open."""


def read_key_file(path):
    """(32 bytes, whether it is a private key) of a key file."""
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    if len(lines) < 2 or lines[0] not in ("pgcairn-key-1", "pgcairn-private-key-1"):
        raise Refused(f"'{path}' is no key file of pgcairn")
    try:
        key = bytes.fromhex(lines[1]) if len(lines[1]) == 64 else base64.b64decode(lines[1], validate=True)
    except (ValueError, binascii.Error):
        key = b""
    check = [line.split()[1] for line in lines[2:] if line.startswith("check ")]
    if len(key) != 32 or any(text != struct.pack("<I", crc32c(0, key)).hex() for text in check):
        raise Refused(f"'{path}': its key is damaged or cut short")
    return key, lines[0] == "pgcairn-private-key-1"


def x25519(private, public):
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))


def public_of(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


class Secrets:
    """What the user gave: keys, private keys, a passphrase."""

    def __init__(self, key_files, passphrase_file):
        self.keys, self.private_keys, self.passphrase = [], [], None
        for path in key_files:
            key, private = read_key_file(path)
            (self.private_keys if private else self.keys).append(key)
        if passphrase_file:
            with open(passphrase_file, "rb") as file:
                self.passphrase = file.read().rstrip(b"\r\n")
        if self and AESGCM is None:
            raise Refused("an encrypted repository needs python3-cryptography")

    def __bool__(self):
        return bool(self.keys or self.private_keys or self.passphrase)

    def inputs(self, slot, salt):
        """Inputs that may open a slot: (32 bytes, salt of the expansion)."""
        kind = slot.get("type", str)
        if kind == "key-file":
            for key in self.keys:
                yield key, salt
        elif kind == "passphrase" and self.passphrase:
            cost = Json(json.dumps(slot.get("scrypt", dict)).encode(), slot.what)
            n, r, p = cost.number("n", 1 << 30), cost.number("r", 64), cost.number("p", 16)
            if n < 2 or n & n - 1 or not r or not p or 128 * n * r > SCRYPT_MEMORY_LIMIT:
                raise Damage(f"{slot.what}: the cost of its scrypt is out of range")
            memory = 128 * n * r + 128 * r * (p + 2) + MIB
            yield hashlib.scrypt(self.passphrase, salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=32), salt
        elif kind == "recipient":
            public, ephemeral = slot.bytes_of("public_key", 32), slot.bytes_of("ephemeral", 32)
            for private in self.private_keys:
                if public_of(private) == public:
                    yield x25519(private, ephemeral), salt + ephemeral + public


class Keyring:
    """Roots out of a slot that opened, and private keys."""

    def __init__(self, repository, secrets, facts):
        self.repository, self.private_keys = repository, secrets.private_keys
        changed = None
        self.public_keys = [public_of(private) for private in self.private_keys]
        self.meta_root = self.data_root = self.mode = None
        for slot in repository.names("keys", r"[A-Za-z0-9_-]{1,64}"):
            try:
                self._open_slot(slot, repository.json(f"keys/{slot}"), secrets)
            except (Damage, WrongKey) as error:
                if isinstance(error, Damage):
                    note(error)
                continue
            try:
                self.check_descriptor(facts)
                return
            except Damage as error:  # for a public key anybody can make a slot: it must not hide ours
                changed = error
        if changed:
            raise changed
        raise Refused("wrong key: no key slot of the repository opens with it")

    def _open_slot(self, name, slot, secrets):
        salt, commitment = slot.bytes_of("salt", 32), slot.bytes_of("commitment", 32)
        cost = slot.members.get("scrypt") or {"n": 0, "r": 0, "p": 0}
        keys = [slot.members.get(key) or bytes(32).hex() for key in ("public_key", "ephemeral")]
        about = "\n".join(
            ["pgcairn1 slot", self.repository.id.hex(), name, slot.get("type", str), slot.get("mode", str),
             slot.get("created_at", str), salt.hex(), f"{cost['n']} {cost['r']} {cost['p']}", *keys, ""]
        ).encode()
        for secret, expansion_salt in secrets.inputs(slot, salt):
            both = hkdf(secret, expansion_salt, "pgcairn1 slot", 64)
            if hmac.compare_digest(hmac.new(both[32:], about, "sha256").digest(), commitment):
                self._unwrap(both[:32], slot, about)
                return
        raise WrongKey(name)

    def _unwrap(self, key, slot, about):
        try:
            roots = AESGCM(key).decrypt(bytes(12), slot.bytes_of("wrapped", 88), about)
        except InvalidTag:
            raise Damage(f"{slot.what}: its wrapped roots were changed") from None
        layout, mode, _epoch, _zero = struct.unpack_from("<BBHI", roots)
        if layout != 1 or mode not in (DATA, SEALED):
            raise Damage(f"{slot.what}: layout {layout} or mode {mode} is unknown")
        self.mode, self.meta_root = mode, roots[8:40]
        self.data_root = roots[40:72] if mode == DATA else None

    def check_descriptor(self, facts):
        text = f"pgcairn1 descriptor\n{self.repository.id.hex()}\n{facts.number('format', 1 << 16)}\n" \
               f"{facts.get('created_at', str)}\n{facts.get('encryption', str)}\n"
        key = hkdf(self.meta_root, self.repository.id, "pgcairn1 descriptor")
        if hmac.new(key, text.encode(), "sha256").digest() != facts.bytes_of("mac", 32):
            raise Damage(f"{facts.what}: it was changed by somebody without the key")

    def object_keys(self, name, header, stanzas):
        """ObjectKeys of a header, once its commitment is proven."""
        mode, epoch, salt = header[29], struct.unpack_from("<H", header, 30)[0], header[80:112]
        base = b"pgcairn1" + header[8:10] + header[32:64]  # kind, repository id, object id
        if mode not in (META, self.mode):
            raise Damage(f"{name}: header: key mode {mode} is not the repository's")
        if mode == META and struct.unpack_from("<H", header, 8)[0] in (PACK, 17):
            raise Damage(f"{name}: header: its kind never has key mode {mode}")
        epoch_info = struct.pack("<H", epoch)
        meta = hkdf(self.meta_root, b"", b"pgcairn1 meta epoch" + epoch_info)
        commit = hkdf(meta, salt, base + b"commit")
        proof = hmac.new(commit, header[:112] + header[144:188] + stanzas, "sha256").digest()
        if not hmac.compare_digest(proof, header[112:144]):
            raise Damage(f"{name}: header: wrong key, or a forged header")
        if mode == META:
            body = meta
        elif mode == DATA:
            body = hkdf(self.data_root, b"", b"pgcairn1 data epoch" + epoch_info)
        else:
            body = self._unseal(name, stanzas, salt, base)
        return ObjectKeys(hkdf(meta, salt, base + b"index"), body and hkdf(body, salt, base + b"body"))

    def _unseal(self, name, stanzas, salt, base):
        """The object's data key, None where no private key is here that it was sealed to."""
        kind, count = struct.unpack_from("<HH", stanzas) if len(stanzas) >= STANZAS_HEAD else (0, 0)
        size = STANZAS_HEAD + count * STANZA + 4
        if (kind != 1 or not 1 <= count <= STANZAS_LIMIT or len(stanzas) != size
                or crc32c(0, stanzas[:-4]) != struct.unpack("<I", stanzas[-4:])[0]):
            raise Damage(f"{name}: header: its recipients are damaged")
        ephemeral = stanzas[4:STANZAS_HEAD]
        for at in range(STANZAS_HEAD, size - 4, STANZA):
            recipient = stanzas[at : at + 32]
            if recipient not in self.public_keys:
                continue
            private = self.private_keys[self.public_keys.index(recipient)]
            wrap = hkdf(x25519(private, ephemeral), salt, base + b"seal" + ephemeral + recipient)
            try:
                return AESGCM(wrap).decrypt(bytes(12), stanzas[at + 32 : at + STANZA], b"")
            except InvalidTag:
                raise Damage(f"{name}: header: its sealed key was changed") from None
        return None


class ObjectKeys:
    """Opens the index and the frames of one object."""

    def __init__(self, index, body):
        self.index, self.body = AESGCM(index), AESGCM(body) if body else None

    def open_index(self, name, offset, trailer, data):
        associated = trailer[:24] + bytes(4) + trailer[28:32]
        return self._open(self.index, b"INDX" + struct.pack("<Q", offset), data, associated, f"{name}: index")

    def open_frame(self, frame, data, what):
        if self.body is None:
            raise Refused(f"{what}: it needs the private key of one of its recipients")
        return self._open(self.body, b"BODY" + struct.pack("<Q", frame.offset), data,
                          struct.pack("<IB", frame.raw, frame.codec), what)

    @staticmethod
    def _open(cipher, nonce, data, associated, what):
        try:
            return cipher.decrypt(nonce, bytes(data), associated)
        except (InvalidTag, ValueError):
            raise Damage(f"{what}: its authentication fails: changed, or made with another key") from None


# ---------------------------------------------------------------------------------------------
# Names and objects
# ---------------------------------------------------------------------------------------------

BID = r"[0-9]{10}-[0-9a-f]{16}"
IN_BACKUP = rf"c/[A-Za-z0-9_-]{{1,64}}/b/{BID}/"
IN_TIMELINE = r"c/[A-Za-z0-9_-]{1,64}/w/[0-9a-f]{16}-[0-9]+/[0-9A-F]{8}/"
SEGMENT = r"[0-9A-F]{8}/[0-9A-F]{24}"
RESERVE = r"c/[A-Za-z0-9_-]{1,64}/gc/reserve"  # random bytes, no object
KIND_OF_NAME = [
    (REPOSITORY, r"pgcairn\.(repo|replica)"),
    (KEY, r"keys/[^/]+"),
    (INCARNATION, r"c/[A-Za-z0-9_-]{1,64}/i/[0-9a-f]{16}-[0-9]+"),
    (INTENT, IN_BACKUP + "intent"),
    (PACK, IN_BACKUP + "p/[0-9a-f]{3,}/[0-9a-f]{8}"),
    (MAP, IN_BACKUP + "m/[0-9a-f]{8}"),
    (REFS, IN_BACKUP + "refs"),
    (FATE, IN_BACKUP + "fate"),
    (MARK, IN_BACKUP + r"mark\.[0-9]+"),
    (10, IN_BACKUP + r"ev\.[a-z]+\.[^/]+"),
    (11, IN_BACKUP + r"doomed\.[^/]+"),
    (12, r"pin/[^/]+"),
    (13, r"gc/[^/]+/condemned\.[^/]+"),
    (14, r"cat/[^/]+"),
    (WAL, IN_TIMELINE + SEGMENT + r"(\.partial\.[0-9a-f]{8}|\.[0-9A-F]{8}\.backup)?"),
    (WAL, IN_TIMELINE + "history"),
    (17, IN_TIMELINE + SEGMENT + r"\.tail\.[0-9a-f]{16}\.[0-9A-F]{8}"),
]
KIND_OF_NAME = [(kind, re.compile(pattern)) for kind, pattern in KIND_OF_NAME]


def kind_of_name(name):
    """The kind that a name must hold, None for a name this version does not know."""
    return next((kind for kind, pattern in KIND_OF_NAME if pattern.fullmatch(name)), None)


class Object:
    """An open object: header checked, trailer and index read when asked for.

    encrypted: whether its repository is; keyring: None where its keys are not here, then what is
    encrypted can be scrubbed only.
    """

    def __init__(self, root, name, repository_id, encrypted=False, keyring=None):
        path = os.path.join(root, name)
        # A replica's descriptor: the same bytes under another name.
        if name == "pgcairn.repo" and not os.path.exists(path):
            path = os.path.join(root, "pgcairn.replica")
        self.name, self.keys = "pgcairn.repo" if name == "pgcairn.replica" else name, None
        try:
            self.file = open(path, "rb", buffering=0)
        except FileNotFoundError:
            raise Damage(f"{name}: is not there") from None
        self.size = os.fstat(self.file.fileno()).st_size
        self._trailer = None
        try:
            self._check_header(repository_id)
            self._find_keys(encrypted, keyring)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()

    def read(self, offset, size):
        pieces = []
        while size > 0:
            piece = os.pread(self.file.fileno(), min(size, 64 * MIB), offset)
            if not piece:
                raise Damage(f"{self.name}: ends too early")
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _check_header(self, repository_id):
        if self.size < HEADER + TRAILER:
            raise Damage(f"{self.name}: {self.size} bytes are too few for an object")
        header = self.read(0, HEADER)
        self.header, self.header_sha256 = header, hashlib.sha256(header)
        magic, kind, major, _minor, _zero, self.body_at, incompatible = struct.unpack_from(
            "<8sHHHHII", header, 0
        )
        aead, key_mode = header[28], header[29]
        self.repository_id, object_id, creator = struct.unpack_from("<16s16sQ", header, 32)
        if magic != b"PGCAIRN\n":
            raise Damage(f"{self.name}: header: not a pgcairn object")
        if major != 1:
            raise Damage(f"{self.name}: header: format version {major} is unknown")
        if crc32c(0, header[:188]) != struct.unpack_from("<I", header, 188)[0]:
            raise Damage(f"{self.name}: header: CRC does not match")
        if incompatible:
            raise Damage(f"{self.name}: header: incompatible flags {incompatible:#x} are unknown")
        if (aead, key_mode) not in ((0, 0), (1, DATA), (1, SEALED), (1, META)):
            raise Damage(f"{self.name}: header: encryption {aead}, {key_mode} is unknown")
        self.encrypted = aead != 0
        if not HEADER <= self.body_at <= min(HEADER_LIMIT, self.size - TRAILER):
            raise Damage(f"{self.name}: header: length {self.body_at} is out of range")
        if object_id != hashlib.sha256(self.name.encode()).digest()[:16]:
            raise Damage(f"{self.name}: header: the object was stored under another name")
        if repository_id not in (None, self.repository_id):
            raise Damage(f"{self.name}: header: the object belongs to another repository")
        if kind_of_name(self.name) not in (None, kind):
            raise Damage(f"{self.name}: header: kind {kind} does not belong to this name")
        in_backup = re.match(IN_BACKUP, self.name)
        if creator != (int(self.name.split("/")[3][:10]) if in_backup else 0):
            raise Damage(f"{self.name}: header: creator {creator} is not the name's")

    def _find_keys(self, encrypted, keyring):
        always_plain = struct.unpack_from("<H", self.header, 8)[0] in (REPOSITORY, KEY)
        if self.encrypted != (encrypted and not always_plain):
            raise Damage(f"{self.name}: header: {'' if self.encrypted else 'not '}encrypted, which it may not be")
        if self.encrypted and keyring:
            stanzas = self.read(HEADER, self.body_at - HEADER)
            self.keys = keyring.object_keys(self.name, self.header, stanzas)

    def trailer(self):
        """(codec, offset, stored, raw, CRC, frame count, SHA-256) of the index and the object."""
        if self._trailer is None:
            parse = Parse(self.read(self.size - TRAILER, TRAILER), f"{self.name}: trailer")
            if parse.take(4) != b"CRNT":
                parse.fail("magic does not match")
            codec = parse.number(1)
            parse.expect(3, 0, "the reserved field")
            offset, stored, raw = parse.number(8), parse.number(4), parse.number(4)
            crc, frames, digest = parse.number(4), parse.number(4), parse.take(32)
            if offset < self.body_at or offset + stored != self.size - TRAILER:
                parse.fail("the index does not end where the trailer begins")
            if raw > INDEX_LIMIT or stored > INDEX_LIMIT + MIB:
                parse.fail("the index is too long")
            self._trailer = codec, offset, stored, raw, crc, frames, digest
        return self._trailer

    def index(self):
        codec, offset, stored, raw, crc, _frames, _digest = self.trailer()
        data = self.read(offset, stored)
        if crc32c(0, data) != crc:
            raise Damage(f"{self.name}: index: CRC does not match")
        if self.encrypted:
            if self.keys is None:
                raise Refused(f"{self.name}: encrypted: give --key-file or --passphrase-file")
            data = self.keys.open_index(self.name, offset, self.read(self.size - TRAILER, 32), data)
        return decompress(codec, data, raw, f"{self.name}: index")

    def digest(self):
        return self.trailer()[6]

    def check_sha256(self):
        digest, end = hashlib.sha256(), self.size - 32
        for offset in range(0, end, MIB):
            digest.update(self.read(offset, min(MIB, end - offset)))
        if digest.digest() != self.digest():
            raise Damage(f"{self.name}: SHA-256 does not match")


Frame = collections.namedtuple("Frame", "offset stored raw codec crc")


class Repository:
    def __init__(self, root, checksums=True, secrets=None):
        self.root, self.checksums = root, checksums
        self.keyring, self.encrypted = None, False
        if not any(os.path.isfile(os.path.join(root, f"pgcairn.{name}")) for name in ("repo", "replica")):
            raise Refused(f"'{root}' is not a pgcairn repository: no pgcairn.repo")
        self.id = None
        with Object(root, "pgcairn.repo", None) as stored:
            facts = Json(stored.index(), stored.name)
            self.id = stored.repository_id
        if facts.bytes_of("repository_id", 16) != self.id:
            raise Damage("pgcairn.repo: repository_id is not the header's")
        encryption = facts.get("encryption", str)
        if facts.number("format", 1 << 16) != 1 or encryption not in ("none", "keys", "sealed"):
            raise Damage("pgcairn.repo: this format or encryption is unknown to this reader")
        self.encrypted = encryption != "none"
        self.digests = {}
        if not self.encrypted and secrets:
            raise Refused("keys were given, and the repository says that it is not encrypted")
        if self.encrypted and secrets:
            self.keyring = Keyring(self, secrets, facts)
        self.root_key = self.keyring.meta_root if self.keyring else None
        if not self.encrypted:
            self.root_key = facts.bytes_of("root_key", 32)

    def keyed_digest(self, purpose):
        """None where python3-cryptography is missing: keyed digests then go unchecked."""
        if purpose not in self.digests:
            have = AESGCM is not None
            self.digests[purpose] = KeyedDigest(self.root_key, self.id, purpose) if have else None
            if not have:
                note(f"python3-cryptography is missing: {purpose} digests are not checked")
        return self.digests[purpose]

    def open(self, name):
        return Object(self.root, name, self.id, self.encrypted, self.keyring)

    def json(self, name):
        with self.open(name) as stored:
            return Json(stored.index(), name)

    def exists(self, name):
        return os.path.exists(os.path.join(self.root, name))

    def names(self, folder, pattern):
        """Sorted names in a folder that look like pattern; a missing folder is an empty one."""
        try:
            found = os.listdir(os.path.join(self.root, folder))
        except FileNotFoundError:
            return []
        return sorted(name for name in found if re.fullmatch(pattern, name))

    def frame(self, stored, frame, check_crc=True):
        """The raw bytes of one frame of an open object."""
        what = f"{stored.name}: frame at {frame.offset}"
        data = stored.read(frame.offset, frame.stored)
        if check_crc and self.checksums and crc32c(0, data) != frame.crc:
            raise Damage(f"{what}: CRC does not match")
        if stored.encrypted:
            data = stored.keys.open_frame(frame, data, what)
        return decompress(frame.codec, data, frame.raw, what)


# ---------------------------------------------------------------------------------------------
# Backups
# ---------------------------------------------------------------------------------------------


class Backup:
    """What a backup's small objects say of it."""

    def __init__(self, repository, cluster, bid):
        self.repository, self.cluster, self.bid = repository, cluster, bid
        self.name = f"c/{cluster}/b/{bid}"
        self.fate, self.intent, self.state = None, None, "unfinished"
        if repository.exists(f"{self.name}/fate"):
            self.fate = repository.json(f"{self.name}/fate")
            self.state = self.fate.get("fate", str)
            if self.state not in ("COMMITTED", "REVOKED"):
                raise Damage(f"{self.name}/fate: fate '{self.state}' is unknown")
        elif repository.exists(f"{self.name}/intent"):
            self.intent = repository.json(f"{self.name}/intent")
        if self.state == "COMMITTED":
            same = self.fate.get("bid", str) == bid and self.fate.get("cluster", str) == cluster
            if not same:
                raise Damage(f"{self.name}/fate: speaks of another backup")
            if self._last_mark() in ("expire", "unexpire-pending"):
                self.state = "expired"

    def _last_mark(self):
        marks = self.repository.names(self.name, r"mark\.[0-9]{1,18}")
        for name in sorted(marks, key=lambda name: -int(name[5:])):
            mark = self.repository.json(f"{self.name}/{name}").get("mark", str)
            if mark in ("expire", "unexpire-pending", "unexpire"):
                return mark
        return None

    def answers_to(self, word):
        names = [self.bid]
        if self.state in ("COMMITTED", "expired"):
            names += [self.fate.get("label", str), self.fate.get("name", str, optional=True)]
        return word in names

    def damaged(self):
        return self.fate is not None and self.fate.get("damaged", bool, optional=True) is True


def clusters(repository, wanted=None):
    found = repository.names("c", r"[A-Za-z0-9_-]{1,64}")
    if wanted is None:
        return found
    if wanted not in found:
        raise Refused(f"there is no cluster '{wanted}' in this repository")
    return [wanted]


def backups(repository, cluster, complain):
    for bid in repository.names(f"c/{cluster}/b", BID):
        try:
            yield Backup(repository, cluster, bid)
        except Damage as error:
            complain(error)


def find_backup(repository, word, wanted_cluster):
    """The one backup that a BID, a label, a name or `latest` means."""
    found = []
    for cluster in clusters(repository, wanted_cluster):
        everything = backups(repository, cluster, lambda error: note(f"skipped: {error}"))
        if word == "latest":
            good = [one for one in everything if one.state == "COMMITTED" and not one.damaged()]
            found += [max(good, key=lambda one: one.bid)] if good else []
        else:
            found += [one for one in everything if one.answers_to(word)]
    if not found:
        raise Refused(f"no backup '{word}'")
    if len(found) > 1:
        names = ", ".join(f"{one.cluster} {one.bid}" for one in found)
        raise Refused(f"'{word}' is ambiguous, name a BID or a --cluster: {names}")
    if found[0].state not in ("COMMITTED", "expired"):
        raise Refused(f"backup {found[0].bid} is {found[0].state}, there is nothing to restore")
    return found[0]


# ---------------------------------------------------------------------------------------------
# Maps and packs
# ---------------------------------------------------------------------------------------------

NodeRef = collections.namedtuple("NodeRef", "bid pack offset stored raw codec digest")
Entry = collections.namedtuple("Entry", "kept path is_directory mode size crc regions")
Root = collections.namedtuple("Root", "depth tree pack_lists file_count directory_count size_bytes")
ZEROS = None  # the place of a run of zero units


def parse_node_ref(parse, bids):
    creator, pack, offset = parse.varint(), parse.varint(0xFFFFFFFF), parse.varint()
    stored, raw = parse.varint(FRAME_STORED_LIMIT), parse.varint(NODE_LIMIT)
    codec, digest = parse.number(1), parse.take(16)
    if creator >= len(bids):
        parse.fail(f"creator {creator} is not in the node's table")
    return NodeRef(bids[creator], pack, offset, stored, raw, codec, digest)


def parse_runs(parse, bids):
    """[(unit count, ZEROS or (bid, pack, first slot))]; checked to fit one region."""
    runs, total, last = [], 0, None
    sources = []  # [creator, pack, end of its last run], one for each run of kind 1
    for _ in range(parse.varint()):
        count, kind = divmod(parse.varint(), 4)
        total += count
        if count == 0 or total > REGION_UNITS:
            parse.fail("runs that do not fit a region")
        if kind == 0:
            runs.append((count, ZEROS))
            continue
        if kind == 1:
            creator, pack, slot = parse.varint(), parse.varint(0xFFFFFFFF), parse.varint()
            if creator >= len(bids):
                parse.fail(f"creator {creator} is not in the node's table")
            last = [bids[creator], pack, slot]
            sources.append(last)
        else:
            if kind == 3:
                source = parse.varint()
                last = sources[source] if source < len(sources) else None
            if last is None:
                parse.fail("a run that goes on from nowhere")
            slot = last[2] + parse.varint()
        runs.append((count, (last[0], last[1], slot)))
        last[2] = slot + count
    return runs


def parse_frame_table(parse, offset):
    """The frames of a pack, which follow one another from offset on."""
    frames = []
    for _ in range(parse.varint()):
        codec, slots = parse.number(1), parse.number(1)
        stored, crc = parse.varint(FRAME_STORED_LIMIT), parse.number(4)
        if not 1 <= slots <= FRAME_SLOTS:
            parse.fail(f"a frame of {slots} slots")
        frames.append(Frame(offset, stored, slots * UNIT, codec, crc))
        offset += stored
    return frames, offset


class Pack:
    """An open pack: its frames, and its fingerprints where its own index could be read."""

    def __init__(self, stored, frame_table=None):
        self.stored, self.fingerprints = stored, None
        if frame_table is None:
            self._read_index()
        else:
            self.frames, end = parse_frame_table(frame_table, stored.body_at)
            frame_table.done()
            if end > stored.size:
                raise Damage(f"{stored.name}: frames are missing at its end")
        self.first_slots, slots = [], 0
        for frame in self.frames:
            self.first_slots.append(slots)
            slots += frame.raw // UNIT
        self.slot_count = slots

    def _read_index(self):
        parse = Parse(self.stored.index(), f"{self.stored.name}: index")
        parse.expect(2, 1, "the layout")
        parse.expect(1, 1, "the fingerprint algorithm")
        parse.expect(1, 0, "the reserved field")
        self.frames, end = parse_frame_table(parse, self.stored.body_at)
        if end != self.stored.trailer()[1] or len(self.frames) != self.stored.trailer()[5]:
            parse.fail("the frames do not fill the body")
        named, slots = 0, 0
        for _ in range(parse.varint()):
            file = parse.varint(named)
            if file == 0:
                parse.take(parse.varint(KEY_LIMIT))
                named += 1
            parse.varint()  # first unit
            slots += parse.varint()
            parse.varint(UNIT - 1)  # tail
        self.fingerprints = parse.take(8 * slots)
        parse.done()
        if slots * UNIT != sum(frame.raw for frame in self.frames):
            parse.fail("runs and frames have different numbers of slots")

    def pieces(self, slot, count):
        """(frame, first slot wanted of it, how many) over consecutive slots."""
        if slot + count > self.slot_count:
            raise Damage(f"{self.stored.name}: slots {slot}..{slot + count} are not in it")
        at = bisect.bisect_right(self.first_slots, slot) - 1
        while count > 0:
            inside = slot - self.first_slots[at]
            some = min(count, self.frames[at].raw // UNIT - inside)
            yield self.frames[at], inside, some
            slot, count, at = slot + some, count - some, at + 1


class Kept(collections.OrderedDict):
    """The last few of something expensive; close is called on what drops out."""

    def __init__(self, limit, close=lambda value: None):
        super().__init__()
        self.limit, self.close_one = limit, close

    def of(self, key, make):
        if key in self:
            self.move_to_end(key)
        else:
            self[key] = make()
            if len(self) > self.limit:
                self.close_one(self.popitem(last=False)[1])
        return self[key]


class Map:
    """The complete map of one committed backup, and the packs it leads to."""

    def __init__(self, backup):
        self.repository, self.cluster = backup.repository, backup.cluster
        self.packs = Kept(64, lambda pack: pack.stored.close())
        self.map_packs = Kept(16, lambda pack: pack[0].close())
        self.raw_frames = Kept(256)  # a scattered file comes back to a frame of each source
        self.root_bid = backup.bid
        ref = Json(json.dumps(backup.fate.get("map_root", dict)).encode(), f"{backup.name}/fate")
        root = NodeRef(
            backup.bid, ref.number("pack", 0xFFFFFFFF), ref.number("offset", 1 << 62),
            ref.number("stored", FRAME_STORED_LIMIT), ref.number("raw", NODE_LIMIT),
            ref.number("codec", 255), ref.bytes_of("digest", 16),
        )
        self.root = self._parse_root(root)

    def _map_pack(self, bid, number):
        stored = self.repository.open(f"c/{self.cluster}/b/{bid}/m/{number:08x}")
        frames, offset = {}, stored.body_at
        try:
            parse = Parse(stored.index(), f"{stored.name}: index")
            parse.expect(2, 1, "the layout")
            parse.expect(2, 0, "the reserved field")
            for _ in range(parse.varint()):
                codec, raw = parse.number(1), parse.varint(NODE_LIMIT)
                length, crc = parse.varint(FRAME_STORED_LIMIT), parse.number(4)
                frames[offset] = Frame(offset, length, raw, codec, crc)
                offset += length
            parse.done()
            if offset != stored.trailer()[1] or len(frames) != stored.trailer()[5]:
                parse.fail("the frames do not fill the body")
        except Damage as error:
            # A node is proven by the digest in its reference too, so a lost tail loses nothing.
            if AESGCM is None:
                stored.close()
                raise
            note(f"{error}; reading on by references")
            frames = None
        return stored, frames

    def _node(self, ref, kind):
        key = ref.bid, ref.pack
        stored, frames = self.map_packs.of(key, lambda: self._map_pack(*key))
        what = f"{stored.name}: node at {ref.offset}"
        frame = Frame(ref.offset, ref.stored, ref.raw, ref.codec, 0)
        if frames is not None:
            listed = frames.get(ref.offset)
            if listed is None or listed[:4] != frame[:4]:
                raise Damage(f"{what}: the reference does not match the index")
            frame = listed
        elif not stored.body_at <= ref.offset <= stored.size - ref.stored:
            raise Damage(f"{what}: lies outside of the object")
        raw = self.repository.frame(stored, frame, check_crc=frames is not None)
        digest = self.repository.keyed_digest("map")
        if digest is not None and digest.of(raw) != ref.digest:
            raise Damage(f"{what}: digest does not match")
        parse = Parse(raw, what)
        parse.expect(1, ord(kind), "the node's type")
        parse.expect(1, 1, "the node's version")
        bids = [parse.take(27).decode("latin-1") for _ in range(parse.varint(NODE_LIMIT // 27))]
        if not all(re.fullmatch(BID, bid) for bid in bids):
            parse.fail("a bad BID in the table")
        return parse, bids

    def _parse_root(self, ref):
        parse, bids = self._node(ref, "T")
        depth, tree = parse.varint(DEPTH_LIMIT), parse_node_ref(parse, bids)
        lists = [parse_node_ref(parse, bids) for _ in range(parse.varint())]
        root = Root(depth, tree, lists, parse.varint(), parse.varint(), parse.varint())
        parse.done()
        return root

    def entries(self):
        """Every entry of the tree, in ascending order of keys."""
        previous = None
        for key, entry in self._walk(self.root.tree, self.root.depth, None):
            if previous is not None and key <= previous:
                raise Damage(f"map: keys do not ascend at {key!r}")
            previous = key
            yield entry

    def _walk(self, ref, depth, first_key):
        walk = self._children(ref, depth) if depth > 0 else self._leaf(ref)
        for key, entry in walk:
            if first_key not in (None, key):
                raise Damage(f"map: a child begins with {key!r}, not with {first_key!r}")
            first_key = None
            yield key, entry

    def _children(self, ref, depth):
        parse, bids = self._node(ref, "I")
        for _ in range(parse.varint()):
            key = bytes(parse.take(parse.varint(KEY_LIMIT)))
            yield from self._walk(parse_node_ref(parse, bids), depth - 1, key)
        parse.done()

    def _leaf(self, ref):
        parse, bids = self._node(ref, "L")
        key = b""
        for _ in range(parse.varint()):
            shared = parse.varint(len(key))
            key = key[:shared] + parse.take(parse.varint(KEY_LIMIT - shared))
            if len(key) < 2 or key[0] > 1:
                parse.fail(f"a bad key {key!r}")
            kind, mode = parse.number(1), parse.varint(0o7777)
            if kind == 1:
                yield key, Entry(key[0] == 1, key[1:], True, mode, 0, None, [])
                continue
            if kind != 0:
                parse.fail(f"an entry of type {kind}")
            size, flags = parse.varint((1 << 63) - 1), parse.number(1)
            if flags > 1:
                parse.fail(f"entry flags {flags}")
            crc = parse.number(4) if flags else None
            regions = [self._region(parse, bids) for _ in range(parse.varint())]
            yield key, Entry(key[0] == 1, key[1:], False, mode, size, crc, regions)
        parse.done()

    def _region(self, parse, bids):
        kind = parse.number(1)
        if kind > 1:
            parse.fail(f"a region of kind {kind}")
        return parse_node_ref(parse, bids) if kind else parse_runs(parse, bids)

    def _runs(self, entry):
        """The runs of a file, proven to add up to its size."""
        left = -(-entry.size // UNIT)
        for number, region in enumerate(entry.regions):
            if isinstance(region, NodeRef):
                parse, bids = self._node(region, "R")
                first_unit, runs = parse.varint(), parse_runs(parse, bids)
                parse.done()
                if first_unit != number * REGION_UNITS:
                    parse.fail(f"the region begins at unit {first_unit}")
            else:
                runs = region
            if sum(count for count, _ in runs) != min(left, REGION_UNITS) or not runs:
                raise Damage(f"map: region {number} of {entry.path!r} has another size")
            left -= min(left, REGION_UNITS)
            yield from runs
        if left:
            raise Damage(f"map: {entry.path!r} lacks regions")

    def _open_pack(self, bid, number):
        name = f"c/{self.cluster}/b/{bid}/p/{number // 1024:03x}/{number:08x}"
        stored = self.repository.open(name)
        try:
            return Pack(stored)
        except Damage as error:
            note(f"{error}; reading on by the frame table in the map")
            table = self._frame_table(bid, number)
            if table is None:
                stored.close()
                raise
            return Pack(stored, table)

    def _frame_table(self, bid, number):
        """A map's copy of a pack's frame table: this map's, else that of the backup whose pack it is."""
        lists = [ref for ref in self.root.pack_lists if ref.bid == bid]
        if not lists and bid != self.root_bid:
            try:
                other = Backup(self.repository, self.cluster, bid)
                if other.state in ("COMMITTED", "expired"):
                    return Map(other)._frame_table(bid, number)
            except Damage as error:
                note(f"no frame table from backup {bid}: {error}")
        for ref in lists:
            parse, bids = self._node(ref, "P")
            for _ in range(parse.varint()):
                found, table = parse.varint(0xFFFFFFFF), parse_node_ref(parse, bids)
                if found == number:
                    return self._node(table, "F")[0]
        return None

    def content(self, entry):
        """The bytes of a file in pieces: (offset, bytes); what no piece covers is zeros."""
        at = 0
        for count, place in self._runs(entry):
            if place is not ZEROS:
                bid, number, slot = place
                yield from self._data(entry, at, bid, number, slot, count)
            at += count * UNIT

    def _data(self, entry, at, bid, number, slot, count):
        pack = self.packs.of((bid, number), lambda: self._open_pack(bid, number))
        for frame, inside, some in pack.pieces(slot, count):
            key = bid, number, frame.offset
            raw = self.raw_frames.of(key, lambda f=frame: self.repository.frame(pack.stored, f))
            data = raw[inside * UNIT : (inside + some) * UNIT]
            want = min(len(data), entry.size - at)
            if any(data[want:]):
                raise Damage(f"{pack.stored.name}: slot {slot + some - 1}: padding is not zero")
            data = data[:want]
            self._check_fingerprints(pack, slot, data)
            yield at, data
            at, slot = at + want, slot + some

    def _check_fingerprints(self, pack, slot, data):
        digest = self.repository.keyed_digest("fingerprint")
        if digest is None or pack.fingerprints is None:
            return
        for start in range(0, len(data), UNIT):
            at = slot + start // UNIT
            expected = pack.fingerprints[8 * at : 8 * at + 8]
            if digest.of(data[start : start + UNIT])[:8] != expected:
                raise Damage(f"{pack.stored.name}: slot {at}: fingerprint does not match")


# ---------------------------------------------------------------------------------------------
# WAL
# ---------------------------------------------------------------------------------------------


class WalFile:
    """One stored WAL file, written out by write()."""

    def __init__(self, repository, name):
        self.repository, self.name = repository, name
        self.stored = repository.open(name)
        parse = Parse(self.stored.index(), f"{name}: index")
        parse.expect(2, 1, "the layout")
        self.kind = parse.number(1)
        parse.expect(1, 1, "the digest algorithm")
        self.size, self.used, self.digest = parse.number(8), parse.number(8), parse.take(16)
        self.timeline, self.lsn = parse.number(4), parse.number(8)
        self.frames, offset = [], self.stored.body_at
        for _ in range(parse.varint()):
            codec, raw = parse.number(1), parse.varint(WAL_FRAME)
            length, crc = parse.varint(FRAME_STORED_LIMIT), parse.number(4)
            self.frames.append(Frame(offset, length, raw, codec, crc))
            offset += length
        for _ in range(parse.varint()):
            parse.varint()
            parse.take(parse.varint())
        parse.done()
        if offset != self.stored.trailer()[1] or len(self.frames) != self.stored.trailer()[5]:
            parse.fail("the frames do not fill the body")
        if any(frame.raw != self.frames[0].raw for frame in self.frames[:-1]) or (
            self.frames and self.frames[-1].raw > self.frames[0].raw
        ):
            parse.fail("frames of different lengths before the last")
        if self.used != sum(frame.raw for frame in self.frames) or self.used > self.size:
            parse.fail("the frames do not add up to the file")
        if self.size > (WAL_FILE_LIMIT if self.kind < 2 else HISTORY_LIMIT):
            parse.fail(f"a WAL file of {self.size} bytes")
        self._check_name(parse)

    def _check_name(self, parse):
        timeline, last = self.name.split("/")[4], self.name.split("/")[-1]
        suffix = last[24:]
        kind = 3 if last == "history" else 1 if ".partial." in suffix else 2 if suffix else 0
        if self.kind != kind or self.timeline != int(timeline, 16):
            parse.fail("speaks of another file")
        if kind < 2 and self.lsn != int(last[8:16], 16) << 32 | int(last[16:24], 16) * self.size:
            parse.fail("LSN and size do not fit the name")

    def raw_pieces(self):
        keyed = self.repository.keyed_digest("wal")
        stream = keyed.begin() if keyed else None
        for frame in self.frames:
            raw = self.repository.frame(self.stored, frame)
            if stream:
                stream.authenticate_additional_data(raw)
            yield raw
        if stream:
            stream.authenticate_additional_data(struct.pack("<Q", self.size))
            if keyed.finish(stream) != self.digest:
                raise Damage(f"{self.name}: digest does not match")

    def write(self, path):
        with open(path, "xb", opener=private) as out:
            for raw in self.raw_pieces():
                out.write(raw)
            allocate(out.fileno(), self.size)
        self.stored.close()


def wal_segments(backup):
    """[(name, path)] of start..stop and of the history file; refuses when one is missing."""
    repository, fate = backup.repository, backup.fate
    size = fate.number("wal_segment_size", WAL_FILE_LIMIT)
    start, stop = fate.lsn("start_lsn"), fate.lsn("stop_lsn")
    if size < MIB or size & size - 1 or stop < start:
        raise Damage(f"{backup.name}/fate: its WAL range makes no sense")
    system = f"{int(fate.get('system_id', str)):016x}-{fate.number('major', 999)}"
    folder = f"c/{backup.cluster}/w/{system}"
    newest = fate.number("stop_timeline", 0xFFFFFFFF)
    found, missing, timelines = [], [], [newest]
    history = f"{folder}/{newest:08X}/history"
    if repository.exists(history):
        found.append((f"{newest:08X}.history", history))
        text = b"".join(WalFile(repository, history).raw_pieces())
        older = [int(tli) for tli in re.findall(rb"(?m)^\s*([0-9]{1,10})\s", text)]
        oldest = fate.number("start_timeline", 0xFFFFFFFF)
        timelines += [tli for tli in reversed(older) if oldest <= tli < newest]
    for number in range(start // size, max(start, stop - 1) // size + 1):
        log, segment = divmod(number, (1 << 32) // size)
        # A child timeline's first segment begins with a copy of its parent's, so newest first.
        names = [f"{tli:08X}{log:08X}{segment:08X}" for tli in timelines]
        paths = [f"{folder}/{name[:8]}/{name[8:16]}/{name}" for name in names]
        there = [pair for pair in zip(names, paths) if repository.exists(pair[1])]
        found += there[:1]
        missing += [] if there else names[:1]
    if missing:
        raise Refused(
            f"WAL that the backup needs is not in the repository: {', '.join(missing[:8])}"
            f"{' and more' if len(missing) > 8 else ''}; --no-wal restores without it"
        )
    return found


def find_wal(repository, name, wanted_cluster, incarnation):
    """The path of the one stored file with a WAL name as PostgreSQL says it."""
    if not re.fullmatch(r"[0-9A-F]{8}\.history|[0-9A-F]{24}(\.[0-9A-Za-z.]+)?", name):
        raise Refused(f"'{name}' is not the name of a WAL file")
    found = []
    for cluster in clusters(repository, wanted_cluster):
        for system in repository.names(f"c/{cluster}/w", r"[0-9a-f]{16}-[0-9]+"):
            folder = f"c/{cluster}/w/{system}/{name[:8]}"
            if incarnation not in (None, system):
                continue
            if name.endswith(".history"):
                names = repository.names(folder, "history")
            else:
                folder += f"/{name[8:16]}"
                digest = r"(\.[0-9a-f]{8})" if name.endswith(".partial") else ""
                names = repository.names(folder, re.escape(name) + digest)
            found += [f"{folder}/{one}" for one in names]
    if not found:
        raise Refused(f"no WAL file '{name}'")
    if len(found) > 1:
        raise Refused(f"'{name}' is ambiguous: {', '.join(found)}")
    return found[0]


# ---------------------------------------------------------------------------------------------
# Restore
# ---------------------------------------------------------------------------------------------


def private(path, flags):
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def allocate(descriptor, size):
    """Give the file its size, with space behind its holes: a server may fill them later."""
    os.ftruncate(descriptor, size)
    if size > 0:
        os.posix_fallocate(descriptor, 0, size)


def claim_directory(path):
    """An empty directory of that name, made when missing."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    if os.listdir(path):
        raise Refused(f"'{path}' is not empty")


class FileCrc:
    """CRC-32C of a file that arrives in ascending pieces with holes between them."""

    def __init__(self):
        self.crc, self.at = 0, 0

    def add(self, offset, data):
        while self.at < offset:
            step = min(offset - self.at, CRC_PIECE)
            self.crc, self.at = crc32c(self.crc, bytes(step)), self.at + step
        self.crc, self.at = crc32c(self.crc, data), offset + len(data)


class Restore:
    """Lays one backup into an empty directory. global/pg_control takes its name last."""

    def __init__(self, backup, target, places, config_directory):
        self.backup, self.map = backup, Map(backup)
        self.target = os.path.realpath(target)
        self.places = {oid: os.path.realpath(place) for oid, place in places.items()}
        self.config = os.path.realpath(config_directory) if config_directory else None
        self.directories = []  # (path, mode), parents first; modes are set when all is written
        self._check_places()

    def _check_places(self):
        known = {}
        for one in self.backup.fate.get("tablespaces", list):
            facts = Json(json.dumps(one).encode(), f"{self.backup.name}/fate: tablespaces")
            oid, path = facts.number("oid", 0xFFFFFFFF), facts.get("path", str)
            if path.startswith("/"):  # an in-place tablespace is a directory like any other
                known[oid] = path
        for oid in self.places.keys() - known.keys():
            raise Refused(f"the backup has no tablespace {oid}")
        for oid in known.keys() - self.places.keys():
            raise Refused(f"tablespace {oid} was at '{known[oid]}': --tablespace-map {oid}=DIR")
        for place in self._roots():
            inside = [one for one in self._roots() if (one + "/").startswith(place + "/")]
            if len(inside) > 1:
                raise Refused(f"'{inside[0]}' and '{inside[1]}' may not lie in one another")

    def _roots(self):
        return [self.target, *self.places.values(), *([self.config] if self.config else [])]

    def run(self, segments):
        for place in self._roots():
            claim_directory(place)
        counts = self._lay_tree()
        self._check_manifest()
        self._relocate_tablespaces()
        self._lay_wal(segments)
        self._finish()
        return counts

    def _place(self, entry):
        """Where an entry goes, or None; never outside of the target and the directories given."""
        parts = entry.path.split(b"/")
        if b"\0" in entry.path or any(part in (b"", b".", b"..") for part in parts):
            raise Damage(f"map: path {entry.path!r} is not a clean relative path")
        root = self.target
        if entry.kept and parts[0] == b"config":
            root, parts = self.config, parts[1:]
        elif entry.kept and parts != [b"backup_manifest"]:
            root = None
        elif parts[0] == b"pg_tblspc" and len(parts) > 1 and parts[1].isdigit():
            if int(parts[1]) in self.places:
                root, parts = self.places[int(parts[1])], parts[2:]
        return os.path.join(root, *map(os.fsdecode, parts)) if root else None

    def _lay_tree(self):
        files = directories = size = skipped = 0
        for entry in self.map.entries():
            path = self._place(entry)
            if path is None:
                skipped += 1
            elif entry.is_directory:
                os.makedirs(path, mode=0o700, exist_ok=True)
                self.directories.append((path, entry.mode & 0o777))
            else:
                path += ".unfinished" if entry.path == b"global/pg_control" else ""
                self._write_file(entry, path)
            if not entry.kept:
                files += not entry.is_directory
                directories += entry.is_directory
                size += entry.size
        root = self.map.root
        if (files, directories, size) != (root.file_count, root.directory_count, root.size_bytes):
            raise Damage(f"map: {files} files, {directories} directories, {size} bytes are not what"
                         " its root says")
        if skipped:
            note("configuration from outside the data directory was left out: --config-to DIR")
        return files, size

    def _write_file(self, entry, path):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        crc = FileCrc()
        checked = entry.crc is not None and self.map.repository.checksums
        with open(path, "xb", opener=private) as out:
            for offset, data in self.map.content(entry):
                out.seek(offset)
                out.write(data)
                if checked:
                    crc.add(offset, data)
            out.flush()
            allocate(out.fileno(), entry.size)
            os.fchmod(out.fileno(), entry.mode & 0o777)
        if checked:
            crc.add(entry.size, b"")
            if crc.crc != entry.crc:
                raise Damage(f"{os.fsdecode(entry.path)}: CRC of the file does not match the map")

    def _check_manifest(self):
        digest = hashlib.sha256()
        with open(os.path.join(self.target, "backup_manifest"), "rb") as manifest:
            while piece := manifest.read(MIB):
                digest.update(piece)
        if digest.digest() != self.backup.fate.bytes_of("manifest_sha256", 32):
            raise Damage("backup_manifest: SHA-256 is not the one in the fate")

    def _relocate_tablespaces(self):
        """Links, and new places in tablespace_map; backslashes escape LF, CR and themselves."""
        for oid, place in self.places.items():
            os.makedirs(os.path.join(self.target, "pg_tblspc"), mode=0o700, exist_ok=True)
            os.symlink(place, os.path.join(self.target, "pg_tblspc", str(oid)))
        path = os.path.join(self.target, "tablespace_map")
        if not self.places or not os.path.exists(path):
            return
        with open(path, "rb") as file:
            old, new = file.read(JSON_LIMIT), b""
        for oid, place in re.findall(rb"([0-9]+) ((?:\\[\s\S]|[^\\\n\r])*)[\n\r]", old):
            if int(oid) in self.places:
                place = os.fsencode(self.places[int(oid)])
                place = re.sub(rb"([\\\n\r])", rb"\\\1", place)
            new += oid + b" " + place + b"\n"
        if new != old:
            replace_content(path, new)
            manifest = os.path.join(self.target, "backup_manifest")
            with open(manifest, "rb") as file:
                replace_content(manifest, manifest_with(file.read(), "tablespace_map", new))

    def _lay_wal(self, segments):
        folder = os.path.join(self.target, "pg_wal")
        status = os.path.join(folder, "archive_status")
        for path in (folder, status):
            if not os.path.isdir(path):
                os.mkdir(path, 0o700)
                self.directories.append((path, 0o700))
        for name, stored in segments:
            WalFile(self.backup.repository, stored).write(os.path.join(folder, name))
            # It came from the archive: the server need not put it there again.
            open(os.path.join(status, name + ".done"), "xb", opener=private).close()

    def _finish(self):
        control = os.path.join(self.target, "global", "pg_control")
        if not os.path.exists(control + ".unfinished"):
            raise Damage("map: the backup holds no global/pg_control")
        # The data directory has no entry of its own; the server wants 0700 or 0750.
        group = any(mode & 0o050 for _, mode in self.directories)
        for path in self._roots():
            os.chmod(path, 0o750 if group else 0o700)
        for path, mode in reversed(self.directories):
            os.chmod(path, mode)
        os.sync()
        os.rename(control + ".unfinished", control)
        os.sync()


def replace_content(path, content):
    with open(path, "r+b") as file:
        file.write(content)
        file.truncate()


def manifest_with(data, path, content):
    """The server's manifest with the entry of a file that restore changed."""

    def checksum(match):
        algorithm = match[2].decode()
        if algorithm == "CRC32C":
            digest = struct.pack("<I", crc32c(0, content)).hex()
        else:
            digest = hashlib.new(algorithm.lower(), content).hexdigest()
        return match[1] + digest.encode() + b'"'

    lines = data.split(b"\n")
    for number, line in enumerate(lines):
        if b'"Path": "%s"' % path.encode() in line:
            line = re.sub(rb'("Size": )[0-9]+', rb"\g<1>%d" % len(content), line)
            lines[number] = re.sub(
                rb'("Checksum-Algorithm": "([A-Z0-9]+)", "Checksum": ")[0-9a-f]*"', checksum, line
            )
    body, mark, _ = b"\n".join(lines).rpartition(b'"Manifest-Checksum"')
    if not mark:
        raise Damage("backup_manifest: has no Manifest-Checksum")
    return body + mark + b': "%s"}\n' % hashlib.sha256(body).hexdigest().encode()


# ---------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------


def command_list(repository, _options):
    status = 0

    def complain(error):
        nonlocal status
        status = 1
        print(f"  DAMAGED {error}")

    for cluster in clusters(repository):
        print(f"cluster {cluster}")
        for name in repository.names(f"c/{cluster}/i", r"[0-9a-f]{16}-[0-9]+"):
            try:
                facts = repository.json(f"c/{cluster}/i/{name}")
                system, major = facts.get("system_id", str), facts.number("major", 999)
                print(f"  system {system}, PostgreSQL {major}")
            except Damage as error:
                complain(error)
        for backup in backups(repository, cluster, complain):
            try:
                print("  " + "  ".join(describe(backup)))
            except Damage as error:
                complain(error)
    return status


def describe(backup):
    if backup.state in ("COMMITTED", "expired"):
        fate = backup.fate
        yield fate.get("label", str)
        yield backup.bid
        yield fate.get("type", str)
        yield f"{fate.get('start_lsn', str)}..{fate.get('stop_lsn', str)}"
        yield f"{fate.get('started_at', str)} .. {fate.get('stopped_at', str)}"
    else:
        started = backup.intent.get("started_at", str, optional=True) if backup.intent else None
        yield from ("-", backup.bid, "-", "-", started or "-")
    yield backup.state + (" damaged" if backup.damaged() else "")


def command_restore(repository, options):
    places = {}
    for text in options.tablespace_map:
        oid, equals, place = text.partition("=")
        if not equals or not re.fullmatch(r"[0-9]{1,10}", oid) or not place.startswith("/"):
            raise Refused(f"--tablespace-map wants OID=DIR with an absolute DIR, not '{text}'")
        if places.setdefault(int(oid), place) != place:
            raise Refused(f"--tablespace-map {oid} is given twice")
    backup = find_backup(repository, options.backup, options.cluster)
    if backup.state == "expired":
        note(f"backup {backup.bid} is expired, parts of it may be gone")
    if backup.damaged():
        note(f"backup {backup.bid} is marked damaged: the server reported checksum failures")
    segments = wal_segments(backup) if options.wal else []
    restore = Restore(backup, options.target, places, options.config_to)
    try:
        files, size = restore.run(segments)
    except (Damage, OSError):
        note(f"'{options.target}' is not usable as it is: the restore did not end")
        raise
    print(f"restored {backup.bid}: {files} files, {size} bytes, {len(segments)} WAL files")
    return 0


def command_wal(repository, options):
    path = find_wal(repository, options.name, options.cluster, options.incarnation)
    wal, unfinished = WalFile(repository, path), options.out + ".unfinished"
    if os.path.lexists(options.out):
        raise Refused(f"'{options.out}' exists already")
    wal.write(unfinished)
    os.rename(unfinished, options.out)
    return 0


def command_scrub(repository, _options):
    """Every object, then that committed backups are whole."""
    objects = damaged = 0

    def complain(text):
        nonlocal damaged
        damaged += 1
        print(f"DAMAGED {text}")

    def unreadable(error):
        complain(f"{error.filename}: {error.strerror}")

    for folder, folders, files in os.walk(repository.root, onerror=unreadable):
        folders[:] = sorted(one for one in folders if one[0] != "." and one != "lost+found")
        for file in sorted(one for one in files if one[0] != "."):
            name = os.path.relpath(os.path.join(folder, file), repository.root)
            if re.fullmatch(RESERVE, name):
                continue
            objects += 1
            try:
                with repository.open(name) as stored:
                    stored.check_sha256()
                    crc = crc32c(0, stored.read(stored.trailer()[1], stored.trailer()[2]))
                    if crc != stored.trailer()[4]:
                        raise Damage(f"{name}: index: CRC does not match")
            except (Damage, OSError, UnicodeError) as error:
                complain(str(error))
    locked = repository.encrypted and repository.keyring is None
    if locked:
        note("no key was given: whether backups are whole is not checked")
    for cluster in [] if locked else clusters(repository):
        for backup in backups(repository, cluster, complain):
            try:
                if backup.state == "COMMITTED":
                    check_whole(backup)
            except Damage as error:
                complain(str(error))
    print(f"{objects} objects, {damaged} complaints")
    return 1 if damaged else 0


def check_whole(backup):
    """A committed backup has every pack its refs name, and its fate names exactly these."""
    repository, fate, digest = backup.repository, backup.fate, hashlib.sha256()
    with repository.open(f"{backup.name}/refs") as refs:
        if refs.digest() != fate.bytes_of("refs_sha256", 32):
            raise Damage(f"{refs.name}: is not the one the fate names")
        parse = Parse(refs.index(), f"{refs.name}")
    parse.expect(2, 1, "the layout")
    parse.expect(2, 0, "the reserved field")
    for _ in range(parse.varint()):
        bid = parse.take(27).decode("latin-1")
        if not re.fullmatch(BID, bid):
            parse.fail("a bad BID")
        for folder in ("p/{1:03x}/{0:08x}", "m/{0:08x}"):
            end = 0
            for _ in range(parse.varint()):
                first, count = end + parse.varint(0xFFFFFFFF), parse.varint(0xFFFFFFFF)
                end = first + count
                parse.varint()
                for number in range(first, end):
                    name = f"c/{backup.cluster}/b/{bid}/" + folder.format(number, number // 1024)
                    with repository.open(name) as pack:
                        digest.update(pack.digest() if bid == backup.bid else b"")
    parse.done()
    if digest.digest() != fate.bytes_of("packs_sha256", 32):
        raise Damage(f"{backup.name}/fate: packs_sha256 does not match the packs")


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Read a pgcairn repository without pgcairn.")
    parser.add_argument("--key-file", action="append", default=[], metavar="FILE",
                        help="a key, or a recipient's private key")
    parser.add_argument("--passphrase-file", metavar="FILE")
    parser.add_argument("repository")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="clusters and backups").set_defaults(run=command_list)
    restore = commands.add_parser("restore", help="lay a data directory into an empty directory")
    restore.add_argument("backup", help="BID, label or latest")
    restore.add_argument("target")
    restore.add_argument("--cluster")
    restore.add_argument("--tablespace-map", action="append", default=[], metavar="OID=DIR")
    restore.add_argument("--no-wal", dest="wal", action="store_false")
    restore.add_argument("--config-to", metavar="DIR", help="outside configuration goes here")
    restore.add_argument("--no-checksums", dest="checksums", action="store_false",
                         help="skip the CRCs of frames and files")
    restore.set_defaults(run=command_restore)
    wal = commands.add_parser("wal", help="fetch one WAL file")
    wal.add_argument("name")
    wal.add_argument("out")
    wal.add_argument("--cluster")
    wal.add_argument("--incarnation", metavar="SYSTEMID-MAJOR", help="as in the repository, in hex")
    wal.set_defaults(run=command_wal)
    commands.add_parser("scrub", help="check every object").set_defaults(run=command_scrub)
    options = parser.parse_args(arguments)
    try:
        secrets = Secrets(options.key_file, options.passphrase_file)
        repository = Repository(options.repository, getattr(options, "checksums", True), secrets)
        return options.run(repository, options)
    except (Damage, Refused, OSError) as error:
        note(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
