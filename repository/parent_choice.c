#include "repository/parent_choice.h"

#include "repository/catalog.h"

#include <stdio.h>
#include <string.h>

/* What stood in the way of the newest candidate says most. */
static void
give_reason(char reason[PARENT_REASON_SIZE], const char *text)
{
    if (reason[0] == '\0')
        snprintf(reason, PARENT_REASON_SIZE, "%s", text);
}

bool
parent_choose(Repository *repository, const char *cluster, uint64_t system_id, int major,
              bool full_only, Fate **fate_out, char reason[PARENT_REASON_SIZE], CairnError *err)
{
    SCOPED(Catalog) catalog = catalog_read(repository, cluster, err);
    if (catalog == NULL)
        return false;
    *fate_out = NULL;
    reason[0] = '\0';
    for (size_t i = catalog->count; i-- > 0;) {
        CatalogBackup *backup = &catalog->backups[i];
        if (backup->presence == BACKUP_UNREADABLE)
            give_reason(reason, "the newest backup cannot be read");
        if (backup->presence == BACKUP_EXPIRED)
            give_reason(reason, "the newest backup is expired");
        if (backup->presence != BACKUP_COMMITTED ||
            (full_only && strcmp(backup->fate->type, "full") != 0))
            continue;
        if (backup->fate->system_id != system_id || backup->fate->major != major) {
            give_reason(reason, "the newest backup is of another system or major version");
            continue;
        }
        *fate_out = take(&backup->fate);
        return true;
    }
    give_reason(reason, full_only ? "there is no full backup yet" : "there is no backup yet");
    return true;
}
