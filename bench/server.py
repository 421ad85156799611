"""The clusters that are backed up: a large one, a small one, those of many small files."""

import glob
import pathlib
import time

# Settings for runs that repeat: no autovacuum, no checkpoint but ours.
SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{socket}'
shared_buffers = {shared_buffers}
max_wal_size = 8GB
min_wal_size = 1GB
checkpoint_timeout = 1h
autovacuum = off
synchronous_commit = off
maintenance_work_mem = 512MB
max_locks_per_transaction = 256
wal_level = replica
archive_mode = on
archive_command = '/bin/true'
"""

# Like an application's: a wide row of JSON and text that compresses to a third, four indexes.
DOCUMENTS = """
SELECT setseed(0.15);
CREATE TABLE documents (id bigint, token uuid, changed timestamptz, content jsonb, remark text);
INSERT INTO documents
SELECT n, md5(random()::text)::uuid, timestamptz '2024-01-01' + random() * interval '2 years',
       jsonb_build_object('account', (random() * 1e6)::int, 'signature', md5(random()::text),
                          'amount', round((random() * 5000)::numeric, 2),
                          'state', (array['open', 'held', 'sent', 'done'])[1 + n % 4],
                          'items', jsonb_build_array(
                              jsonb_build_object('article', (random() * 50000)::int, 'pieces', n % 7),
                              jsonb_build_object('article', (random() * 50000)::int, 'pieces', n % 5))),
       (SELECT string_agg((array['on', 'receipt', 'of', 'goods', 'we', 'ask', 'that', 'each', 'crate',
                                 'be', 'weighed', 'and', 'signed', 'for', 'harbour', 'winter', 'seven',
                                 'quiet', 'letter', 'stone'])[1 + (random() * 19)::int], ' ')
          FROM generate_series(1, 20 + n % 8))
  FROM generate_series(1, {rows}) n;
ALTER TABLE documents ADD PRIMARY KEY (id);
CREATE INDEX ON documents (token);
CREATE INDEX ON documents (changed);
CREATE INDEX ON documents ((content ->> 'signature'));
"""

# One row in each, and no index: a file of one page, thirty thousand times.
RELATIONS = """
DO $$ BEGIN
    FOR n IN {first}..{last} LOOP
        EXECUTE format('CREATE TABLE relation_%s AS SELECT %s AS n', n, n);
    END LOOP;
