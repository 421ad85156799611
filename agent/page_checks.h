/*
 * Data pages whose checksum is wrong, collected from all workers of a backup.
 * Threads: page_checks_see from any, the rest from the owner.
 */
#ifndef PGCAIRN_AGENT_PAGE_CHECKS_H
#define PGCAIRN_AGENT_PAGE_CHECKS_H

#include "common/arena.h"
#include "common/scoped.h"
#include "repository/fate.h"

#include <stdint.h>

typedef struct PageChecks PageChecks;
PageChecks *page_checks_new(void);
void page_checks_free(PageChecks *checks);
/* Off until the cluster is known to have checksums; from start_lsn on pages may be torn. */
void page_checks_enable(PageChecks *checks, uint64_t start_lsn);
/* A UnitCheck (repository/backup_writer.h). */
void page_checks_see(void *context, const char *path, uint64_t first_unit, const uint8_t *data,
                     uint32_t units, uint32_t tail_bytes);
/* Puts the list, sorted, into the fate's arena. */
void page_checks_report(PageChecks *checks, Fate *fate);
SCOPED_TYPE(PageChecks, page_checks_free);

#endif
