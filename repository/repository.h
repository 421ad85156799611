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
#include "repository/keyring.h"
#include "storage/storage.h"

#include <stdint.h>

enum { REPOSITORY_ID_SIZE = 16, REPOSITORY_FORMAT = 1, CLUSTER_NAME_LIMIT = 64 };

#define DESCRIPTOR_NAME "pgcairn.repo"

/* Decided once, by init; keys: whoever has a key reads and writes; sealed: a host writes what only
   the holder of a private key reads. */
typedef enum { ENCRYPTION_NONE, ENCRYPTION_KEYS, ENCRYPTION_SEALED } Encryption;
const char *encryption_name(Encryption encryption); /* "none", "keys", "sealed" */

typedef struct Repository Repository;

/* Create the descriptor where none is. CONFLICT when there is one (it is then a repository
 * already). */
bool repository_init(const World *world, const RepositoryConfig *config,
                     CairnError *err) MUST_CHECK;

/* With the keys that the configuration names. DENIED "wrong key" when they are not the right ones;
   MISMATCH when the repository is not encrypted as the configuration says, or is another one than
   this host used before. */
Repository *repository_open(const World *world, const RepositoryConfig *config,
                            CairnError *err) MUST_CHECK;
/* Without any key: what is not encrypted can be read, of an encrypted one that is the descriptor's
   claim and the key slots. */
Repository *repository_open_locked(const World *world, const RepositoryConfig *config,
                                   CairnError *err) MUST_CHECK;
/* The same in any storage (taken, even on failure): for drivers other than posix, and for tests.
   create: write a descriptor first, CONFLICT when there is one. */
Repository *repository_open_storage(const World *world, const RepositoryConfig *config,
                                    Storage *storage, bool create, CairnError *err) MUST_CHECK;
void repository_close(Repository *repository);
/* For whoever keeps one open: false when its path leads elsewhere by now (moved, unmounted, made
   anew), so that it must be opened again. What has no path (object storage) is asked for now and
   then. */
bool repository_is_current(Repository *repository);
/* Which file the descriptor of a repository at a path is: as long as that is the same, unchanged
   one, the repository is the same. Zeros where there is no path. */
typedef struct {
    uint64_t device;
    uint64_t inode;
    int64_t changed_ns;
} RepositoryMark;
/* As it was just before this one was opened. */
RepositoryMark repository_mark(const Repository *repository);
/* As it is now. False: there is no path, or no descriptor, or it cannot be asked. */
bool repository_mark_now(const World *world, const RepositoryConfig *config,
                         RepositoryMark *mark_out) MUST_CHECK;
SCOPED_TYPE(Repository, repository_close);

const World *repository_world(const Repository *repository);
Storage *repository_storage(const Repository *repository);
const uint8_t *repository_id(const Repository *repository); /* REPOSITORY_ID_SIZE bytes */
const RepositoryConfig *repository_config(const Repository *repository);
/* DENIED where this connection may only add: expire, collect and the like run on the repository
 * host. */
bool repository_may_let_go(const Repository *repository, CairnError *err) MUST_CHECK;

Encryption repository_encryption(const Repository *repository);
/* Name of the slot that the keys were found in; "" where there was none to open. */
const char *repository_key_slot(const Repository *repository);
/* Its descriptor says that everything in it is encrypted. */
bool repository_is_encrypted(const Repository *repository);
/* What it is encrypted with; NULL: nothing, or repository_is_encrypted and the keys are not here:
   then its objects can be scrubbed and nothing else. */
const Keyring *repository_keyring(const Repository *repository);
/* Whether pages and WAL can be read here: not on a host that only seals. */
bool repository_reads_data(const Repository *repository);
/* From now on its objects and digests are under these keys (taken), and plain ones are refused.
   Before the first object but descriptor and key slots is read or written. */
void repository_take_keyring(Repository *repository, Keyring *keyring);
/* It can be read and nothing else (replica.h). */
bool repository_is_replica(const Repository *repository);
/* REFUSED for a replica: for who would begin something that only fails at its first write. */
bool repository_check_writable(const Repository *repository, CairnError *err) MUST_CHECK;

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
