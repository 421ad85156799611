"""What is measured. A tool answers with shell lines; None where it has no such thing to offer."""

import pathlib
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

    def backup_bytes(self):
        """What the repository holds, WAL left out: it is the same for all, and not the backup's."""
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

    def set_up(self):
        self.machine.write(self.config, f"[repository main]\npath = {self.repository}\n"
                                        "encryption = none\ncompression = lz4\n\n[cluster bench]\n"
                                        f"conninfo = {self.cluster.conninfo('pgcairn')}\n")
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
        return f"{self.wal} get --config {self.config} {name} {path}"


class PgcairnFull(Pgcairn):
    """A second repository of ours, where every backup is a full one: what a chain is compared with."""

    name = "pgcairn, one full"

    def __init__(self, machine, cluster):
        super().__init__(machine, cluster)
        self.home = machine.work / "tools" / "pgcairn-full"
        self.repository, self.config = self.home / "repository", self.home / "pgcairn.conf"
        self.archive_command = f"{self.wal} push --config {self.config} %p"

    def incremental(self):
        return None


class PgcairnBatch(Pgcairn):
    """push with a spool: what is ready goes along, two at a time."""

    def set_up(self):
        super().set_up()
        text = self.config.read_text(encoding="utf-8")
        self.machine.write(self.config, f"[global]\nspool-path = {self.home}/spool\n\n{text}")


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
    """archive-async, two processes."""

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
