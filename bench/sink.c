/*
 * sink CONNINFO
 *
 * Asks the server for the same base backup as pgcairn does and drops every byte: what the protocol
 * alone costs, which no tool that uses it can undercut.
 */
#include <libpq-fe.h>
#include <stdio.h>

static const char BASE_BACKUP[] =
    "BASE_BACKUP (LABEL 'sink', CHECKPOINT 'fast', WAIT false, VERIFY_CHECKSUMS true,"
    " MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C')";

/* Of one COPY; -1 when it broke off. */
static long long
drop_copy(PGconn *connection)
{
    long long bytes = 0;
    char *data;
    int size;

    while ((size = PQgetCopyData(connection, &data, 0)) > 0) {
        bytes += size;
        PQfreemem(data);
    }
    return size == -1 ? bytes : -1;
}

/* A backup is several results: where it starts, tablespaces, the stream, where it ends. */
static long long
drop_backup(PGconn *connection)
{
    long long bytes = 0;
    PGresult *result;

    if (!PQsendQuery(connection, BASE_BACKUP))
        return -1;
    while ((result = PQgetResult(connection)) != NULL) {
        const ExecStatusType status = PQresultStatus(result);
        PQclear(result);
        if (status == PGRES_COPY_OUT) {
            const long long dropped = drop_copy(connection);
            if (dropped < 0)
                return -1;
            bytes += dropped;
        } else if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
            return -1;
        }
    }
    return bytes;
}

int
main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: sink CONNINFO\n");
        return 2;
    }
    PGconn *connection = PQconnectdb(argv[1]);
    const long long bytes = PQstatus(connection) == CONNECTION_OK ? drop_backup(connection) : -1;
    if (bytes < 0)
        fprintf(stderr, "sink: %s", PQerrorMessage(connection));
    else
        printf("%lld bytes\n", bytes);
    PQfinish(connection);
    return bytes < 0;
}
