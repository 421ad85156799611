/* Is archiving falling behind, and who holds WAL back? */
#include "agent/check_steps.h"

#include "agent/archiving.h"

void
check_archiving_state(CheckRun *run)
{
    CairnError err = {0};
    Archiving archiving;
    char text[ARCHIVING_TEXT_SIZE];

    if (!run->facts_known)
        return;
    if (!archiving_ask(run->server, run->options->world, run->options->cluster, &archiving, &err)) {
        check_add_error(run, "archiving", CHECK_WARNING, &err);
        return;
    }
    const ArchivingVerdict verdict = archiving_judge(&archiving);
    archiving_format(&archiving, &verdict, text);
    if (verdict.state != ARCHIVING_NONE) /* archive_mode has a line of its own */
        check_add(run, "archiving", verdict.state == ARCHIVING_FINE ? CHECK_OK : CHECK_FAILED, "%s",
                  text);
    if (archiving_format_slots(&archiving, text))
        check_add(run, "slots", CHECK_WARNING, "%s", text);
}
