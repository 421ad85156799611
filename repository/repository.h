/*
 * A repository: one storage prefix with one identity (descriptor `pgcairn.repo`).
 *
 * Ownership: a Repository owns its Storage. Threads: may be shared; keyed digests are made per
 * thread. Errors of opening: NOT_FOUND (no descriptor: wrong path or not initialised), UNSUPPORTED
 * (newer format), CORRUPT, MISMATCH, and storage errors.
 */
#ifndef PGCAIRN_REPOSITORY_REPOSITORY_H
#define PGCAIRN_REPOSITORY_REPOSITORY_H

#include "codec/codec.h"
#include "common/arena.h"
#include "common/config.h"
#include "common/digest.h"
#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"
#include "storage/storage.h"

#include <stdint.h>

enum { REPOSITORY_ID_SIZE = 16, REPOSITORY_FORMAT = 1, CLUSTER_NAME_LIMIT = 64 };

typedef struct Repository Repository;

/* Create the descriptor where none is. CONFLICT when there is one (it is then a repository
 * already). */
bool repository_init(const World *world, const RepositoryConfig *config,
                     CairnError *err) MUST_CHECK;

Repository *repository_open(const World *world, const RepositoryConfig *config,
                            CairnError *err) MUST_CHECK;
/* The same in any storage (taken, even on failure): for drivers other than posix, and for tests.
   create: write a descriptor first, CONFLICT when there is one. */
Repository *repository_open_storage(const World *world, const RepositoryConfig *config,
                                    Storage *storage, bool create, CairnError *err) MUST_CHECK;
void repository_close(Repository *repository);
/* For whoever keeps one open: false when its path leads elsewhere by now (moved, unmounted, made
   anew), so that it must be opened again. A repository of repository_open_storage has no path. */
bool repository_is_current(const Repository *repository);
SCOPED_TYPE(Repository, repository_close);

const World *repository_world(const Repository *repository);
Storage *repository_storage(const Repository *repository);
const uint8_t *repository_id(const Repository *repository); /* REPOSITORY_ID_SIZE bytes */
const RepositoryConfig *repository_config(const Repository *repository);

/* A codec as the configuration wants it. Returned owned. */
CodecContext *repository_codec(const Repository *repository, CairnError *err) MUST_CHECK;

/* Keyed digests of this repository (docs/format.md). Returned owned; one a thread. */
typedef enum { DIGEST_FINGERPRINT, DIGEST_MAP, DIGEST_WAL } RepositoryDigest;
KeyedDigest *repository_digest(const Repository *repository, RepositoryDigest purpose,
                               CairnError *err) MUST_CHECK;

bool cluster_name_valid(const char *name);

/* 16 hex digits of randomness and a NUL: tokens of writers and temporary things. */
bool random_token(const World *world, char token_out[17], CairnError *err) MUST_CHECK;

#endif
