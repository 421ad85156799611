/*
 * From a [repository] section to the storage that it names: which driver, and where.
 *
 * Errors: USAGE for a section that lacks what its type needs; UNSUPPORTED for a driver that this
 * program was built without; then the driver's own.
 */
#ifndef PGCAIRN_STORAGE_CONNECT_H
#define PGCAIRN_STORAGE_CONNECT_H

#include "common/config.h"
#include "storage/storage.h"

/* Has the section what its driver needs? Touches nothing. */
bool storage_config_check(const RepositoryConfig *config, CairnError *err) MUST_CHECK;

/* create: make the place where that is possible and missing (a directory; never a bucket). Returned
 * owned. */
Storage *storage_connect(const World *world, const RepositoryConfig *config, bool create,
                         CairnError *err) MUST_CHECK;

/* Where it is, for people and as a key: a path as it stands, else
   "s3://bucket/prefix at endpoint", "ssh://host by remote-program through
   ssh-command". */
enum { STORAGE_PLACE_TEXT_SIZE = 1024 };
void storage_place_text(const RepositoryConfig *config, char text[STORAGE_PLACE_TEXT_SIZE]);

/* True for a directory that this host mounts. */
bool storage_is_directory(const RepositoryConfig *config);

#endif
