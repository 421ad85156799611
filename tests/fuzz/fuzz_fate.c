/* A fate's JSON: any bytes as the content of a fate whose container is right. */
#include "repository/fate.h"

#include "repository/object.h"
#include "tests/unit/support/repository_fixture.h"

#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    SCOPED(Repository) repository = memory_repository("none");
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    char name[STORAGE_NAME_LIMIT];
    snprintf(name, sizeof name, "c/main/b/%s/fate", bid.text);
    const bool put = object_put_small(repository, name, OBJECT_FATE, 1, data, size, NULL, &err);
    CAIRN_ASSERT(put);
    SCOPED(Fate) fate = fate_read(repository, "main", &bid, NULL, &err);
    if (fate == NULL) {
        CAIRN_ASSERT(err.kind == CAIRN_CORRUPT);
        return 0;
    }
    CAIRN_ASSERT(strlen(fate->token) < sizeof fate->token);
    if (!fate->committed)
        return 0;

    /* What was read can be written, and reads the same again. */
    const BackupId other = test_backup_id(2);
    fate->bid = other;
    fate->map_root.creator = other;
    const bool committed = fate_commit(repository, fate, &err);
    CAIRN_ASSERT(committed);
    SCOPED(Fate) again = fate_read(repository, "main", &other, NULL, &err);
    CAIRN_ASSERT(again != NULL && again->committed);
    CAIRN_ASSERT(again->start_lsn == fate->start_lsn && again->started_us == fate->started_us);
    CAIRN_ASSERT(again->tablespace_count == fate->tablespace_count);
    CAIRN_ASSERT(strcmp(again->backup_label, fate->backup_label) == 0);
    return 0;
}
