/*
 * Where a timeline came from, as its stored history file tells. Three answers that are never taken
 * for each other: known, missing (NOT_FOUND), and there but unreadable (wal_history_is_unreadable).
 * Any other failure says nothing of the file.
 *
 * Timeline 1 began with the cluster: nobody reads a history of it, PostgreSQL neither.
 * Ownership: histories are returned owned, malloc'ed. Threads: as the store, one.
 */
#ifndef PGCAIRN_REPOSITORY_WAL_HISTORY_H
#define PGCAIRN_REPOSITORY_WAL_HISTORY_H

#include "postgres/timeline.h"
#include "repository/wal_store.h"

#include <stdbool.h>
#include <stdint.h>

TimelineHistory *wal_history_read(WalStore *store, uint32_t timeline, CairnError *err) MUST_CHECK;

/* The object is there, and tells nothing: its bytes are damaged, it is another object's content, of
   a format that we don't know, sealed (which a history never is), or its lines do not parse. */
bool wal_history_is_unreadable(CairnErrorKind kind);

/* "c/main/w/.../00000002/history": what a person has to look at. */
void wal_history_object(const WalStore *store, uint32_t timeline, char name[STORAGE_NAME_LIMIT]);

/* Those of a store that are there and unreadable: how many, and the first of them. */
typedef struct {
    size_t count;
    uint32_t timeline;
    char object[STORAGE_NAME_LIMIT];
    CairnError problem;
} WalHistoryTrouble;
bool wal_history_find_trouble(WalStore *store, WalHistoryTrouble *trouble_out,
                              CairnError *err) MUST_CHECK;

#endif
