/*
 * The small texts of a data directory: backup_label, tablespace_map and settings. The same bytes go
 * to all of them.
 */
#include "common/bytes.h"
#include "common/error.h"
#include "common/scoped.h"
#include "postgres/backup_label.h"
#include "postgres/recovery_settings.h"

#include <stdlib.h>
#include <string.h>

static bool
append_again(void *context, const Tablespace *tablespace, CairnError *err)
{
    (void)err;
    CAIRN_ASSERT(tablespace->oid != 0);
    CAIRN_ASSERT(tablespace->path[0] == '/' || memcmp(tablespace->path, "pg_tblspc/", 10) == 0);
    tablespace_map_append(context, tablespace);
    return true;
}

/* What was parsed and written again parses to the same text. */
static void
check_map(const char *text, size_t size)
{
    CairnError err = {0};
    SCOPED_BYTES ByteWriter once = {0};
    if (!tablespace_map_parse(text, size, append_again, &once, &err))
        return;
    SCOPED_BYTES ByteWriter twice = {0};
    CAIRN_ASSERT(
        tablespace_map_parse((const char *)once.data, once.size, append_again, &twice, &err));
    CAIRN_ASSERT(once.size == twice.size);
    CAIRN_ASSERT(once.size == 0 || memcmp(once.data, twice.data, once.size) == 0);
}

/* After filtering, no line sets a recovery setting; filtering again changes nothing. */
static void
check_settings(const char *text, size_t size)
{
    SCOPED_BYTES ByteWriter once = {0};
    settings_filter(text, size, recovery_setting_names, &once);
    for (const char *const *name = recovery_setting_names; *name != NULL; name++) {
        free(settings_find(text, size, *name));
        CAIRN_ASSERT(settings_find((const char *)once.data, once.size, *name) == NULL);
    }
    SCOPED_BYTES ByteWriter twice = {0};
    settings_filter((const char *)once.data, once.size, recovery_setting_names, &twice);
    CAIRN_ASSERT(once.size == twice.size);
}

/* Any value that settings_append takes, settings_find gives back. */
static void
check_value(const char *value)
{
    CairnError err = {0};
    SCOPED_BYTES ByteWriter text = {0};
    if (!settings_append(&text, "restore_command", value, &err))
        return;
    SCOPED_MEMORY char *found =
        settings_find((const char *)text.data, text.size, "restore_command");
    CAIRN_ASSERT(found != NULL && strcmp(found, value) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    CairnError err = {0};
    BackupLabel label;
    if (backup_label_parse(text, size, &label, &err)) {
        CAIRN_ASSERT(label.start_timeline != 0);
        CAIRN_ASSERT(label.start_lsn != 0 && label.start_lsn <= label.checkpoint_lsn);
    }
    check_map(text, size);
    check_settings(text, size);

    SCOPED_MEMORY char *value = malloc(size + 1);
    CAIRN_ASSERT(value != NULL);
    if (size > 0)
        memcpy(value, data, size);
    value[size] = '\0';
    check_value(value);
    return 0;
}
