/*
 * A server that sends nothing of a base backup for a while: is it slow, or gone?
 *
 * Asked over a new connection: a server that is out of reach ends the backup, so does one (a
 * failover may have put another in its place) that does not run our walsender any more, or whose
 * walsender has been waiting for us twice in a row, while nothing arrives here. A server that
 * answers and is busy (a spread checkpoint) is waited for without limit. Threads: one thread.
 */
#ifndef PGCAIRN_AGENT_SERVER_SILENCE_H
#define PGCAIRN_AGENT_SERVER_SILENCE_H

#include "postgres/connection.h"

typedef struct {
    const char *conninfo;
    int walsender_pid; /* 0: not visible, as behind a pooler */
    bool is_stuck;     /* the last time it waited for us to read */
} ServerSilence;

/* replication: that the backup will come over; server: another connection, to see its process by.
   silence is borrowed until the replication connection is closed. */
bool server_silence_watch(ServerSilence *silence, const char *conninfo, int timeout_s,
                          Connection *server, Connection *replication, CairnError *err) MUST_CHECK;

#endif
