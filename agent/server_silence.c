#include "agent/server_silence.h"

#include "common/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* "" where there is no such process, else a '.' and what it waits for. */
static char *
ask_walsender(Connection *server, int pid, CairnError *err)
{
    char text[16];
    snprintf(text, sizeof text, "%d", pid);
    return connection_query_text(server,
                                 "SELECT coalesce((SELECT '.' || coalesce(wait_event, '') FROM "
                                 "pg_catalog.pg_stat_activity WHERE pid = $1::int), '')",
                                 (const char *const[]){text, NULL}, err);
}

/* "Too many connections" is an answer too. */
static bool
has_answered(const CairnError *err)
{
    return err->kind != CAIRN_UNAVAILABLE || strncmp(err->sqlstate, "53", 2) == 0;
}

static bool
say_lost(CairnError *err, int64_t silent_ms, const char *why)
{
    cairn_error(err, CAIRN_UNAVAILABLE,
                "the server sent nothing of the backup for %" PRId64 " s: %s", silent_ms / 1000,
                why);
    return cairn_error_hint(
        err, "run the backup again: what was received is used; server-timeout says how long a "
             "silence may last before the server is asked");
}

static bool
judge(ServerSilence *silence, const char *state, int64_t silent_ms, CairnError *err)
{
    if (silence->walsender_pid == 0)
        return true;
    if (state[0] == '\0')
        return say_lost(err, silent_ms,
                        "the server that answers does not send it any more (a failover, or a "
                        "connection that broke without a word)");
    const bool was_stuck = silence->is_stuck;
    silence->is_stuck = strcmp(state, ".ClientWrite") == 0;
    if (was_stuck && silence->is_stuck)
        return say_lost(err, silent_ms, "it sends, and nothing arrives");
    return true;
}

static bool
ask(void *context, int64_t silent_ms, CairnError *err)
{
    ServerSilence *silence = context;
    CairnError trouble = {0};
    SCOPED(Connection)
    server = connection_open(silence->conninfo, CONNECTION_SQL, "pgcairn backup", &trouble);
    SCOPED_MEMORY char *state =
        server != NULL ? ask_walsender(server, silence->walsender_pid, &trouble) : NULL;
    if (state != NULL)
        return judge(silence, state, silent_ms, err);
    if (!has_answered(&trouble))
        return say_lost(err, silent_ms, trouble.message);
    log_debug("the server is silent for %" PRId64 " s: %s", silent_ms / 1000, trouble.message);
    return true;
}

bool
server_silence_watch(ServerSilence *silence, const char *conninfo, int timeout_s,
                     Connection *server, Connection *replication, CairnError *err)
{
    const int pid = PQbackendPID(connection_libpq(replication));
    SCOPED_MEMORY char *state = ask_walsender(server, pid, err);
    if (state == NULL)
        return false;
    *silence = (ServerSilence){.conninfo = conninfo, .walsender_pid = state[0] != '\0' ? pid : 0};
    connection_watch_silence(
        replication, &(ConnectionSilence){
                         .limit_ms = (int64_t)timeout_s * 1000, .ask = ask, .context = silence});
    return true;
}
