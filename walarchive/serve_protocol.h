/*
 * What the archive module and its helper process (`pgcairn-wal serve`) say to each other over one
 * stream socket, which is the helper's standard input and output. Constants only: the module is
 * compiled against PostgreSQL's headers and links nothing of ours.
 *
 *     helper, once it is ready:  "pgcairn-wal serve 1\n"
 *     module, for each file:     "<serial> <path>\n"
 *     helper, one answer each:   "<serial> done|failed <message bytes> <hint
 * bytes>\n<message><hint>"
 *
 * One request at a time. The serial counts from 1; an answer to another one than the last request
 * ends the connection. `done` means durable. A path has no line break; it is PostgreSQL's %p,
 * relative to the data directory, which is the helper's current directory. The end of its input
 * tells the helper to end; the end of the helper tells the module that an open request failed.
 */
#ifndef PGCAIRN_WALARCHIVE_SERVE_PROTOCOL_H
#define PGCAIRN_WALARCHIVE_SERVE_PROTOCOL_H

#define SERVE_HELLO "pgcairn-wal serve 1"
#define SERVE_DONE "done"
#define SERVE_FAILED "failed"

enum {
    SERVE_LINE_LIMIT = 1200, /* of a request's or an answer's line, its line break included */
    SERVE_PATH_LIMIT = 1024,
    SERVE_MESSAGE_LIMIT = 2048,
    SERVE_HINT_LIMIT = 1024,
};

#endif
