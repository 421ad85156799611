#include "restore/config_files.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const LEADS_AWAY[] = {
    "data_directory", "hba_file",          "ident_file",  "external_pid_file",
    "include",        "include_if_exists", "include_dir",
};

static const char *const SETTINGS[CONFIG_FILE_COUNT] = {
    [CONFIG_MAIN] = "config_file",
    [CONFIG_HBA] = "hba_file",
    [CONFIG_IDENT] = "ident_file",
};

static const char *const NAMES[CONFIG_FILE_COUNT] = {
    [CONFIG_MAIN] = "postgresql.conf",
    [CONFIG_HBA] = "pg_hba.conf",
    [CONFIG_IDENT] = "pg_ident.conf",
};

/* For a backup that has none: the server starts, and lets in whom the machine vouches for. */
static const char *const MINIMAL[CONFIG_FILE_COUNT] = {
    [CONFIG_MAIN] = "# Made by pgcairn restore: the backup has no postgresql.conf.\n",
    /* In parentheses, or clang takes the second line for a forgotten comma. */
    [CONFIG_HBA] = ("# Made by pgcairn restore: the backup has no pg_hba.conf.\n"
                    "local all all peer\n"),
    [CONFIG_IDENT] = "# Made by pgcairn restore: the backup has no pg_ident.conf.\n",
};

static bool
line_leads_away(const char *line, size_t size)
{
    size_t start = 0;
    while (start < size && isblank((unsigned char)line[start]))
        start++;
    size_t end = start;
    while (end < size && (isalnum((unsigned char)line[end]) || line[end] == '_'))
        end++;
    for (size_t i = 0; i < sizeof LEADS_AWAY / sizeof LEADS_AWAY[0]; i++) {
        if (strlen(LEADS_AWAY[i]) == end - start &&
            strncasecmp(LEADS_AWAY[i], line + start, end - start) == 0) {
            return true;
        }
    }
    return false;
}

void
config_neutralise(const char *text, size_t size, ByteWriter *neutral)
{
    for (size_t at = 0; at < size;) {
        const char *newline = memchr(text + at, '\n', size - at);
        const size_t end = newline != NULL ? (size_t)(newline - text) : size;
        if (line_leads_away(text + at, end - at))
            byte_writer_bytes(neutral, "# pgcairn restore: ", 19);
        byte_writer_bytes(neutral, text + at, end - at);
        byte_writer_u8(neutral, '\n');
        at = end + 1;
    }
}

static bool
append_captured(MapReader *map, FrameReader *frames, const char *entry, const char *path,
                ByteWriter *text, CairnError *err)
{
    SCOPED_MEMORY char *content = NULL;
    size_t size;

    if (!stored_file_read(map, frames, MAP_CLASS_OURS, entry, CONFIG_FILE_LIMIT, &content, &size,
                          err)) {
        return false;
    }
    if (content == NULL)
        return cairn_error(err, CAIRN_CORRUPT, "the backup lacks its entry '%s'", entry);
    byte_writer_bytes(text, "# From ", 7);
    byte_writer_bytes(text, path, strcspn(path, "\r\n"));
    byte_writer_u8(text, '\n');
    config_neutralise(content, size, text);
    return byte_writer_check(text, err);
}

/* Settings that files included bring; those of pg_hba.conf and pg_ident.conf are no settings. */
static bool
is_settings_file(const char *path, const char *content_entry)
{
    const size_t length = strlen(path);
    (void)content_entry;
    return length > 5 && strcmp(path + length - 5, ".conf") == 0 && strstr(path, "hba") == NULL &&
           strstr(path, "ident") == NULL;
}

/* One pass over the index for one setting. */
static bool
append_setting(MapReader *map, FrameReader *frames, const json_t *index, const char *setting,
               ByteWriter *text, CairnError *err)
{
    for (size_t i = 0; i < json_array_size(index); i++) {
        const json_t *item = json_array_get(index, i);
        const char *item_setting = json_string_value(json_object_get(item, "setting"));
        const char *path = json_string_value(json_object_get(item, "path"));
        const char *entry = json_string_value(json_object_get(item, "entry"));
        if (item_setting == NULL || path == NULL || entry == NULL ||
            strncmp(entry, "config/", 7) != 0) {
            return cairn_error(err, CAIRN_CORRUPT, "the backup's 'config/index' is malformed");
        }
        if (strcmp(item_setting, setting) != 0 ||
            (strcmp(setting, "include") == 0 && !is_settings_file(path, entry))) {
            continue;
        }
        if (!append_captured(map, frames, entry, path, text, err))
            return false;
    }
    return true;
}

static bool
collect_captured(MapReader *map, FrameReader *frames, const json_t *index, ConfigFiles *files,
                 CairnError *err)
{
    for (int i = 0; i < CONFIG_FILE_COUNT; i++) {
        ConfigFile *file = &files->files[i];
        if (file->in_backup)
            continue;
        if (!append_setting(map, frames, index, SETTINGS[i], &file->text, err))
            return false;
        if (i == CONFIG_MAIN && file->text.size > 0 &&
            !append_setting(map, frames, index, "include", &file->text, err)) {
            return false;
        }
    }
    return true;
}

static bool
collect(MapReader *map, FrameReader *frames, ConfigFiles *files, CairnError *err)
{
    for (int i = 0; i < CONFIG_FILE_COUNT; i++) {
        MapEntry entry;
        files->files[i].name = NAMES[i];
        if (!stored_file_find(map, MAP_CLASS_CLUSTER, NAMES[i], &entry, &files->files[i].in_backup,
                              err)) {
            return false;
        }
    }

    SCOPED_MEMORY char *text = NULL;
    size_t size;
    if (!stored_file_read(map, frames, MAP_CLASS_OURS, "config/index", CONFIG_FILE_LIMIT, &text,
                          &size, err)) {
        return false;
    }
    if (text != NULL) {
        json_t *index = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
        const bool good =
            json_is_array(index)
                ? collect_captured(map, frames, index, files, err)
                : cairn_error(err, CAIRN_CORRUPT, "the backup's 'config/index' is malformed");
        json_decref(index);
        if (!good)
            return false;
    }
    for (int i = 0; i < CONFIG_FILE_COUNT; i++) {
        ConfigFile *file = &files->files[i];
        file->made_up = !file->in_backup && file->text.size == 0;
        if (file->made_up)
            byte_writer_bytes(&file->text, MINIMAL[i], strlen(MINIMAL[i]));
    }
    return true;
}

bool
config_files_collect(MapReader *map, FrameReader *frames, ConfigFiles *files_out, CairnError *err)
{
    *files_out = (ConfigFiles){0};
    if (collect(map, frames, files_out, err))
        return true;
    config_files_free(files_out);
    return false;
}

void
config_files_free(ConfigFiles *files)
{
    for (int i = 0; i < CONFIG_FILE_COUNT; i++)
        byte_writer_free(&files->files[i].text);
}
