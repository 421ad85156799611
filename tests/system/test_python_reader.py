"""tools/pgcairn-reader.py against a repository that this file writes by hand.

The writer below was made from docs/format.md too and shares nothing with the reader: CRC bit by
bit, HKDF and GMAC from python3-cryptography. What the C programs write is read in the golden tests.
"""

import copy
import hashlib
import importlib.util
import json
import os
import random
import shutil
import struct
import subprocess
from pathlib import Path

import lz4.block
import pytest
import zstandard

pytest.importorskip("cryptography", reason="the writer needs python3-cryptography")
from cryptography.hazmat.primitives import hashes  # noqa: E402
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: E402
from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: E402
from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: E402

READER = Path(__file__).parents[2] / "tools" / "pgcairn-reader.py"
OLD, NEW = "0000000001-00112233445566aa", "0000000002-ffeeddccbbaa9988"
REVOKED, UNFINISHED = "0000000003-1111111111111111", "0000000004-2222222222222222"
SYSTEM_ID = 7300000000000000001
SYSTEM = f"{SYSTEM_ID:016x}-15"
UNIT, REGION, SEGMENT = 8192, 16384, 1 << 20
NONE, LZ4, ZSTD = 0, 1, 2
NOISE = random.Random(15)
MARKS = ((1, "unexpire"), (9, "unexpire"), (10, "expire"), (11, "keep"))  # ten comes after nine


def load_reader():
    spec = importlib.util.spec_from_file_location("pgcairn_reader", READER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reader = load_reader()


# --- the writer ------------------------------------------------------------------------------


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def file_crc(content):
    """Of a whole file: the reader's own sum, which has its own test below; ours takes too long."""
    return reader.crc32c(0, content)


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def text(data):
    return varint(len(data)) + data


def compress(codec, raw):
    if codec == LZ4:
        return lz4.block.compress(raw, store_size=False)
    return zstandard.ZstdCompressor().compress(raw) if codec == ZSTD else raw


class Writer:
    """A repository written object by object."""

    def __init__(self, root):
        self.root, self.id, self.root_key = root, bytes(range(16)), bytes(range(100, 132))
        self.digests = {}
        facts = {
            "repository_id": self.id.hex(), "format": 1, "encryption": "none",
            "root_key": self.root_key.hex(), "created_at": "", "of the future": [None],
        }  # fmt: skip
        self.json("pgcairn.repo", 1, facts)

    def keyed(self, purpose, message):
        def hkdf(key, salt, info):
            return HKDF(hashes.SHA256(), 32, salt, info.encode()).derive(key)

        key = hkdf(self.root_key, self.id, f"pgcairn1 {purpose}")
        tag = AESGCM(hkdf(key, None, f"{purpose}/gmac")).encrypt(bytes(12), b"", message)
        aes = Cipher(algorithms.AES(hkdf(key, None, f"{purpose}/aes")), modes.ECB()).encryptor()
        return aes.update(tag)

    def put(self, name, kind, index, frames=(), codec=NONE, major=1, incompatible=0):
        creator = int(name.split("/")[3][:10]) if "/b/" in name else 0
        header = struct.pack(
            "<8sHHHHIII4x16s16sQQ32s32x44x", b"PGCAIRN\n", kind, major, 0, 0, 192, incompatible,
            1 << 7, self.id, hashlib.sha256(name.encode()).digest()[:16], creator, 1, b"s" * 32,
        )  # fmt: skip
        data = header + struct.pack("<I", crc32c(header)) + b"".join(frames)
        stored = compress(codec, index)
        trailer = b"CRNT" + struct.pack("<B3xQII", codec, len(data), len(stored), len(index))
        trailer += struct.pack("<II", crc32c(stored), len(frames))
        data += stored + trailer
        digest = hashlib.sha256(data).digest()
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data + digest)
        self.digests[name] = digest

    def json(self, name, kind, facts):
        self.put(name, kind, json.dumps(facts).encode(), codec=LZ4 if kind == 8 else NONE)

    def pack(self, bid, number, frames, codec):
        """frames: lists of (key, unit, bytes). Where each (key, unit) lies, and the frame table."""
        stored, table, runs, prints, files, places = [], b"", [], b"", [], {}
        for units in frames:
            raw = b"".join(data.ljust(UNIT, b"\0") for _, _, data in units)
            stored.append(compress(codec, raw))
            table += bytes([codec, len(units)]) + varint(len(stored[-1]))
            table += struct.pack("<I", crc32c(stored[-1]))
            for key, unit, data in units:
                places[key, unit] = (bid, number, len(runs))
                name = varint(files.index(key) + 1) if key in files else varint(0) + text(key)
                files += [] if key in files else [key]
                runs.append(name + varint(unit) + varint(1) + varint(len(data) % UNIT))
                prints += self.keyed("fingerprint", data)[:8]
        table = varint(len(frames)) + table
        index = struct.pack("<HBB", 1, 1, 0) + table + varint(len(runs)) + b"".join(runs) + prints
        name = f"c/main/b/{bid}/p/{number // 1024:03x}/{number:08x}"
        self.put(name, 5, index, stored, ZSTD)
        return places, table

    def wal(self, name, kind, content, lsn):
        used = content.rstrip(b"\0")
        frames = [used[at : at + 131072] for at in range(0, len(used), 131072)]
        codecs = [(LZ4, ZSTD, NONE)[at % 3] for at in range(len(frames))]
        stored = [compress(codec, raw) for codec, raw in zip(codecs, frames)]
        index = struct.pack("<HBBQQ", 1, kind, 1, len(content), len(used))
        index += self.keyed("wal", used + struct.pack("<Q", len(content)))
        index += struct.pack("<IQ", int(name.split("/")[0], 16), lsn) + varint(len(frames))
        for codec, raw, out in zip(codecs, frames, stored):
            index += bytes([codec]) + varint(len(raw)) + varint(len(out))
            index += struct.pack("<I", crc32c(out))
        index += varint(2) + varint(2) + text(b'{"host": "a"}') + varint(99) + text(b"unknown")
        self.put(f"c/main/w/{SYSTEM}/{name}", 15, index, stored)


