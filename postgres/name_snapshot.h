/*
 * Which relation lies in which file, of every database that the role may connect to: read through
 * SQL, so that a file that WAL speaks of can be told by name later, and the reverse.
 *
 * What: one list of databases and one list of relations for each, in the text form of COPY
 * (name_reader.h reads them). A list that came whole ends with the line `\.`. Names are UTF-8, but
 * in databases of SQL_ASCII, whose bytes are taken as they are.
 * Memory: one row; lists go to the sink as they come.
 * Errors: a database that cannot be read is told to the sink, and is no error; only a signal, the
 * sink's own failure and a server that does not list its databases are. Threads: one thread.
 */
#ifndef PGCAIRN_POSTGRES_NAME_SNAPSHOT_H
#define PGCAIRN_POSTGRES_NAME_SNAPSHOT_H

#include "postgres/connection.h"

enum { NAME_ENTRY_SIZE = 32 };
/* Of the list of databases; the list of one database is "names/<oid>". */
#define NAME_DATABASES_ENTRY "names/databases"
void name_entry_format(char entry[NAME_ENTRY_SIZE], uint32_t database_oid);

typedef struct {
    /* begin, data..., end for each list. After a failure of the server in the middle a list ends
       without its last line. */
    bool (*begin)(void *context, const char *entry, CairnError *err);
    ConnectionSink *data;
    bool (*end)(void *context, CairnError *err);
    void (*unreadable)(void *context, const char *database, const char *why);
    void *context;
} NameSink;

/* server: open, of the same conninfo, which is used again for each database. only (may be NULL): of
   all databases, the one with this name. */
bool name_snapshot_read(const char *conninfo, Connection *server, const char *only,
                        const NameSink *sink, CairnError *err) MUST_CHECK;

#endif
