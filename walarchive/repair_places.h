/*
 * Places that may have WAL which the repository lacks. Private to repair.
 *
 * Errors: a place that cannot be opened is left out with its reason; one that does not have a file
 * says so, and what else goes wrong there is the reason for the next place. Threads: one.
 */
#ifndef PGCAIRN_WALARCHIVE_REPAIR_PLACES_H
#define PGCAIRN_WALARCHIVE_REPAIR_PLACES_H

#include "repository/wal_store.h"
#include "walarchive/repair.h"

typedef struct {
    const char *name;     /* for people */
    int fd;               /* of a directory; -1: a repository */
    const char *unproven; /* why nothing says that what is in the directory is this system's; NULL:
                             something does */
    Repository *repository;
    WalStore *store;
    Incarnation incarnation;
} RepairPlace;

typedef struct {
    const World *world;
    RepairPlace places[REPAIR_PLACES_LIMIT];
    size_t count;
} RepairPlaces;

/* Names go into the report. */
bool repair_places_open(const RepairOptions *options, const Incarnation *incarnation,
                        RepairReport *report, RepairPlaces *places_out, CairnError *err) MUST_CHECK;
void repair_places_close(RepairPlaces *places);

/* Copies the file to scratch_fd, from offset 0 on, which is emptied first. NOT_FOUND: not there. */
bool repair_place_copy(const RepairPlaces *places, const RepairPlace *place, const char *file_name,
                       uint64_t size_limit, int scratch_fd, CairnError *err) MUST_CHECK;

#endif
