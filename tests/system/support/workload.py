"""Random work on a cluster: what a year does to one, in a minute, and the same again for a seed."""

import collections
import itertools

SPACES = ("", "near", "ferne Räume")
CHECKPOINT_CHANCE = 0.5


class Table:
    """One table that the workload knows of."""

    def __init__(self, name, database, space, unlogged):
        self.name = name
        self.database = database
        self.space = space
        self.unlogged = unlogged
        self.indexed = False


class Workload:
    """Does steps on a running cluster; nothing but the seed decides which.

    At most a few databases and tables at a time, so that a cluster stays small however long it lives.
    """

    DATABASES, TABLES, LARGE_OBJECTS = 2, 10, 12

    def __init__(self, cluster, chance, new_place):
        self.cluster = cluster
        self.chance = chance
        self.numbers = itertools.count(1)
        self.new_place = new_place
        self.databases = ["postgres"]
        self.tables = []
        self.large_objects = []
        self.guest = None
        self.done = collections.Counter()

    def begin(self):
        """Frozen and checkpointed: replay's page images would hide what a backup loses."""
        for space in SPACES[1:]:
            self.add_space(space)
        self.cluster.pgbench("-i", "-q", "-s", "1", "-I", "dtg")
        self.cluster.sql("CREATE INDEX ON pgbench_accounts (aid)")
        for _ in range(4):
            self.create_table()
        self.write_large_object()
        self.cluster.sql("VACUUM FREEZE")
        self.cluster.sql("CHECKPOINT")

    def add_space(self, name):
        self.cluster.sql(f"CREATE TABLESPACE \"{name}\" LOCATION '{self.new_place()}'")

    # -- steps

    STEPS = {
        "pgbench": 3, "create_table": 3, "drop_table": 1, "drop_and_recreate": 2, "insert": 3,
        "update": 4, "delete": 2, "truncate_and_regrow": 3, "shrink_and_regrow": 4, "vacuum_full": 2,
        "cluster_table": 1, "move_table": 3, "move_database": 1, "switch_logged": 1,
        "write_large_object": 2, "unlink_large_object": 1, "build_index": 2, "reindex": 1,
        "create_database": 1, "drop_database": 1, "copy_in": 2, "come_and_go_space": 1,
        "restart": 1, "crash": 1, "abort": 2,
    }

    def step(self):
        """One random thing, and sometimes a checkpoint after it."""
        (name,) = self.chance.choices(list(self.STEPS), weights=self.STEPS.values())
        getattr(self, name)()
        self.done[name] += 1
        if self.chance.random() < CHECKPOINT_CHANCE:
            self.cluster.sql("CHECKPOINT")

    def pgbench(self):
        self.cluster.pgbench("-n", "-t", "40", "-c", "2", f"--random-seed={self.next_number()}")

    def create_table(self, name=None, database=None):
        if len(self.tables) >= self.TABLES:
            self.drop_table()
        table = Table(name or f"t{self.next_number()}",
                      database or self.chance.choice(self.databases), self.chance.choice(SPACES),
                      self.chance.random() < 0.15)
        place = f'TABLESPACE "{table.space}"' if table.space else ""
        self.sql(table, f"CREATE {'UNLOGGED' if table.unlogged else ''} TABLE {{}} "
                        f"(n int, body text, touched int DEFAULT 0) {place}")
        self.sql(table, "ALTER TABLE {} ALTER body SET STORAGE EXTERNAL")
        self.tables.append(table)
        self.fill(table)
        if self.chance.random() < 0.5:
            self.index(table)

    def drop_table(self):
        table = self.pick()
        self.sql(table, "DROP TABLE {}")
        self.tables.remove(table)
        return table

    def drop_and_recreate(self):
        """Under the same name; often the same file number comes back much later."""
        table = self.drop_table()
        self.create_table(table.name, table.database)

    def insert(self):
        self.fill(self.pick())

    def update(self):
        """Scattered rows, or a range of them."""
        table = self.pick()
        if self.chance.random() < 0.6:
            divisor = self.chance.choice((3, 17, 101))
            where = f"n % {divisor} = {self.chance.randrange(divisor)}"
        else:
            first = self.chance.randrange(3000)
            where = f"n BETWEEN {first} AND {first + 300}"
        self.sql(table, f"UPDATE {{}} SET touched = touched + 1, body = body || '+' WHERE {where}")

    def delete(self):
        table = self.pick()
        self.sql(table, f"DELETE FROM {{}} WHERE n % 5 = {self.chance.randrange(5)}")
        if self.chance.random() < 0.5:
            self.sql(table, "VACUUM {}")

    def truncate_and_regrow(self):
        table = self.pick()
        self.sql(table, "TRUNCATE {}")
        if self.chance.random() < 0.5:
            self.cluster.sql("CHECKPOINT")
        self.fill(table)

    def shrink_and_regrow(self):
        """What PostgreSQL's own incremental backup gets wrong: shorter, then longer again."""
        table = self.pick()
        self.sql(table, f"DELETE FROM {{}} WHERE ctid >= '({self.chance.randrange(1, 8)},0)'")
        self.sql(table, "VACUUM {}")
        if self.chance.random() < 0.7:
            self.cluster.sql("CHECKPOINT")
        (self.fill if self.chance.random() < 0.5 else self.copy_into)(table)

    def copy_in(self):
        self.copy_into(self.pick())

    def vacuum_full(self):
        self.sql(self.pick(), "VACUUM FULL {}")

    def cluster_table(self):
        table = self.pick()
        self.index(table)
        self.sql(table, "CLUSTER {} USING {}_n")

    def move_table(self):
        table = self.pick()
        table.space = self.chance.choice([space for space in SPACES if space != table.space])
        self.sql(table, f'ALTER TABLE {{}} SET TABLESPACE "{table.space or "pg_default"}"')

    def move_database(self):
        """Every file of a database at once, to and fro."""
        if len(self.databases) < 2:
            self.create_database()
            return
        name = self.databases[-1]
        space = self.cluster.value("SELECT spcname FROM pg_database d JOIN pg_tablespace t "
                                   "ON t.oid = d.dattablespace WHERE datname = %s", name)
        if self.cluster.value("SELECT count(*) FROM pg_class WHERE reltablespace NOT IN (0, 1664)",
                              database=name):
            return  # refused where something lies in the goal already
        target = "near" if space == "pg_default" else "pg_default"
        self.cluster.sql(f'ALTER DATABASE {name} SET TABLESPACE "{target}"')

    def switch_logged(self):
        table = self.pick()
        table.unlogged = not table.unlogged
        self.sql(table, f"ALTER TABLE {{}} SET {'UNLOGGED' if table.unlogged else 'LOGGED'}")

    def write_large_object(self):
        if len(self.large_objects) >= self.LARGE_OBJECTS or (
                self.large_objects and self.chance.random() < 0.4):
            oid = self.chance.choice(self.large_objects)
            self.cluster.sql("SELECT lo_put(%s, %s, convert_to(repeat('again', %s), 'UTF8'))", oid,
                             self.chance.randrange(30000), self.chance.randrange(1, 3000))
            return
        oid = 100000 + self.next_number()
        self.cluster.sql("SELECT lo_from_bytea(%s, convert_to(repeat('large', %s), 'UTF8'))", oid,
                         self.chance.randrange(20000))
        self.large_objects.append(oid)

    def unlink_large_object(self):
        if self.large_objects:
            oid = self.large_objects.pop(self.chance.randrange(len(self.large_objects)))
            self.cluster.sql("SELECT lo_unlink(%s)", oid)

    def build_index(self):
        table = self.pick()
        how = self.chance.choice(("", "CONCURRENTLY"))
        number = self.next_number()
        self.sql(table, f"CREATE INDEX {how} x{number} ON {{}} (touched, n)")
        if self.chance.random() < 0.5:
            self.sql(table, f"DROP INDEX x{number}")

    def reindex(self):
        self.sql(self.pick(), "REINDEX TABLE {}")

    def create_database(self):
        if len(self.databases) >= self.DATABASES:
            self.drop_database()
        name = f"d{self.next_number()}"
        strategy = self.chance.choice(("wal_log", "file_copy"))
        self.cluster.sql(f"CREATE DATABASE {name} STRATEGY {strategy}")
        self.databases.append(name)
        self.create_table(database=name)

    def drop_database(self):
        if len(self.databases) > 1:
            name = self.databases.pop()
            self.cluster.sql(f"DROP DATABASE {name}")
            self.tables = [table for table in self.tables if table.database != name]

    def come_and_go_space(self):
        """A tablespace, with a table in it, that some backups have and others not."""
        if self.guest:
            table, space = self.guest
            self.sql(table, "DROP TABLE {}")
            self.cluster.sql(f"DROP TABLESPACE {space}")
            self.guest = None
            return
        space = f"space{self.next_number()}"
        self.add_space(space)
        table = Table(f"t{self.next_number()}", "postgres", space, False)
        self.sql(table, f"CREATE TABLE {{}} TABLESPACE {space} AS SELECT n FROM generate_series(1, 999) n")
        self.guest = table, space

    def restart(self):
        self.cluster.restart()

    def crash(self):
        """Unlogged tables are emptied, as after a real one."""
        self.cluster.stop("immediate")
        self.cluster.start()

    def abort(self):
        """Files and rows that nobody owns, and a file that goes at the rollback."""
        connection = self.cluster.connect()
        connection.autocommit = False
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE aborted AS SELECT n FROM generate_series(1, 2000) n")
            cursor.execute("UPDATE pgbench_branches SET bbalance = -1")
        connection.rollback()
        connection.close()

    def rewrite_everything(self):
        for database in self.databases:
            self.cluster.sql("VACUUM FULL", database=database)

    # -- parts of steps

    def next_number(self):
        return next(self.numbers)

    def pick(self):
        if not self.tables:
            self.create_table()
        return self.chance.choice(self.tables)

    def sql(self, table, statement):
        self.cluster.sql(statement.replace("{}", table.name), database=table.database)

    def rows(self):
        return self.chance.choice((1, 50, 700, 3000)), self.chance.choice((3, 40, 300))

    def fill(self, table):
        """Rows by insertion; a few of them so wide that they are stored out of line."""
        count, width = self.rows()
        first = self.chance.randrange(3000)
        self.sql(table, f"INSERT INTO {{}} SELECT i, repeat(chr(97 + i % 26), {width}) || "
                        f"CASE WHEN i % 500 = 7 THEN repeat(md5(i::text), 200) ELSE '' END "
                        f"FROM generate_series({first}, {first + count}) i")

    def copy_into(self, table):
        """COPY extends a relation by many pages at once, which 16 and newer do not log unless used."""
        count, width = self.rows()
        lines = "".join(f"{number}\t{'y' * width}\t-1\n" for number in range(count))
        self.cluster.script(f"COPY {table.name} FROM STDIN;\n{lines}\\.\n", database=table.database)

    def index(self, table):
        if not table.indexed:
            self.sql(table, "CREATE INDEX {}_n ON {} (n)")
            table.indexed = True
