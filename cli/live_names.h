/*
 * What a wish names in the running server, for `targets`: a table that is still there was not
 * dropped.
 *
 * A server that cannot be asked is no error: *known_out is false then, and a line in the log says
 * why. Threads: one thread.
 */
#ifndef PGCAIRN_CLI_LIVE_NAMES_H
#define PGCAIRN_CLI_LIVE_NAMES_H

#include "restore/names.h"

bool live_names_find(const char *conninfo, const NameWish *wish, NamedFiles *files_out,
                     uint64_t *system_id_out, bool *known_out, CairnError *err) MUST_CHECK;

#endif