class MapPack:
    """Nodes of one map pack; add() gives what a reference needs."""

    def __init__(self, writer, bid, number):
        self.writer, self.bid, self.number, self.stored, self.table = writer, bid, number, [], b""
        self.codecs = 0

    def add(self, kind, body):
        bids = b"".join(bid.encode() for bid in (NEW, OLD))
        raw = kind + b"\x01" + varint(2) + bids + body
        self.codecs = (self.codecs + 1) % 3
        stored = compress(self.codecs, raw)
        ref = {
            "pack": self.number, "offset": 192 + sum(map(len, self.stored)), "stored": len(stored),
            "raw": len(raw), "codec": self.codecs, "digest": self.writer.keyed("map", raw).hex(),
        }  # fmt: skip
        self.stored.append(stored)
        self.table += bytes([self.codecs]) + varint(len(raw)) + varint(len(stored))
        self.table += struct.pack("<I", crc32c(stored))
        return ref

    def finish(self):
        index = struct.pack("<HBB", 1, 0, 0) + varint(len(self.stored)) + self.table
        self.writer.put(f"c/main/b/{self.bid}/m/{self.number:08x}", 6, index, self.stored)


def ref_bytes(ref, creator=0):
    numbers = (creator, ref["pack"], ref["offset"], ref["stored"], ref["raw"])
    return b"".join(map(varint, numbers)) + bytes([ref["codec"]]) + bytes.fromhex(ref["digest"])


# --- one repository ---------------------------------------------------------------------------


def units_of(content):
    return [content[at : at + UNIT] for at in range(0, len(content), UNIT)]


def region_runs(key, first, units, places):
    """Runs as in the format, one a unit or a stretch of zeros; kind 2 wherever it may stand."""
    runs, last, zeros = [], None, 0
    for number, data in enumerate(units, first):
        if not any(data):
            zeros += 1
            continue
        runs += [varint(zeros * 4)] if zeros else []
        zeros = 0
        bid, pack, slot = places[key, number]
        if last is not None and last[:2] == (bid, pack) and slot >= last[2]:
            runs.append(varint(4 + 2) + varint(slot - last[2]))
        else:
            place = (0 if bid == NEW else 1, pack, slot)
            runs.append(varint(4 + 1) + b"".join(map(varint, place)))
        last = bid, pack, slot + 1
    runs += [varint(zeros * 4)] if zeros else []
    return varint(len(runs)) + b"".join(runs)


