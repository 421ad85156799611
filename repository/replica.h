/*
 * A replica: a copy of a repository under the same repository id, that nobody writes to but whoever
 * copies (copy.h), until it is promoted (docs/format.md, "Replica").
 *
 * Its descriptor bears the name `pgcairn.replica` instead of `pgcairn.repo`, with the same bytes.
 * So a repository that is none costs no look more to open, and whoever does not know of replicas
 * finds no repository. Promoting creates `pgcairn.repo` beside it: once, and for ever.
 *
 * Crash: before the descriptor is there the place is nothing; promoted is what has both.
 * Threads: as the storage.
 */
#ifndef PGCAIRN_REPOSITORY_REPLICA_H
#define PGCAIRN_REPOSITORY_REPLICA_H

#include "repository/repository.h"
#include "storage/storage.h"

#define REPLICA_DESCRIPTOR "pgcairn.replica"

/* What a place holds. */
typedef enum { PLACE_EMPTY, PLACE_REPOSITORY, PLACE_REPLICA } PlaceKind;
bool replica_look(Storage *storage, PlaceKind *kind_out, CairnError *err) MUST_CHECK;

/*
 * The replica as a repository that can be read: the descriptor under its usual name; whoever
 * creates or removes anything is REFUSED. Takes inner, which is closed with it; on failure not.
 */
Storage *replica_storage(Storage *inner, CairnError *err) MUST_CHECK;

/* REFUSED when the place holds no replica. *existed_out: it was promoted before. */
bool replica_promote(Storage *storage, bool *existed_out, CairnError *err) MUST_CHECK;

#endif
