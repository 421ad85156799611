"""Is it the same cluster? Digests of every table, and PostgreSQL's own checkers."""

from support.cluster import pg_bin
from support.process import must

TABLES = """
    SELECT format('%I.%I', n.nspname, c.relname), c.relpersistence
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm') AND c.relpersistence IN ('p', 'u')
       AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
     ORDER BY 1"""

# Sums do not depend on the order of rows; numeric does not overflow.
DIGEST = "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text FROM ONLY {} t"

LARGE_OBJECTS = """
    SELECT count(*), coalesce(sum(hashtextextended(object.text, 0)::numeric), 0)::text
      FROM (SELECT loid::text || md5(string_agg(data, '' ORDER BY pageno)) AS text
              FROM pg_largeobject GROUP BY loid) object"""

# Without their values: they are not transactional, and the server logs them ahead.
SEQUENCES = "SELECT schemaname || '.' || sequencename FROM pg_sequences ORDER BY 1"

INDEXES = """
    SELECT indexrelid::regclass::text, indisvalid FROM pg_index
     WHERE indexrelid >= 16384 AND indrelid >= 16384 ORDER BY 1"""

DATABASES = "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1"


def digest_database(cluster, database):
    connection = cluster.connect(database)
    try:
        with connection.cursor() as cursor:
            def rows(statement):
                cursor.execute(statement)
                return cursor.fetchall()

            digest = {}
            for table, persistence in rows(TABLES):
                kind = "unlogged" if persistence == "u" else "table"
                digest[f"{kind} {table}"] = rows(DIGEST.format(table))[0]
            digest["large objects"] = rows(LARGE_OBJECTS)[0]
            digest["sequences"] = rows(SEQUENCES)
            digest["indexes"] = dict(rows(INDEXES))
            return digest
    finally:
        connection.close()


def digest(cluster):
    """What every table of every database holds, whatever the order of its rows."""
    return {name: digest_database(cluster, name) for (name,) in cluster.sql(DATABASES)}


def after_restore(expected):
    """The same digest once recovery has emptied the unlogged tables."""
    return {database: {name: (0, "0") if name.startswith("unlogged ") else value
                       for name, value in tables.items()}
            for database, tables in expected.items()}


def verify_backup(data, wal=True):
    """pg_verifybackup, before the first start; with the WAL that makes it consistent, if laid down."""
    options = [] if wal else ["--no-parse-wal"]
    return must(pg_bin() / "pg_verifybackup", *options, data)


def check_checksums(data):
    """pg_checksums, on a server that was stopped cleanly."""
    return must(pg_bin() / "pg_checksums", "--check", "-D", data)


def check_tables(cluster):
    """pg_amcheck of every database: heaps against their indexes."""
    must(pg_bin() / "pg_amcheck", "--all", "--install-missing", "--heapallindexed",
         "-h", cluster.directory, "-p", 5432, "-U", "postgres", timeout=600)
