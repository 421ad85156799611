#include "cli/wal_push_report.h"

#include "common/log.h"

void
wal_push_report_shipped(const WalPushed *pushed)
{
    if (pushed->shipped > 0)
        log_info("%zu files of overflow-path are in the repository now", pushed->shipped);
    if (pushed->trouble[0] != '\0')
        log_warn("%s", pushed->trouble);
}

void
wal_push_report(const char *path, const WalPushed *pushed, bool done)
{
    if (pushed->no_batch[0] != '\0')
        log_warn("nothing is pushed ahead: %s", pushed->no_batch);
    if (pushed->failed_ahead[0] != '\0')
        log_warn("pushing '%s' ahead failed: %s", path, pushed->failed_ahead);
    if (!done)
        return;
    if (pushed->shipped > 0)
        log_info("%zu files of overflow-path are in the repository now", pushed->shipped);
    if (pushed->overflowed) {
        log_warn("'%s' is NOT OFF THIS HOST: it waits in overflow-path, since the repository is "
                 "down: %s",
                 path, pushed->trouble);
        return;
    }
    if (pushed->skipped) {
        log_warn("'%s' was given up with `wal skip`, and is not stored: %s", path, pushed->trouble);
        return;
    }
    if (pushed->trouble[0] != '\0')
        log_warn("%s", pushed->trouble);
    if (pushed->tail_differs)
        log_info("'%s' is stored already with the same records; only its unused tail differs",
                 path);
    else if (pushed->remembered)
        log_debug("'%s' was pushed ahead", path);
    else
        log_debug("'%s' is %s", path, pushed->existed ? "stored already" : "stored");
}