END $$;
"""
RELATIONS_A_TRANSACTION = 1000

# Other rows in every round; a hundredth of them. The index on changed makes other pages of all indexes.
SHARE = 100
CHANGES = {
    "random": "(hashint8({key}) & 1048575) % {share} = {number}",
    "local": "{key} > {rows} / 10 + {rows} / {share} * {number}"
             " AND {key} <= {rows} / 10 + {rows} / {share} * ({number} + 1)",
}
CHANGE = """
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE {accounts};
UPDATE documents SET changed = now() WHERE {documents};
"""

# Names that no relation has: what the server sends as relation files and knows nothing about.
FIRST_FILE = 3000000000
PAGES_TO_COPY = 256


def newest_installed():
    found = glob.glob("/usr/lib/postgresql/*/bin/postgres")
    if not found:
        raise SystemExit("bench: no PostgreSQL server installed")
    return max(int(path.split("/")[4]) for path in found)


class Cluster:
    """One data directory; its server runs between start and stop."""

    def __init__(self, machine, name, major, shared_buffers="1GB"):
        self.machine, self.name, self.major = machine, name, major
        self.bin = pathlib.Path(f"/usr/lib/postgresql/{major}/bin")
        self.home = machine.directory(machine.work / "clusters" / name)
        self.data, self.log = self.home / "data", self.home / "log"
        self.shared_buffers = shared_buffers

    def conninfo(self, user="postgres"):
        return f"host={self.home} port=5432 user={user} dbname=postgres"

    # -- making

    def made(self, recipe):
        """Whether an earlier run, with --keep, left the cluster of this recipe."""
        stamp = self.home / "recipe"
        return stamp.exists() and stamp.read_text(encoding="utf-8") == recipe

    def create(self, recipe, fill):
        """A new cluster, or the one that is there; fill(self) puts the data in."""
        if self.made(recipe):
            self.start()
            return self
        self.machine.directory(self.home, empty=True)
        self.machine.run(self.bin / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust",
                         "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8")
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write(SETTINGS.format(socket=self.home, shared_buffers=self.shared_buffers))
        self.start()
        role = pathlib.Path(__file__).resolve().parents[1] / "sql" / "role.sql"
        self.sql(role.read_text(encoding="utf-8"))
        fill(self)
        self.sql("VACUUM (FREEZE, ANALYZE)")
        self.sql("CHECKPOINT")
        self.machine.write(self.home / "recipe", recipe)
        return self

    def copy(self, other):
        """Becomes what a stopped cluster is, to be changed as one likes; keeps WAL summaries too."""
        self.machine.directory(self.home, empty=True)
        self.machine.run("cp", "-a", other.data, self.data)
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write(f"unix_socket_directories = '{self.home}'\n")
            if self.major >= 17:
                conf.write("summarize_wal = on\n")
        self.start()
        self.sql("CHECKPOINT")
        return self

    def fill_pgbench(self, scale):
        self.machine.run(self.bin / "pgbench", "-i", "-q", "-s", scale, self.conninfo())

    def fill_documents(self, rows):
        self.sql(DOCUMENTS.format(rows=rows))

    def fill_relations(self, count):
        for first in range(1, count + 1, RELATIONS_A_TRANSACTION):
            last = min(first + RELATIONS_A_TRANSACTION - 1, count)
            self.sql(RELATIONS.format(first=first, last=last))

    def fill_files(self, count):
        """Digit-named files in a database's directory, in turn of one real page and empty."""
        self.fill_relations(PAGES_TO_COPY)
        self.sql("CHECKPOINT")
        pages = self.relation_pages()
        self.write_files((number, b"" if number % 2 else pages[number // 2 % len(pages)])
                         for number in range(count))

    def change_files(self, count, number):
        """A hundredth of the files of one page, in every round other ones, get another's page."""
        pages = self.relation_pages()
        self.write_files((file, pages[(file // 2 + 1) % len(pages)])
                         for file in range(2 * number, count, 2 * SHARE))

    def relation_pages(self):
        paths = self.sql("SELECT pg_relation_filepath(oid) FROM pg_class"
                         " WHERE relname ~ '^relation_' ORDER BY oid").split()
        return [(self.data / path).read_bytes() for path in paths]

    def write_files(self, contents):
        oid = self.sql("SELECT oid FROM pg_database WHERE datname = 'postgres'")
        for number, content in contents:
            path = f"{self.data}/base/{oid}/{FIRST_FILE + number}"
            with open(path, "wb") as file:
                file.write(content)
            self.machine.own(path)

    # -- changing

    def change(self, where, number):
        """A hundredth of the rows, at random or in one place; round by round other ones."""
        conditions = {}
        for table, key in (("accounts", "aid"), ("documents", "id")):
            name = "pgbench_accounts" if table == "accounts" else table
            rows = self.sql(f"SELECT max({key}) FROM {name}")
            conditions[table] = CHANGES[where].format(key=key, rows=rows, share=SHARE, number=number)
        self.sql(CHANGE.format(**conditions))

    def settle(self):
        """All changes are in the files, and summarised where WAL is."""
        self.sql("CHECKPOINT")
        if self.major < 17 or self.sql("SHOW summarize_wal") != "on":
            return
        behind = ("SELECT summarized_lsn < redo_lsn"
                  "  FROM pg_get_wal_summarizer_state(), pg_control_checkpoint()")
        deadline = time.monotonic() + 120
        while self.sql(behind) == "t" and time.monotonic() < deadline:
            time.sleep(0.1)

    # -- running

    def start(self):
        self.machine.run(self.bin / "pg_ctl", "-D", self.data, "-w", "-t", 300, "-s",
                         "-l", self.log, "start")

    def stop(self):
        if self.pid() is not None:
            self.machine.run(self.bin / "pg_ctl", "-D", self.data, "-w", "-s", "-m", "fast", "stop")

    def pid(self):
        try:
            text = (self.data / "postmaster.pid").read_text(encoding="utf-8")
            return int(text.split("\n", maxsplit=1)[0])
        except (FileNotFoundError, ValueError):
            return None

    def sql(self, text):
        return self.machine.run(self.bin / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1",
                                self.conninfo(), stdin=text).strip()

    def load(self, seconds):
        self.machine.run(self.bin / "pgbench", "-n", "-c", 4, "-T", seconds, self.conninfo())

    # -- archiving

    def archive_with(self, command):
        """From now on; returns when all that was written before has gone through it."""
        quoted = command.replace("'", "''")
        self.sql(f"ALTER SYSTEM SET archive_command = '{quoted}';")
        self.sql("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 60
        while self.sql("SHOW archive_command") != command and time.monotonic() < deadline:
            time.sleep(0.02)
        self.sql("SELECT pg_create_restore_point('bench'); SELECT pg_switch_wal()")
        self.wait_archived(command)

    def wait_archived(self, command):
        status = self.data / "pg_wal" / "archive_status"
        deadline = time.monotonic() + 120
        while any(path.suffix == ".ready" for path in status.iterdir()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"WAL does not reach the archive with: {command}")
            time.sleep(0.05)