def manifest_of(files):
    lines = [
        '{ "Path": "%s", "Size": %d, "Last-Modified": "2026-11-23 00:00:00 GMT",'
        ' "Checksum-Algorithm": "CRC32C", "Checksum": "%s" }'
        % (key[1:].decode(), len(data), struct.pack("<I", file_crc(data)).hex())
        for key, data in files.items()
    ]
    body = '{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [\n' + ",\n".join(lines)
    body += '\n],\n"WAL-Ranges": [\n{ "Timeline": 1, "Start-LSN": "0/2000028",'
    body += ' "End-LSN": "0/2100100" }\n],\n'
    return f'{body}"Manifest-Checksum": "{hashlib.sha256(body.encode()).hexdigest()}"}}\n'.encode()


class Sample:
    """Repository with a backup that refers to an older one, and what must come back from it."""

    def __init__(self, root, big=False, rename=None, wrong_crc=None):
        self.writer = Writer(root)
        self.files = self._files(big)
        self.kept = {
            b"\x01backup_manifest": manifest_of(self.files),
            b"\x01config/hba_file/0": b"local all all peer\n",
        }
        self.directories = [
            b"\0base", b"\0base/1", b"\0global", b"\0pg_notify", b"\0pg_tblspc", b"\0pg_wal",
            b"\0pg_tblspc/16400/PG_15_202209061",
        ]  # fmt: skip
        self.rename, self.wrong_crc = rename or {}, wrong_crc
        self._packs()
        self._map()
        self._small()
        self._wal()

    @staticmethod
    def _files(big):
        files = {
            b"\0PG_VERSION": b"15\n",
            b"\0backup_label": b"START WAL LOCATION: 0/2000028\n" * 9,
            b"\0tablespace_map": b"16400 /old/a\\\\b c\n",
            b"\0global/pg_control": NOISE.randbytes(296).ljust(UNIT, b"\0"),
            b"\0base/1/empty": b"",
            b"\0base/1/zeros": bytes(3 * UNIT),
            b"\0base/1/tail": NOISE.randbytes(UNIT) + bytes(2 * UNIT) + b"page" * 2048 + b"z" * 100,
            b"\0base/1/long": b"".join(bytes([65 + at]) * UNIT for at in range(40)),
            b"\0pg_tblspc/16400/PG_15_202209061/7": b"t" * (UNIT + 1),
        }
        if big:
            body = bytes(REGION * UNIT - UNIT) + b"x" * UNIT + bytes(9 * UNIT) + b"y" * (UNIT + 5)
            files[b"\0base/1/big"] = body
        return files

    def _packs(self):
        units = [
            (key, number, data)
            for key, content in {**self.files, **self.kept}.items()
            for number, data in enumerate(units_of(content))
            if any(data)
        ]
        third = len(units) // 3
        parts = [(OLD, 0, LZ4, 16), (NEW, 0, ZSTD, 5), (NEW, 1025, NONE, 3)]
        self.places, self.tables = {}, {}
        for at, (bid, number, codec, slots) in enumerate(parts):
            mine = units[at * third : (at + 1) * third if at < 2 else None]
            frames = [mine[one : one + slots] for one in range(0, len(mine), slots)]
            places, self.tables[bid, number] = self.writer.pack(bid, number, frames, codec)
            self.places.update(places)

    def _file(self, pack, key, content):
        units, regions = units_of(content), []
        for first in range(0, len(units), REGION):
            runs = region_runs(key, first, units[first : first + REGION], self.places)
            if first > 0 or key == b"\0base/1/tail":
                node = pack.add(b"R", varint(first) + runs)
                regions.append(b"\x01" + ref_bytes(node))
            else:
                regions.append(b"\x00" + runs)
        crc = file_crc(content) ^ (key == self.wrong_crc)
        has_crc = b"\x01" + struct.pack("<I", crc) if key[0] == 0 else b"\x00"
        head = b"\x00" + varint(0o640 if key == b"\0PG_VERSION" else 0o600) + varint(len(content))
        return head + has_crc + varint(len(regions)) + b"".join(regions)

    def _map(self):
        pack = MapPack(self.writer, NEW, 0)
        tree = {key: b"\x01" + varint(0o750) for key in self.directories}
        contents = {**self.files, **self.kept}
        tree.update({key: self._file(pack, key, data) for key, data in contents.items()})
        tree = sorted((self.rename.get(key, key), body) for key, body in tree.items())
        children = []
        for part in (tree[:6], tree[6:]):
            body, previous = varint(len(part)), b""
            for key, entry in part:
                shared = len(os.path.commonprefix([previous, key]))
                body += varint(shared) + text(key[shared:]) + entry
                previous = key
            children.append(text(part[0][0]) + ref_bytes(pack.add(b"L", body)))
        pack.finish()
        top = MapPack(self.writer, NEW, 1)
        inner = top.add(b"I", varint(2) + b"".join(children))
        lists = [ref_bytes(self._pack_list(OLD), 1), ref_bytes(self._pack_list(NEW))]
        size = sum(map(len, self.files.values()))
        counts = map(varint, (len(self.files), len(self.directories), size))
        body = varint(1) + ref_bytes(inner) + varint(2) + b"".join(lists) + b"".join(counts)
        self.root = top.add(b"T", body)
        top.finish()

    def _pack_list(self, bid):
        pack = MapPack(self.writer, bid, 2)
        mine = sorted((number, table) for (one, number), table in self.tables.items() if one == bid)
        body = varint(len(mine))
        for number, table in mine:
            body += varint(number) + ref_bytes(pack.add(b"F", table), 0 if bid == NEW else 1)
        ref = pack.add(b"P", body)
        pack.finish()
        return ref

    def _small(self):
        writer, digests = self.writer, self.writer.digests
        incarnation = {
            "system_id": str(SYSTEM_ID), "major": 15, "wal_segment_size": SEGMENT,
            "block_size": UNIT, "data_checksums": True, "created_at": "",
        }  # fmt: skip
        writer.json(f"c/main/i/{SYSTEM}", 3, incarnation)
        names = [f"c/main/b/{NEW}/p/{number}" for number in ("000/00000000", "001/00000401")]
        names += [f"c/main/b/{NEW}/m/{number:08x}" for number in range(3)]
        refs = struct.pack("<HH", 1, 0) + varint(2)
        refs += OLD.encode() + b"".join(map(varint, (1, 0, 1, 16, 1, 2, 1, 0)))
        refs += NEW.encode() + b"".join(map(varint, (2, 0, 1, 9, 1024, 1, 9, 1, 0, 3, 0)))
        writer.put(f"c/main/b/{NEW}/refs", 7, refs)
        self.fate = {
            "fate": "COMMITTED", "token": "00", "bid": NEW, "sequence": 2, "cluster": "main",
            "label": "20261123-000000F", "name": "before the flood", "type": "full", "parent": None,
            "system_id": str(SYSTEM_ID), "major": 15, "start_lsn": "0/2000028",
            "start_timeline": 1, "stop_lsn": "0/2100100", "stop_timeline": 1,
            "wal_segment_size": SEGMENT, "started_at": "2026-11-23 00:00:00.000000+00",
            "stopped_at": "2026-11-23 00:01:00.000000+00", "damaged": False,
            "tablespaces": [{"oid": 16400, "path": "/old/a\\b c"}], "map_root": self.root,
            "refs_sha256": digests[f"c/main/b/{NEW}/refs"].hex(),
            "packs_sha256": hashlib.sha256(b"".join(digests[name] for name in names)).hexdigest(),
            "manifest_sha256": hashlib.sha256(self.kept[b"\x01backup_manifest"]).hexdigest(),
            "previous": None,
        }  # fmt: skip
        self.write_fate()
        expired = {**self.fate, "bid": OLD, "sequence": 1, "label": "20261122-000000F"}
        writer.json(f"c/main/b/{OLD}/fate", 8, {**expired, "name": None})
        for number, mark in MARKS:
            writer.json(f"c/main/b/{OLD}/mark.{number}", 9, {"mark": mark, "at": "", "by": ""})
        revoked = {"fate": "REVOKED", "token": "", "by": {}, "at": ""}
        writer.json(f"c/main/b/{REVOKED}/fate", 8, revoked)
        intent = {"token": "", "started_at": "2026-11-24 00:00:00.000000+00"}
        writer.json(f"c/main/b/{UNFINISHED}/intent", 4, intent)

    def write_fate(self, **changes):
        self.writer.json(f"c/main/b/{NEW}/fate", 8, {**self.fate, **changes})

    def _wal(self):
        self.wal = {
            "000000010000000000000020": NOISE.randbytes(300000).ljust(SEGMENT, b"\0"),
            "000000010000000000000021": b"\x10\xd1" * 100 + bytes(SEGMENT - 200),
        }
        for name, content in self.wal.items():
            lsn = int(name[16:], 16) * SEGMENT
            self.writer.wal(f"00000001/00000000/{name}", 0, content, lsn)
        self.writer.wal("00000002/history", 3, b"1\t0/3000000\tno reason\n", 0)
        partial = "00000001/00000000/000000010000000000000022.partial.0badcafe"
        self.writer.wal(partial, 1, bytes(SEGMENT), 0x22 * SEGMENT)
        backup = "00000001/00000000/000000010000000000000020.00000028.backup"
        self.writer.wal(backup, 2, b"STOP WAL LOCATION\n", 0)

    def object(self, name):
        return self.writer.root / name


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return Sample(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def sample(pristine, tmp_path):
    mine = copy.deepcopy(pristine)
    mine.writer.root = tmp_path / "repository"
    shutil.copytree(pristine.writer.root, mine.writer.root)
    return mine


def run(sample, *arguments):
    return reader.main([str(sample.writer.root), *map(str, arguments)])


def restore(sample, tmp_path, *arguments, word="latest"):
    place = f"--tablespace-map=16400={tmp_path / 'space'}"
    return run(sample, "restore", word, tmp_path / "target", place, *arguments)


def check_restored(sample, tmp_path):
    target, space = tmp_path / "target", tmp_path / "space"
    for key, content in sample.files.items():
        path = target / key[1:].decode()
        if key == b"\0tablespace_map":
            assert path.read_bytes() == f"16400 {space}\n".encode()
        else:
            assert path.read_bytes() == content, key
        assert path.stat().st_mode & 0o777 == (0o640 if key == b"\0PG_VERSION" else 0o600), key
    for key in sample.directories:
        assert (target / key[1:].decode()).stat().st_mode & 0o777 == 0o750, key
    assert os.readlink(target / "pg_tblspc/16400") == str(space)
    assert (space / "PG_15_202209061/7").is_file()
    assert target.stat().st_mode & 0o777 == space.stat().st_mode & 0o777 == 0o750


# --- tests ------------------------------------------------------------------------------------


def test_crc32c_folds_to_what_single_bits_give():
    assert reader.crc32c(0, b"123456789") == 0xE3069283
    for size in (0, 1, 3, 4, 1024, 1025, 1700, 1701, 8192, 20001, 131071, 131072, 131073):
        data = NOISE.randbytes(size)
        assert reader.crc32c(0, data) == crc32c(data), size
        assert reader.crc32c(reader.crc32c(0, b"begun"), data) == crc32c(b"begun" + data), size
    assert reader.crc32c(0, bytes(50000)) == crc32c(bytes(50000))


def test_list_tells_every_state(sample, capsys):
    assert run(sample, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cluster main"
    assert lines[1] == f"  system {SYSTEM_ID}, PostgreSQL 15"
    states = ["expired", "COMMITTED", "REVOKED", "unfinished"]
    assert [line.split()[-1] for line in lines[2:]] == states
    times = "2026-11-23 00:00:00.000000+00 .. 2026-11-23 00:01:00.000000+00"
    assert lines[3] == f"  20261123-000000F  {NEW}  full  0/2000028..0/2100100  {times}  COMMITTED"
    assert UNFINISHED in lines[5] and "2026-11-24" in lines[5]


def test_restore_gives_back_every_byte_and_mode(tmp_path, capsys):
    sample = Sample(tmp_path / "repository", big=True)
    assert restore(sample, tmp_path, "--config-to", tmp_path / "config") == 0
    check_restored(sample, tmp_path)
    assert (tmp_path / "config/hba_file/0").read_bytes() == b"local all all peer\n"
    for name, content in sample.wal.items():
        assert (tmp_path / "target/pg_wal" / name).read_bytes() == content
        assert (tmp_path / "target/pg_wal/archive_status" / f"{name}.done").is_file()
    assert "not checked" not in capsys.readouterr().err


def test_restored_directory_pleases_pg_verifybackup(sample, tmp_path):
    tools = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_verifybackup"))
    if not tools:
        pytest.skip("no pg_verifybackup here")
    assert restore(sample, tmp_path) == 0
    command = [tools[0], "--no-parse-wal", tmp_path / "target"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_script_runs_alone(sample, tmp_path):
    command = [READER, sample.writer.root, "scrub"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "23 objects, 0 complaints")


@pytest.mark.parametrize("word", [NEW, "20261123-000000F", "before the flood"])
def test_a_backup_answers_to_its_names(sample, tmp_path, word):
    assert restore(sample, tmp_path, "--no-wal", "--cluster=main", word=word) == 0
    check_restored(sample, tmp_path)
    assert os.listdir(tmp_path / "target/pg_wal") == ["archive_status"]


@pytest.mark.parametrize("word", [REVOKED, UNFINISHED, "nonsense", OLD[:10]])
def test_what_is_no_backup_is_not_restored(sample, tmp_path, capsys, word):
    assert restore(sample, tmp_path, word=word) == 1
    assert word in capsys.readouterr().err
    assert not (tmp_path / "target").exists()


def test_latest_passes_over_a_damaged_backup(sample, tmp_path, capsys):
    sample.write_fate(damaged=True)
    assert restore(sample, tmp_path) == 1
    assert "no backup 'latest'" in capsys.readouterr().err
    assert restore(sample, tmp_path, word=NEW) == 0
    assert "marked damaged" in capsys.readouterr().err


def test_restore_works_without_the_crypto_module_and_says_so(sample, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reader, "AESGCM", None)
    assert restore(sample, tmp_path) == 0
    check_restored(sample, tmp_path)
    assert "digests are not checked" in capsys.readouterr().err


def test_restore_refuses_what_is_in_its_way(sample, tmp_path, capsys):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/mine").write_text("precious")
    assert restore(sample, tmp_path) == 1
    assert "is not empty" in capsys.readouterr().err
    assert os.listdir(tmp_path / "target") == ["mine"]


def test_tablespaces_need_a_place_each(sample, tmp_path, capsys):
    target = tmp_path / "target"
    assert run(sample, "restore", "latest", target) == 1
    assert "--tablespace-map 16400=DIR" in capsys.readouterr().err
    assert restore(sample, tmp_path, "--tablespace-map=1=/nowhere") == 1
    assert "no tablespace 1" in capsys.readouterr().err
    assert run(sample, "restore", "latest", target, f"--tablespace-map=16400={target}/in") == 1
    assert "in one another" in capsys.readouterr().err
    assert not target.exists()


def test_missing_wal_is_named_before_anything_is_written(sample, tmp_path, capsys):
    name = "000000010000000000000021"
    sample.object(f"c/main/w/{SYSTEM}/00000001/00000000/{name}").unlink()
    assert restore(sample, tmp_path) == 1
    assert name in capsys.readouterr().err
    assert not (tmp_path / "target").exists()


def test_wal_follows_the_timeline_history(sample, tmp_path):
    sample.writer.wal("00000002/00000000/000000020000000000000021", 0, b"2".ljust(SEGMENT, b"\0"),
                      0x21 * SEGMENT)  # fmt: skip
    sample.write_fate(stop_timeline=2)
    assert restore(sample, tmp_path) == 0
    names = {name for name in os.listdir(tmp_path / "target/pg_wal") if name != "archive_status"}
    assert names == {
        "00000002.history", "000000010000000000000020", "000000020000000000000021",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name, begin",
    [
        ("000000010000000000000021", b"\x10\xd1"),
        ("000000010000000000000022.partial", b"\0"),
        ("000000010000000000000022.partial.0badcafe", b"\0"),
        ("000000010000000000000020.00000028.backup", b"STOP"),
        ("00000002.history", b"1\t0/3"),
    ],
)
def test_wal_files_are_fetched_by_name(sample, tmp_path, name, begin):
    assert run(sample, "wal", name, tmp_path / "out") == 0
    assert (tmp_path / "out").read_bytes().startswith(begin)
    assert run(sample, "wal", name, tmp_path / "out") == 1  # and never overwritten


@pytest.mark.parametrize("name", ["000000010000000000000099", "../../x", "00000009.history", "x"])
def test_wal_that_is_not_there_is_not_made_up(sample, tmp_path, name):
    assert run(sample, "wal", name, tmp_path / "out") == 1
    assert not (tmp_path / "out").exists()


# --- damage -----------------------------------------------------------------------------------


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


HEADER_BYTES = [0, 8, 10, 16, 20, 28, 32, 48, 64, 80, 188]
TRAILER_BYTES = [-64, -60, -57, -56, -48, -44, -40, -32, -1]


def test_scrub_finds_any_flipped_byte(sample, capsys):
    places = [path for path in sorted(sample.writer.root.rglob("*")) if path.is_file()]
    for path in places:
        name = str(path.relative_to(sample.writer.root))
        good = path.read_bytes()
        for at in [*HEADER_BYTES, 192, len(good) // 2, -70, *TRAILER_BYTES]:
            flip(path, at)
            assert run(sample, "scrub") == 1, (name, at)
            output = capsys.readouterr()
            assert name in output.out + output.err, (name, at)
            path.write_bytes(good)
    assert run(sample, "scrub") == 0


def test_scrub_misses_packs_that_are_gone(sample, capsys):
    name = f"c/main/b/{OLD}/p/000/00000000"
    sample.object(name).unlink()
    assert run(sample, "scrub") == 1
    assert f"DAMAGED {name}: is not there" in capsys.readouterr().out


# (object, where, what the complaint says)
RESTORE_DAMAGE = [
    (f"c/main/b/{OLD}/p/000/00000000", 200, "frame at 192: CRC does not match"),
    (f"c/main/b/{NEW}/p/000/00000000", 200, "frame at 192: CRC does not match"),
    (f"c/main/b/{NEW}/p/001/00000401", 9000, "CRC does not match"),
    (f"c/main/b/{NEW}/p/001/00000401", 40, "header: CRC does not match"),
    (f"c/main/b/{NEW}/m/00000000", 250, "CRC does not match"),
    (f"c/main/b/{NEW}/m/00000001", 195, "CRC does not match"),
    (f"c/main/b/{NEW}/fate", 300, "index: CRC does not match"),
    (f"c/main/w/{SYSTEM}/00000001/00000000/000000010000000000000020", 5000, "CRC does not match"),
]


@pytest.mark.parametrize("name, at, says", RESTORE_DAMAGE)
def test_restore_names_damage_and_does_not_finish(sample, tmp_path, capsys, name, at, says):
    flip(sample.object(name), at)
    assert restore(sample, tmp_path) == 1
    output = capsys.readouterr()
    assert f"{name}: " in output.err and says in output.err
    assert not (tmp_path / "target/global/pg_control").exists()


def test_fingerprints_find_what_no_crc_tells(sample, tmp_path, capsys):
    sample.writer.keyed = lambda *_: bytes(16)
    units = [[(b"\0x", at, NOISE.randbytes(UNIT)) for at in range(3)] for _ in range(9)]
    sample.writer.pack(NEW, 1025, units, NONE)
    assert restore(sample, tmp_path) == 1
    assert "00000401: slot 0: fingerprint does not match" in capsys.readouterr().err


def test_node_digests_find_what_no_crc_tells(sample, tmp_path, capsys):
    sample.write_fate(map_root={**sample.root, "digest": "00" * 16})
    assert restore(sample, tmp_path) == 1
    assert "digest does not match" in capsys.readouterr().err


def test_wal_digests_find_what_no_crc_tells(sample, tmp_path, capsys):
    sample.writer.keyed = lambda *_: bytes(16)
    name = "00000001/00000000/000000010000000000000021"
    sample.writer.wal(name, 0, sample.wal[name[-24:]], 0x21 * SEGMENT)
    assert run(sample, "wal", name[-24:], tmp_path / "out") == 1
    assert f"{name}: digest does not match" in capsys.readouterr().err


def test_pages_in_another_order_are_found_by_the_file_crc(sample, tmp_path, capsys):
    """The same slots, filled with valid fingerprints of other pages: a mixed-up pack."""
    units = [[(b"\0x", at, NOISE.randbytes(UNIT)) for at in range(3)] for _ in range(9)]
    sample.writer.pack(NEW, 1025, units, NONE)
    assert restore(sample, tmp_path) == 1
    assert "CRC of the file does not match the map" in capsys.readouterr().err


def test_a_pack_or_map_pack_without_its_tail_is_still_read(sample, tmp_path, capsys):
    names = [f"c/main/b/{OLD}/p/000/00000000", f"c/main/b/{NEW}/p/000/00000000"]
    names += [f"c/main/b/{NEW}/m/00000000"]
    for name in names:
        flip(sample.object(name), -64)
    assert restore(sample, tmp_path) == 0
    check_restored(sample, tmp_path)
    complaints = capsys.readouterr().err
    assert all(f"{name}: trailer" in complaints for name in names)


def test_objects_do_not_change_places(sample, tmp_path, capsys):
    one, other = (sample.object(f"c/main/b/{bid}/p/000/00000000") for bid in (OLD, NEW))
    shutil.copy(one, other)
    assert restore(sample, tmp_path) == 1
    assert "stored under another name" in capsys.readouterr().err


def test_a_wrong_file_crc_is_found_unless_checks_are_off(tmp_path, capsys):
    sample = Sample(tmp_path / "repository", wrong_crc=b"\0base/1/tail")
    assert restore(sample, tmp_path) == 1
    assert "base/1/tail: CRC of the file" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "target")
    shutil.rmtree(tmp_path / "space")
    assert restore(sample, tmp_path, "--no-checksums") == 0
    check_restored(sample, tmp_path)


@pytest.mark.parametrize("path", [b"../evil", b"/evil", b"a//b", b"./b", b"..", b"a\0b", b"a/"])
def test_restore_never_leaves_its_directory(tmp_path, capsys, path):
    sample = Sample(tmp_path / "repository", rename={b"\0PG_VERSION": b"\0" + path})
    assert restore(sample, tmp_path) == 1
    assert "not a clean relative path" in capsys.readouterr().err
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(major=2), "format version 2 is unknown"),
        (dict(incompatible=4), "incompatible flags 0x4"),
        (dict(codec=3), "codec 3 is unknown"),
        (dict(kind=9), "kind 9 does not belong"),
    ],
)
def test_the_reader_refuses_what_it_does_not_know(sample, tmp_path, capsys, change, says):
    content = json.dumps(sample.fate).encode()
    sample.writer.put(f"c/main/b/{NEW}/fate", **{"kind": 8, "index": content, **change})
    assert restore(sample, tmp_path) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "codec, stored",
    [
        (LZ4, b"\xff" * 40),
        (LZ4, lz4.block.compress(b"a" * 99, store_size=False)),
        (LZ4, lz4.block.compress(b"a" * 101, store_size=False)),
        (ZSTD, zstandard.ZstdCompressor().compress(b"a" * 101)),
        (ZSTD, zstandard.ZstdCompressor().compress(b"a" * 100)[:-3]),
        (ZSTD, zstandard.ZstdCompressor(write_content_size=False).compress(b"a" * 101)),
        (NONE, b"a" * 99),
        (3, b"a" * 100),
    ],
)
def test_compressed_bytes_decode_to_exactly_their_length(codec, stored):
    with pytest.raises(reader.Damage):
        reader.decompress(codec, stored, 100, "frame")


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 10 + b"\x01", b"\x05"])
def test_bad_varints_are_refused(data):
    with pytest.raises(reader.Damage):
        reader.Parse(data, "test").varint(4)


def test_a_varint_may_not_pass_64_bits():
    assert reader.Parse(varint((1 << 64) - 1), "test").varint() == (1 << 64) - 1
    with pytest.raises(reader.Damage):
        reader.Parse(varint(1 << 64), "test").varint()
