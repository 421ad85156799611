/*
 * pgcairn_archive: PostgreSQL's archive module (archive_library = 'pgcairn_archive').
 *
 * A shim. The archiver's own death would restart the whole server when it comes from a crash, so no
 * work is done here: files go to one helper process, `pgcairn-wal serve` (helper.c), and its answer
 * comes back as true, or as a WARNING and false. Nothing of ours raises ERROR; what PostgreSQL's
 * functions raise is caught, because 15 would turn it into the archiver's end.
 *
 * The interface changed with 16: callbacks get a state, which we don't need, and the table is
 * returned instead of filled.
 */
#include <postgres.h>

#include "walarchive/module/helper.h"

#include <fmgr.h>
#include <miscadmin.h>
#include <storage/condition_variable.h>
#include <storage/fd.h>
#include <storage/latch.h>
#include <storage/lwlock.h>
#include <utils/guc.h>
#include <utils/memutils.h>
#include <utils/timeout.h>
#include <utils/wait_event.h>
#if PG_VERSION_NUM >= 160000
#include <archive/archive_module.h>
#else
#include <postmaster/pgarch.h>
#endif

enum { TIMEOUT_DEFAULT_S = 60, TIMEOUT_MINIMUM_S = 3, TIMEOUT_MAXIMUM_S = 24 * 3600 };

/* All else is hidden (-fvisibility=hidden); 15's headers don't mark what they declare. */
#pragma GCC visibility push(default)
PG_MODULE_MAGIC;
void _PG_init(void);
#if PG_VERSION_NUM < 160000
void _PG_archive_module_init(ArchiveModuleCallbacks *callbacks);
#endif
#pragma GCC visibility pop

static char *setting_command;
static char *setting_config;
static char *setting_cluster;
static int setting_timeout_s;

void
_PG_init(void)
{
    DefineCustomStringVariable("pgcairn_archive.command", "Absolute path of pgcairn-wal.",
                               "The archiver keeps one process of it, which does the work.",
                               &setting_command, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
    DefineCustomStringVariable("pgcairn_archive.config", "Configuration file of pgcairn.",
                               "Empty: /etc/pgcairn/pgcairn.conf.", &setting_config, "", PGC_SIGHUP,
                               0, NULL, NULL, NULL);
    DefineCustomStringVariable(
        "pgcairn_archive.cluster", "Cluster of that configuration that this server is.",
        "Empty: the only one.", &setting_cluster, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
    DefineCustomIntVariable("pgcairn_archive.timeout", "Time that archiving one file may take.",
                            "Then it counts as failed, and the server tries again later.",
                            &setting_timeout_s, TIMEOUT_DEFAULT_S, TIMEOUT_MINIMUM_S,
                            TIMEOUT_MAXIMUM_S, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
    MarkGUCPrefixReserved("pgcairn_archive");
}

/* What is missing; NULL: nothing. Whether the program runs shows when it is started. */
static const char *
missing_setting(void)
{
    if (setting_command == NULL || setting_command[0] == '\0')
        return "pgcairn_archive.command is not set; it takes the absolute path of pgcairn-wal.";
    if (setting_command[0] != '/')
        return "pgcairn_archive.command is not an absolute path.";
    if (setting_config != NULL && setting_config[0] != '\0' && setting_config[0] != '/')
        return "pgcairn_archive.config is not an absolute path.";
    return NULL;
}

static bool
check_configured(void)
{
    const char *missing = missing_setting();

    if (missing == NULL)
        return true;
#if PG_VERSION_NUM >= 170000
    arch_module_check_errdetail("%s", missing);
#else
    ereport(WARNING, (errmsg("pgcairn_archive is not configured"), errdetail("%s", missing)));
#endif
    return false;
}

static void
report_failure(const char *file, const HelperAnswer *answer)
{
    ereport(WARNING, (errmsg("pgcairn_archive could not archive \"%s\": %s", file, answer->message),
                      answer->hint[0] != '\0' ? errhint("%s", answer->hint) : 0));
}

/* After an ERROR: what PostgreSQL's own handler of 17 does, for 15 and 16 as well. */
static void
clean_up_after_error(void)
{
    HOLD_INTERRUPTS();
    EmitErrorReport();
    FlushErrorState();
    disable_all_timeouts(false);
    LWLockReleaseAll();
    ConditionVariableCancelSleep();
    pgstat_report_wait_end();
    AtEOXact_Files(false);
    RESUME_INTERRUPTS();
}

static bool
archive_file(const char *file, const char *path)
{
    static HelperAnswer answer; /* 3 KiB that need not be on the stack */
    const HelperSettings settings = {
        .command = setting_command,
        .config = setting_config != NULL ? setting_config : "",
        .cluster = setting_cluster != NULL ? setting_cluster : "",
        .timeout_s = setting_timeout_s,
    };
    MemoryContext context = CurrentMemoryContext;

    answer = (HelperAnswer){.done = false};
    PG_TRY();
    {
        helper_archive(&settings, path, &answer);
    }
    PG_CATCH();
    {
        MemoryContextSwitchTo(context);
        clean_up_after_error();
        helper_stop();
        SetLatch(MyLatch); /* it may have been reset in a wait */
        return false;
    }
    PG_END_TRY();
    if (!answer.done)
        report_failure(file, &answer);
    return answer.done;
}

#if PG_VERSION_NUM >= 160000

static bool
check_configured_callback(ArchiveModuleState *state)
{
    (void)state;
    return check_configured();
}

static bool
archive_file_callback(ArchiveModuleState *state, const char *file, const char *path)
{
    (void)state;
    return archive_file(file, path);
}

static void
shutdown_callback(ArchiveModuleState *state)
{
    (void)state;
    helper_stop();
}

__attribute__((visibility("default"))) const ArchiveModuleCallbacks *
_PG_archive_module_init(void)
{
    static const ArchiveModuleCallbacks callbacks = {
        .check_configured_cb = check_configured_callback,
        .archive_file_cb = archive_file_callback,
        .shutdown_cb = shutdown_callback,
    };

    return &callbacks;
}

#else

void
_PG_archive_module_init(ArchiveModuleCallbacks *callbacks)
{
    callbacks->check_configured_cb = check_configured;
    callbacks->archive_file_cb = archive_file;
    callbacks->shutdown_cb = helper_stop;
}

#endif
