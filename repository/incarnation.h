/*
 * Incarnations: the (system identifier, major version) pairs that a cluster has had. A WAL file or
 * backup of any other pair is refused: that is the guard against a wrong server.
 */
#ifndef PGCAIRN_REPOSITORY_INCARNATION_H
#define PGCAIRN_REPOSITORY_INCARNATION_H

#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { INCARNATION_NAME_SIZE = 32, INCARNATION_LIMIT = 64 };

typedef struct {
    uint64_t system_id;
    int major;
    uint32_t wal_segment_size;
    bool data_checksums;
    int64_t created_us; /* when read */
} Incarnation;

/* "<system id, 16 hex>-<major>" */
void incarnation_name(char name[INCARNATION_NAME_SIZE], uint64_t system_id, int major);
/* Idempotent; CONFLICT when it is recorded with another segment size. */
bool incarnation_record(Repository *repository, const char *cluster, const Incarnation *incarnation,
                        CairnError *err) MUST_CHECK;
/* NOT_FOUND when this cluster of the repository never was that system. */
bool incarnation_get(Repository *repository, const char *cluster, uint64_t system_id, int major,
                     Incarnation *incarnation_out, CairnError *err) MUST_CHECK;
/* Oldest first. */
bool incarnation_list(Repository *repository, const char *cluster,
                      Incarnation incarnations_out[INCARNATION_LIMIT], size_t *count_out,
                      CairnError *err) MUST_CHECK;

#endif
