/*
 * What a create-only connection may do: the rule that keeps a stolen database host from deleting or
 * overwriting anything.
 *
 * Reading and listing: the descriptor, `keys/`, and what is below `c/<cluster>/` of the named
 * clusters; listings of the root and of `c` show no more than that. Creating: below `c/<cluster>/`,
 * what backup, push, restore and verify write. Not what lets go of something: marks (expire, keep,
 * release), condemn lists, doomed objects; nor evidence of damage, which takes a backup out of what
 * retention counts; nor the recovery index, which readers believe; nor descriptor and keys.
 * Removing: only pins that this very connection created. Nothing that was there before it began.
 * Sweeping and pruning: nothing; temporary files are the server's own, and the repository host's
 * collect removes what crashed connections left.
 *
 * Threads: one policy, any threads. Errors: DENIED, naming what to do instead.
 */
#ifndef PGCAIRN_STORAGE_SERVE_POLICY_H
#define PGCAIRN_STORAGE_SERVE_POLICY_H

#include "common/error.h"
#include "common/scoped.h"

#include <stddef.h>

typedef struct ServePolicy ServePolicy;

typedef enum { SERVE_READ, SERVE_LIST, SERVE_CREATE, SERVE_REMOVE, SERVE_SWEEP } ServeAct;

/* clusters: names, borrowed as long as the policy lives; host: for messages, likewise. */
ServePolicy *serve_policy_new(const char *const *clusters, size_t count, const char *host,
                              CairnError *err) MUST_CHECK;
void serve_policy_free(ServePolicy *policy);
SCOPED_TYPE(ServePolicy, serve_policy_free);

/* policy NULL: everything is allowed. name is a valid one, or "" for the root. */
bool serve_policy_check(ServePolicy *policy, ServeAct act, const char *name,
                        CairnError *err) MUST_CHECK;
/* Whether a listing of prefix shows the entry (its last component). */
bool serve_policy_shows(const ServePolicy *policy, const char *prefix, const char *entry);
/* After a commit: pins are remembered, so that this connection may remove them. */
void serve_policy_note_created(ServePolicy *policy, const char *name);

#endif
