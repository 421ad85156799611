/*
 * One push for each repository that a cluster names, out of one that is for all of them.
 */
#ifndef PGCAIRN_CLI_WAL_PUSH_EACH_H
#define PGCAIRN_CLI_WAL_PUSH_EACH_H

#include "cli/wal_settings.h"
#include "walarchive/push_all.h"

enum { WAL_PUSH_WORDS = 72 };

/* What the pushes point to. */
typedef struct {
    WalBatch batches[CONFIG_REPOSITORIES_LIMIT];
    char *words[CONFIG_REPOSITORIES_LIMIT][WAL_PUSH_WORDS];
} WalPushRoom;

/* push: everything but its repository. Where there are several, each has a process of its own that
   pushes ahead: the command of push->batch with `--repository NAME` in it. All borrowed. */
void wal_push_each(const WalSettings *settings, const WalPush *push, WalPushRoom *room,
                   WalPushAll *all_out);

#endif
