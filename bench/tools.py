"""What is measured. A tool answers with shell lines; None where it has no such thing to offer."""

import pathlib
import secrets
import shlex

from machine import tree_bytes


class Tool:
    """One repository of one tool, for one cluster."""

    name = ""
    archive_command = "/bin/true"
    backup_paths = "*"  # below the repository, where it keeps backups and nothing else

    def __init__(self, machine, cluster):
        self.machine, self.cluster = machine, cluster
        self.home = machine.work / "tools" / self.name
        self.repository = self.home / "repository"

    def version(self):
        return ""

    def prepare(self):
        """An empty repository, ready for a first backup; the server archives into it. Not timed."""
        self.cluster.archive_with("/bin/true")
        self.machine.directory(self.home, empty=True)
        self.machine.directory(self.repository)
        self.set_up()
        self.resume()

    def resume(self):
        """The server archives into this repository again, after it did so into others. Not timed."""
        if self.archive_command != "/bin/true":
            self.cluster.archive_with(self.archive_command)

    def set_up(self):
        pass

    def stored_bytes(self):
        """What the repository holds."""
        return tree_bytes(self.repository)

    def backup_bytes(self):
        """The same, WAL left out: it is the same for all, and not the backup's."""
        return sum(tree_bytes(path) for path in self.repository.glob(self.backup_paths))

    def remove(self):
        self.cluster.archive_with("/bin/true")
        self.machine.directory(self.home, empty=True)

    def backup(self):
        return None

    def incremental(self):
        """Of the newest backup there is."""
        return None

    def restore(self, target):
        """Of the newest backup there is."""
        return None

    # The server runs these in its data directory; so do we.
    def push(self, path):
        return None

    def get(self, name, path):
        return None


class Pgcairn(Tool):
    """Ours: two workers."""

    name = "pgcairn"
    backup_paths = "c/bench/b"

    def __init__(self, machine, cluster):
        super().__init__(machine, cluster)
        self.config = self.home / "pgcairn.conf"
        self.program = machine.programs / "pgcairn"
        self.wal = machine.programs / "pgcairn-wal"
        self.archive_command = f"{self.wal} push --config {self.config} %p"

    def version(self):
        return self.machine.run(self.program, "--version").split("\n")[0].removeprefix("pgcairn ")

    def general(self):
        """Keys of [global]."""
        return {}

    def place(self):
        """Keys of [repository] that say where it is and what protects it."""
        return {"path": self.repository, "encryption": "none"}

    def set_up(self):
        sections = {"global": self.general(), "repository main": {**self.place(), "compression": "lz4"},
                    "cluster bench": {"conninfo": self.cluster.conninfo("pgcairn")}}
        self.machine.write(self.config, "".join(
            f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
            for section, keys in sections.items()))
        self.machine.run(self.program, "init", "--config", self.config)

    def take(self, kind):
        return f"{self.program} backup --config {self.config} --type={kind} --start-fast --jobs=2"

    def backup(self):
        return self.take("full")

    def incremental(self):
        return self.take("incr")

    def restore(self, target):
        return (f"{self.program} restore --config {self.config} --to {target} --type=none --as=clone"
                " --no-wal --jobs=2")

    def push(self, path):
        return f"{self.wal} push --config {self.config} {path}"

    def get(self, name, path):
        return f"{self.wal} get --config {self.config} --prefetch=0 {name} {path}"

    def begin_recovery(self):
        """Nothing of an earlier one lies ready."""
        return f"{self.wal} get --config {self.config} 00000099.history pg_wal/RECOVERYHISTORY || :"


class PgcairnElsewhere(Pgcairn):
    """Another repository of ours beside the first one."""

    def __init__(self, machine, cluster):
        super().__init__(machine, cluster)
        self.home = machine.work / "tools" / self.name.replace(",", "").replace(" ", "-")
        self.repository, self.config = self.home / "repository", self.home / "pgcairn.conf"
        self.archive_command = f"{self.wal} push --config {self.config} %p"


class PgcairnPrefetch(PgcairnElsewhere):
    """Ours, fetching ahead: the default of recovery."""

    name = "pgcairn, prefetch"

    def get(self, name, path):
        return f"{self.wal} get --config {self.config} {name} {path}"


