/* What the server says, as errors of ours: kinds by SQLSTATE, one line of text. */
#include "postgres/connection_intern.h"

#include "common/cancel.h"

#include <stdio.h>
#include <string.h>

enum { SQLSTATE_LENGTH = 5 };

void
connection_flatten(char *text_out, size_t capacity, const char *text)
{
    size_t at = 0;
    for (const char *next = text; *next != '\0' && at + 3 < capacity; next++) {
        if (*next != '\n') {
            text_out[at++] = *next == '\t' ? ' ' : *next;
        } else if (next[1] != '\0') {
            text_out[at++] = ';';
            text_out[at++] = ' ';
        }
    }
    text_out[at] = '\0';
}

static bool
state_is(const char *sqlstate, const char *prefix)
{
    return strncmp(sqlstate, prefix, strlen(prefix)) == 0;
}

/* What a caller may do about an SQLSTATE. */
static CairnErrorKind
kind_of_sqlstate(const char *sqlstate)
{
    static const struct {
        const char *prefix;
        CairnErrorKind kind;
    } KINDS[] = {
        {"57P", CAIRN_UNAVAILABLE}, /* shutdown, crash, still starting */
        {"08", CAIRN_UNAVAILABLE},
        {"53300", CAIRN_UNAVAILABLE}, /* too many connections or walsenders */
        {"53200", CAIRN_UNAVAILABLE},
        {"53100", CAIRN_NO_SPACE},
        {"28", CAIRN_DENIED},
        {"42501", CAIRN_DENIED},
        {"3D000", CAIRN_USAGE}, /* no such database */
        {"0A000", CAIRN_UNSUPPORTED},
        {"42883", CAIRN_UNSUPPORTED}, /* a function that this version lacks */
        {"55", CAIRN_REFUSED},        /* not in prerequisite state: promoted meanwhile, busy */
        {"58", CAIRN_IO},
        {"XX001", CAIRN_CORRUPT},
        {"XX002", CAIRN_CORRUPT},
    };
    if (state_is(sqlstate, "57014"))
        return cancel_requested() ? CAIRN_CANCELLED : CAIRN_UNAVAILABLE;
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        if (state_is(sqlstate, KINDS[i].prefix))
            return KINDS[i].kind;
    }
    return CAIRN_INTERNAL;
}

bool
connection_result_error(Connection *connection, const PGresult *result, const char *what,
                        CairnError *err)
{
    char line[CAIRN_ERROR_MESSAGE_SIZE / 2];
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (sqlstate == NULL) {
        PGconn *libpq = connection->libpq;
        const char *message = libpq != NULL ? PQerrorMessage(libpq) : "the connection is closed";
        if (PQresultStatus(result) == PGRES_FATAL_ERROR && result != NULL)
            message = PQresultErrorMessage(result);
        connection_flatten(line, sizeof line, message);
        const bool lost = libpq == NULL || PQstatus(libpq) == CONNECTION_BAD;
        return cairn_error(err, lost ? CAIRN_UNAVAILABLE : CAIRN_INTERNAL, "%s: %s", what, line);
    }

    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
    const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
    connection_flatten(line, sizeof line, primary != NULL ? primary : "");
    cairn_error(err, kind_of_sqlstate(sqlstate), "%s: %s", what, line);
    snprintf(err->sqlstate, sizeof err->sqlstate, "%.5s", sqlstate);
    if (detail != NULL || hint != NULL) {
        char text[CAIRN_ERROR_HINT_SIZE];
        snprintf(text, sizeof text, "%s%s%s", detail != NULL ? detail : "",
                 detail != NULL && hint != NULL ? "\n" : "", hint != NULL ? hint : "");
        connection_flatten(line, sizeof line, text);
        cairn_error_hint(err, "%s", line);
    }
    return false;
}

/*
 * libpq keeps no SQLSTATE of a failed connection attempt, and messages are translated; in verbose
 * mode the text has it after the severity: "FATAL:  28000: no pg_hba.conf entry". Takes it out of
 * the text.
 */
static bool
take_sqlstate(char *text, char sqlstate_out[SQLSTATE_LENGTH + 1])
{
    static const char DIGITS[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (char *at = strstr(text, ":  "); at != NULL; at = strstr(at + 1, ":  ")) {
        const char *state = at + 3;
        if (strspn(state, DIGITS) == SQLSTATE_LENGTH &&
            strncmp(state + SQLSTATE_LENGTH, ": ", 2) == 0) {
            memcpy(sqlstate_out, state, SQLSTATE_LENGTH);
            sqlstate_out[SQLSTATE_LENGTH] = '\0';
            memmove(at + 3, state + SQLSTATE_LENGTH + 2, strlen(state + SQLSTATE_LENGTH + 2) + 1);
            return true;
        }
    }
    return false;
}

bool
connection_connect_error(PGconn *libpq, CairnError *err)
{
    char text[CAIRN_ERROR_MESSAGE_SIZE];
    char sqlstate[SQLSTATE_LENGTH + 1] = "";
    snprintf(text, sizeof text, "%s", PQerrorMessage(libpq));
    const bool has_state = take_sqlstate(text, sqlstate);
    char *location = strstr(text, "\nLOCATION:  ");
    if (location != NULL)
        *location = '\0';

    char line[CAIRN_ERROR_MESSAGE_SIZE];
    connection_flatten(line, sizeof line, text);
    CairnErrorKind kind = has_state ? kind_of_sqlstate(sqlstate) : CAIRN_UNAVAILABLE;
    if (PQconnectionNeedsPassword(libpq))
        kind = CAIRN_DENIED;
    cairn_error(err, kind, "unable to connect: %s", line);
    memcpy(err->sqlstate, sqlstate, sizeof sqlstate);
    if (kind == CAIRN_DENIED) {
        cairn_error_hint(err,
                         "`pgcairn init --print` shows the role and the pg_hba.conf lines that "
                         "pgcairn needs; passwords belong in a passfile (~/.pgpass)");
    }
    return false;
}
