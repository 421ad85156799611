#include "cli/wal_push_report.h"

#include "common/log.h"

/* "repository 'x': ", where there are several. */
#define IN_FORMAT "%s%s%s"
#define IN(repository)                                                                             \
    (repository) != NULL ? "repository '" : "", (repository) != NULL ? (repository) : "",          \
        (repository) != NULL ? "': " : ""

void
wal_push_report_shipped(const WalPushed *pushed, const char *repository)
{
    if (pushed->shipped > 0)
        log_info(IN_FORMAT "%zu files of overflow-path are in the repository now", IN(repository),
                 pushed->shipped);
    if (pushed->trouble[0] != '\0')
        log_warn(IN_FORMAT "%s", IN(repository), pushed->trouble);
}

static void
report_done(const char *path, const WalPushed *pushed, const char *repository)
{
    if (pushed->overflowed) {
        log_warn(IN_FORMAT "'%s' is NOT OFF THIS HOST: it waits in overflow-path, since the "
                           "repository is down: %s",
                 IN(repository), path, pushed->trouble);
        return;
    }
    if (pushed->skipped) {
        log_warn(IN_FORMAT "'%s' was given up with `wal skip`, and is not stored: %s",
                 IN(repository), path, pushed->trouble);
        return;
    }
    wal_push_report_shipped(pushed, repository);
    if (pushed->tail_differs)
        log_info(IN_FORMAT "'%s' is stored already with the same records; only its unused tail "
                           "differs",
                 IN(repository), path);
    else if (pushed->remembered)
        log_debug(IN_FORMAT "'%s' was pushed ahead", IN(repository), path);
    else
        log_debug(IN_FORMAT "'%s' is %s", IN(repository), path,
                  pushed->existed ? "stored already" : "stored");
}

/* Where the repository is one of several: the others' answers matter, too. */
static void
report_failure(const char *path, const WalPushedOne *one, const WalPushedAll *all)
{
    const char *stored = NULL;

    for (size_t i = 0; i < all->count; i++) {
        const WalPushed *pushed = &all->ones[i].pushed;
        if (all->ones[i].done && !pushed->skipped && !pushed->overflowed)
            stored = all->ones[i].repository;
    }
    log_warn("'%s' is NOT in repository '%s'%s: %s%s%s%s", path, one->repository,
             one->required ? "" : " (required = no)", one->err.message,
             stored != NULL ? "; it is in '" : "", stored != NULL ? stored : "",
             stored != NULL ? "'" : "");
}

void
wal_push_report_all(const char *path, const WalPushedAll *pushed)
{
    for (size_t i = 0; i < pushed->count; i++) {
        const WalPushedOne *one = &pushed->ones[i];
        const char *repository = pushed->count > 1 ? one->repository : NULL;

        if (one->pushed.no_batch[0] != '\0')
            log_warn(IN_FORMAT "nothing is pushed ahead: %s", IN(repository), one->pushed.no_batch);
        if (one->pushed.failed_ahead[0] != '\0')
            log_warn(IN_FORMAT "pushing '%s' ahead failed: %s", IN(repository), path,
                     one->pushed.failed_ahead);
        if (one->done)
            report_done(path, &one->pushed, repository);
        else if (repository != NULL)
            report_failure(path, one, pushed);
    }
}