class PgcairnFull(PgcairnElsewhere):
    """A second repository of ours, where every backup is a full one: what a chain is compared with."""

    name = "pgcairn, one full"

    def incremental(self):
        return None


class PgcairnBatch(Pgcairn):
    """push with a spool: what is ready goes along, two at a time."""

    def general(self):
        return {"spool-path": self.home / "spool"}


class PgcairnEncrypted(PgcairnElsewhere):
    """Encrypted, by a key file as a database host has one."""

    name = "pgcairn, encrypted"

    def place(self):
        key = self.home / "key"
        if not key.exists():
            self.machine.run(self.program, "key", "generate", key)
        return {"path": self.repository, "encryption": "key-file", "key-file": key}


class PgcairnS3(PgcairnElsewhere):
    """In a bucket of an S3 server on this machine, over TLS; another bucket each time."""

    name = "pgcairn, S3"

    def __init__(self, machine, cluster, store, endpoint=None):
        super().__init__(machine, cluster)
        self.store, self.endpoint = store, endpoint or store.endpoint
        self.bucket = None

    def place(self):
        store = self.store
        for name, text in (("access-key", store.key), ("secret-key", store.secret)):
            self.machine.write(self.home / name, text + "\n")
            (self.home / name).chmod(0o600)
        self.machine.write(self.home / "ca.pem", store.certificates.ca.read_text(encoding="ascii"))
        return {"type": "s3", "endpoint": self.endpoint, "bucket": self.bucket, "region": store.region,
                "uri-style": "path", "access-key-file": self.home / "access-key",
                "secret-key-file": self.home / "secret-key", "ca-file": self.home / "ca.pem",
                "encryption": "none", **({} if store.conditional_create else {"writers": "one"})}

    def set_up(self):
        self.empty_bucket()
        self.bucket = f"bench-{secrets.token_hex(6)}"
        self.store.client().make_bucket(self.bucket)
        super().set_up()

    def empty_bucket(self):
        """The server keeps objects in memory."""
        if self.bucket:
            client = self.store.client()
            for name in client.list(self.bucket):
                client.delete(self.bucket, name)
            self.bucket = None

    def stored_bytes(self):
        return sum(self.store.client().list(self.bucket).values())

    def remove(self):
        super().remove()
        self.empty_bucket()


class PgcairnS3OneByOne(PgcairnS3):
    """push as the archiver calls it, each segment by itself."""

    name = "pgcairn, S3 one by one"

    def push(self, path):
        return f"{self.wal} push --config {self.config} --no-batch {path}"


class PgcairnS3Parallel(PgcairnS3):
    """push with a spool: sixteen go along at a time."""

    name = "pgcairn, S3 16 parallel"

    def general(self):
        return {"spool-path": self.home / "spool", "jobs": 16}


class S3Floor(PgcairnS3):
    """The server alone: the files of a repository, sent by two threads that do nothing else."""

    name = "bare S3"

    def __init__(self, machine, cluster, store, files):
        super().__init__(machine, cluster, store)
        self.files = files

    def resume(self):
        pass

    def backup(self):
        put = pathlib.Path(__file__).resolve().parent / "put_files.py"
        return (f"/usr/bin/python3 {put} {self.endpoint} {self.store.region} {self.bucket} {self.home}"
                f" 2 {self.files}")


class PgBackRest(Tool):
    """The peer that DBAs know: lz4, two processes, small files bundled, block incremental."""

    name = "pgBackRest"
    backup_paths = "backup"

    def __init__(self, machine, cluster):
        super().__init__(machine, cluster)
        self.program = f"pgbackrest --config={self.home}/pgbackrest.conf --stanza=bench"
        self.archive_command = f"{self.program} archive-push %p"

    def version(self):
        return self.machine.run("pgbackrest", "version").split()[1]

    def settings(self):
        settings = {"repo1-path": self.repository, "repo1-bundle": "y", "compress-type": "lz4",
                    "process-max": 2, "start-fast": "y", "log-level-file": "off",
                    "log-level-console": "warn", "lock-path": self.home / "lock",
                    "spool-path": self.home / "spool", "expire-auto": "n"}
        if [int(part) for part in self.version().split(".")[:2]] >= [2, 46]:
            settings["repo1-block"] = "y"  # as its users would have it
        return settings

    def set_up(self):
        lines = ["[global]", *(f"{key}={value}" for key, value in self.settings().items()),
                 "[bench]", f"pg1-path={self.cluster.data}", f"pg1-socket-path={self.cluster.home}",
                 "pg1-port=5432", "pg1-user=postgres"]
        self.machine.write(self.home / "pgbackrest.conf", "\n".join(lines) + "\n")
        self.machine.run(*shlex.split(self.program), "stanza-create")

    def backup(self):
        return f"{self.program} --type=full backup"

    def incremental(self):
        return f"{self.program} --type=incr backup"

    def restore(self, target):
        return f"{self.program} --pg1-path={target} --type=none restore"

    def push(self, path):
        return f"{self.program} --pg1-path=\"$PWD\" archive-push {path}"

    def get(self, name, path):
        return f"{self.program} --pg1-path=\"$PWD\" archive-get {name} {path}"


