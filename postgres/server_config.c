#include "postgres/server_config.h"

#include "common/bytes.h"

#include <stdlib.h>
#include <string.h>

enum {
    INCLUDE_DEPTH_LIMIT = 10,
    SERVER_PATH_LIMIT = 4096,
    INCLUDE_KEY_LIMIT = 32,
};

static const char READ_SQL[] = "SELECT pg_catalog.pg_read_binary_file($1, 0, $2::bigint, true)";
static const char LIST_SQL[] = "SELECT name FROM pg_catalog.pg_ls_dir($1, true, false) AS name"
                               " WHERE name ~ '^[^.].*[.]conf$' ORDER BY name COLLATE \"C\"";
static const char SETTING_SQL[] =
    "SELECT (SELECT setting FROM pg_catalog.pg_settings WHERE name = $1)";

typedef struct {
    Connection *connection;
    const ServerFacts *facts;
    ServerConfigCallback *callback;
    ServerConfigUnreadable *unreadable;
    void *context;
    char *seen[SERVER_CONFIG_FILES_LIMIT];
    size_t seen_count;
} ConfigReader;

static bool read_file(ConfigReader *reader, const char *setting, const char *path,
                      bool may_be_absent, int depth, CairnError *err);

/* The role may not, or the file is odd: told, not fatal. A lost connection or a signal is. */
static bool
is_fatal(const CairnError *err)
{
    return err->kind == CAIRN_UNAVAILABLE || err->kind == CAIRN_CANCELLED ||
           err->sqlstate[0] == '\0';
}

static bool
is_inside(const char *directory, const char *path)
{
    const size_t size = strlen(directory);
    return strncmp(directory, path, size) == 0 && path[size] == '/';
}

/* False when it was seen already or the limit is reached. */
static bool
remember(ConfigReader *reader, const char *setting, const char *path)
{
    for (size_t i = 0; i < reader->seen_count; i++) {
        if (strcmp(reader->seen[i], path) == 0)
            return false;
    }
    char *copy = reader->seen_count < SERVER_CONFIG_FILES_LIMIT ? strdup(path) : NULL;
    if (copy == NULL) {
        reader->unreadable(reader->context, setting, path, "too many configuration files");
        return false;
    }
    reader->seen[reader->seen_count++] = copy;
    return true;
}

/* Relative to the file that includes it. */
static bool
resolve(const char *base_path, const char *name, char path_out[SERVER_PATH_LIMIT])
{
    const char *slash = strrchr(base_path, '/');
    const int directory_size = name[0] == '/' || slash == NULL ? 0 : (int)(slash - base_path) + 1;
    const int size =
        snprintf(path_out, SERVER_PATH_LIMIT, "%.*s%s", directory_size, base_path, name);
    return size > 0 && size < SERVER_PATH_LIMIT;
}

static bool
read_directory(ConfigReader *reader, const char *path, int depth, CairnError *err)
{
    const char *const parameters[] = {path, NULL};
    SCOPED_RESULT result = connection_query(reader->connection, LIST_SQL, parameters,
                                            (QueryShape){.columns = 1, .max_rows = -1}, err);
    if (result == NULL) {
        if (is_fatal(err))
            return false;
        reader->unreadable(reader->context, "include", path, err->message);
        cairn_error_clear(err);
        return true;
    }
    for (int row = 0; row < PQntuples(result); row++) {
        char file[SERVER_PATH_LIMIT];
        const int size = snprintf(file, sizeof file, "%s/%s", path, PQgetvalue(result, row, 0));
        if (size < 0 || size >= SERVER_PATH_LIMIT)
            continue;
        if (!read_file(reader, "include", file, true, depth, err))
            return false;
    }
    return true;
}

/* `include 'name'` of one line: keyword and unquoted value. Both postgresql.conf's and
 * pg_hba.conf's quotes. */
static bool
parse_include(const char *line, size_t size, char key_out[INCLUDE_KEY_LIMIT],
              char value_out[SERVER_PATH_LIMIT])
{
    static const char SPACES[] = " \t\r=";
    size_t at = 0;
    while (at < size && (line[at] == ' ' || line[at] == '\t'))
        at++;
    size_t key_size = 0;
    while (at < size && key_size + 1 < INCLUDE_KEY_LIMIT &&
           ((line[at] >= 'a' && line[at] <= 'z') || line[at] == '_')) {
        key_out[key_size++] = line[at++];
    }
    key_out[key_size] = '\0';
    if (strcmp(key_out, "include") != 0 && strcmp(key_out, "include_dir") != 0 &&
        strcmp(key_out, "include_if_exists") != 0) {
        return false;
    }
    while (at < size && strchr(SPACES, line[at]) != NULL)
        at++;

    const char quote = at < size && (line[at] == '\'' || line[at] == '"') ? line[at++] : '\0';
    size_t value_size = 0;
    for (; at < size; at++) {
        if (quote == '\0' ? strchr(" \t\r#", line[at]) != NULL : line[at] == quote) {
            /* A doubled quote is one. */
            if (quote == '\0' || at + 1 >= size || line[at + 1] != quote)
                break;
            at++;
        }
        if (value_size + 1 >= SERVER_PATH_LIMIT)
            return false;
        value_out[value_size++] = line[at];
    }
    value_out[value_size] = '\0';
    return value_size > 0;
}

