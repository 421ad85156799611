/*
 * Backup ids: `<sequence, 10 digits>-<16 random hex digits>`. Order is by sequence, never by
 * clocks; two hosts may draw the same sequence, so only the whole id names a backup.
 */
#ifndef PGCAIRN_REPOSITORY_BACKUP_ID_H
#define PGCAIRN_REPOSITORY_BACKUP_ID_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { BACKUP_ID_LENGTH = 27 };

typedef struct {
    char text[BACKUP_ID_LENGTH + 1];
} BackupId;

bool backup_id_parse(const char *text, BackupId *id_out) MUST_CHECK;
uint64_t backup_id_sequence(const BackupId *id);

static inline bool
backup_id_equal(const BackupId *a, const BackupId *b)
{
    return memcmp(a->text, b->text, BACKUP_ID_LENGTH) == 0;
}

#endif