class PgBackRestAsync(PgBackRest):
    """With its own queue ahead of recovery: as many segments as ours, two processes."""

    name = "pgBackRest, async"

    def __init__(self, machine, cluster):
        super().__init__(machine, cluster)
        self.home = machine.work / "tools" / "pgbackrest-async"
        self.repository = self.home / "repository"
        self.program = f"pgbackrest --config={self.home}/pgbackrest.conf --stanza=bench"
        self.archive_command = f"{self.program} archive-push %p"

    def get(self, name, path):
        return (f"{self.program} --archive-async --archive-get-queue-max=128MiB"
                f" --pg1-path=\"$PWD\" archive-get {name} {path}")

    def begin_recovery(self):
        return f"{self.program} stop --force; rm -rf {self.home}/spool; {self.program} start"


class PgBackRestAsyncPush(PgBackRestAsync):
    """archive-async for pushing, two processes."""

    def settings(self):
        return {**super().settings(), "archive-async": "y"}


class PgBasebackup(Tool):
    """PostgreSQL's own, compressing in the client as we do. Its restore is one by hand."""

    name = "pg_basebackup"

    def version(self):
        return self.machine.run(self.cluster.bin / "pg_basebackup", "--version").split()[2]

    def set_up(self):
        self.newest = 0  # backups are numbered; an incremental one needs all before it

    def take(self, number, more=""):
        return (f"{self.cluster.bin}/pg_basebackup -d '{self.cluster.conninfo()}' -c fast -X none"
                f" -Ft --compress=client-lz4 --no-password -D {self.repository}/{number} {more} 2>&1")

    def backup(self):
        return self.take(0)

    def incremental(self):
        if self.cluster.major < 17:
            return None
        self.newest += 1
        manifest = self.repository / str(self.newest - 1) / "backup_manifest"
        return self.take(self.newest, f"--incremental={manifest}")

    def unpack(self, number, to):
        taken = self.repository / str(number)
        return f"lz4 -dcq {taken}/base.tar.lz4 | tar -x -C {to} && cp {taken}/backup_manifest {to}"

    def restore(self, target):
        verified = f"{self.cluster.bin}/pg_verifybackup -q -n {target} && sync -f {target}"
        if self.newest == 0:
            return f"{self.unpack(0, target)} && {verified}"
        parts = [self.home / "parts" / str(number) for number in range(self.newest + 1)]
        steps = [f"rm -rf {self.home}/parts"]
        for number, part in enumerate(parts):
            steps += [f"mkdir -p {part}", self.unpack(number, part)]
        steps.append(f"{self.cluster.bin}/pg_combinebackup -o {target} "
                     + " ".join(map(str, parts)))
        return " && ".join([*steps, verified])


class Sink(Tool):
    """The protocol alone: the same stream, thrown away. The floor for any tool that uses it."""

    name = "bare protocol"

    def backup(self):
        return f"{self.machine.programs}/sink '{self.cluster.conninfo()} replication=true'"

    incremental = backup  # a stream is always of everything


class Copy(Tool):
    """cp, flushed before it is said to be there: no compression, no checks, no promises."""

    name = "cp"

    def push(self, path):
        name = pathlib.Path(path).name
        new, final = self.repository / f"{name}.tmp", self.repository / name
        return f"cp {path} {new} && sync {new} && mv {new} {final} && sync {self.repository}"

    def get(self, name, path):
        return f"cp {self.repository / name} {path}"