static bool
follow_includes(ConfigReader *reader, const ServerConfigFile *file, int depth, CairnError *err)
{
    const char *end = file->content + file->size;
    for (const char *line = file->content; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const size_t size = (size_t)((newline != NULL ? newline : end) - line);
        char key[INCLUDE_KEY_LIMIT];
        char value[SERVER_PATH_LIMIT];
        char path[SERVER_PATH_LIMIT];
        if (parse_include(line, size, key, value) && resolve(file->path, value, path)) {
            const bool if_exists = strcmp(key, "include_if_exists") == 0;
            const bool followed =
                strcmp(key, "include_dir") == 0
                    ? read_directory(reader, path, depth + 1, err)
                    : read_file(reader, "include", path, if_exists, depth + 1, err);
            if (!followed)
                return false;
        }
        line += size + 1;
    }
    return true;
}

static bool
take_file(ConfigReader *reader, const char *setting, const char *path, const PGresult *result,
          int depth, CairnError *err)
{
    size_t size = 0;
    unsigned char *content =
        PQunescapeBytea((const unsigned char *)PQgetvalue(result, 0, 0), &size);
    if (content == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");

    bool taken = true;
    if (size > SERVER_CONFIG_FILE_LIMIT) {
        reader->unreadable(reader->context, setting, path, "larger than 1 MiB");
    } else {
        const ServerConfigFile file = {
            .setting = setting, .path = path, .content = (const char *)content, .size = size};
        /* What lies in the data directory is in the backup already; what it includes may not be. */
        const bool inside =
            reader->facts->data_directory != NULL && is_inside(reader->facts->data_directory, path);
        taken = (inside || reader->callback(reader->context, &file, err)) &&
                follow_includes(reader, &file, depth, err);
    }
    PQfreemem(content);
    return taken;
}

static bool
read_file(ConfigReader *reader, const char *setting, const char *path, bool may_be_absent,
          int depth, CairnError *err)
{
    if (depth > INCLUDE_DEPTH_LIMIT) {
        reader->unreadable(reader->context, setting, path, "included too deep");
        return true;
    }
    if (!remember(reader, setting, path))
        return true;

    char limit[32];
    snprintf(limit, sizeof limit, "%d", SERVER_CONFIG_FILE_LIMIT + 1);
    const char *const parameters[] = {path, limit, NULL};
    SCOPED_RESULT result =
        connection_query(reader->connection, READ_SQL, parameters,
                         (QueryShape){.columns = 1, .min_rows = 1, .max_rows = 1}, err);
    if (result == NULL) {
        if (is_fatal(err))
            return false;
        reader->unreadable(reader->context, setting, path, err->message);
        cairn_error_clear(err);
        return true;
    }
    if (PQgetisnull(result, 0, 0)) {
        if (!may_be_absent)
            reader->unreadable(reader->context, setting, path, "no such file");
        return true;
    }
    return take_file(reader, setting, path, result, depth, err);
}

static bool
read_setting(ConfigReader *reader, const char *setting, CairnError *err)
{
    const char *const parameters[] = {setting, NULL};
    SCOPED_MEMORY char *path =
        connection_query_text(reader->connection, SETTING_SQL, parameters, err);
    if (path == NULL)
        return false;
    if (path[0] == '\0') {
        if (!reader->facts->may_read_settings)
            reader->unreadable(reader->context, setting, "", "the role lacks pg_read_all_settings");
        return true; /* a server may run without that file (-c options) */
    }
    if (!reader->facts->may_read_files) {
        const char *data_directory = reader->facts->data_directory;
        if (data_directory == NULL || !is_inside(data_directory, path))
            reader->unreadable(reader->context, setting, path,
                               "the role lacks pg_read_server_files");
        return true;
    }
    return read_file(reader, setting, path, false, 0, err);
}

bool
server_config_read(Connection *connection, const ServerFacts *facts, ServerConfigCallback *callback,
                   ServerConfigUnreadable *unreadable, void *context, CairnError *err)
{
    ConfigReader reader = {.connection = connection,
                           .facts = facts,
                           .callback = callback,
                           .unreadable = unreadable,
                           .context = context};
    const bool done = read_setting(&reader, "config_file", err) &&
                      read_setting(&reader, "hba_file", err) &&
                      read_setting(&reader, "ident_file", err);
    for (size_t i = 0; i < reader.seen_count; i++)
        free(reader.seen[i]);
    return done;
}
