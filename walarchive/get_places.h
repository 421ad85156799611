/*
 * The repositories that a WAL file may come from, nearest first. Each is opened when it is first
 * asked; with one that has the file, those behind it are never touched.
 *
 * A file comes from the first that has it whole; one that is out of reach, or whose copy is
 * damaged, hands over to the next. It is absent only when every one of them has answered so.
 * Where repositories hold different histories of a file's timeline, nobody can tell which of them
 * recovery is on: CORRUPT, and none is taken.
 *
 * Threads: a GetPlaces belongs to one thread; get_places_share gives another one its own.
 */
#ifndef PGCAIRN_WALARCHIVE_GET_PLACES_H
#define PGCAIRN_WALARCHIVE_GET_PLACES_H

#include "common/config.h"
#include "postgres/control.h"
#include "repository/wal_store.h"

typedef struct {
    const RepositoryConfig *config;
    Repository *repository;
    bool borrowed; /* the repository is another GetPlaces's */
    Incarnation incarnation;
    WalStore *store; /* NULL: not opened yet, or out of reach */
} GetPlace;

typedef struct {
    const World *world;
    const char *cluster;
    const ControlFile *control; /* whose WAL */
    GetPlace places[CONFIG_REPOSITORIES_LIMIT];
    size_t count;
} GetPlaces;

/* Opens nothing. All borrowed. */
void get_places_init(GetPlaces *places, const World *world,
                     const RepositoryConfig *const *repositories, size_t count, const char *cluster,
                     const ControlFile *control);
/* The same for another thread: repositories that are open are shared. */
void get_places_share(const GetPlaces *places, GetPlaces *other_out);
void get_places_close(GetPlaces *places);
#define SCOPED_GET_PLACES __attribute__((cleanup(get_places_close))) GetPlaces

/* The store of one of them, borrowed; NULL: out of reach, or it never was this system's. */
WalStore *get_places_store(GetPlaces *places, size_t index, CairnError *err) MUST_CHECK;

/* The whole file, verified, into fd. NOT_FOUND: all of them answered, and none has it. Else the
   trouble of the first that could not be asked. */
bool get_places_fetch(GetPlaces *places, const char *file_name, int fd, CairnError *err) MUST_CHECK;

#endif
