#include "common/config.h"

#include "common/arena.h"
#include "common/file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/*
 * The parser is our own, 80 lines: libinih cuts section names at 50 bytes without a word, does not
 * report empty sections ([cluster main] alone is a valid one), and cuts values at " ;".
 */

enum { FILE_SIZE_LIMIT = 1 << 20, SECTION_LIMIT = 64, NAME_LIMIT = 63 };

struct Config {
    Arena *arena;
    GlobalConfig global;
    RepositoryConfig repositories[SECTION_LIMIT];
    size_t repository_count;
    ClusterConfig clusters[SECTION_LIMIT];
    size_t cluster_count;
    const char *chosen_repository; /* PGCAIRN_REPOSITORY or NULL */
    const char *chosen_cluster;
};

/* Where a value came from, for messages: a line of a file or an environment variable. */
typedef struct {
    const char *file;
    int line;
    const char *variable; /* NULL: a file's line */
} Origin;

typedef enum { VALUE_TEXT, VALUE_CHOICE, VALUE_INT, VALUE_SIZE, VALUE_IGNORED } ValueType;

typedef struct {
    const char *name;
    ValueType type;
    size_t offset;       /* of the field in its section's struct */
    const char *choices; /* " one two " */
    int minimum;
    int maximum;
} Key;

#define TEXT_KEY(Section, field, key)                                                              \
    {                                                                                              \
        key, VALUE_TEXT, offsetof(Section, field), NULL, 0, 0                                      \
    }
#define CHOICE_KEY(Section, field, key, choices)                                                   \
    {                                                                                              \
        key, VALUE_CHOICE, offsetof(Section, field), choices, 0, 0                                 \
    }
#define INT_KEY(Section, field, key, minimum, maximum)                                             \
    {                                                                                              \
        key, VALUE_INT, offsetof(Section, field), NULL, minimum, maximum                           \
    }
/* Known, read by nobody in this version or by the code that needs it. */
#define IGNORED_KEY(key)                                                                           \
    {                                                                                              \
        key, VALUE_IGNORED, 0, NULL, 0, 0                                                          \
    }

static const Key GLOBAL_KEYS[] = {
    INT_KEY(GlobalConfig, jobs, "jobs", 1, 1024),
    CHOICE_KEY(GlobalConfig, log_level, "log-level", " error warn info debug "),
    {"max-memory", VALUE_SIZE, offsetof(GlobalConfig, max_memory_bytes), NULL, 0, 0},
    INT_KEY(GlobalConfig, wal_timeout_s, "wal-timeout", 0, 86400),
    {NULL, VALUE_TEXT, 0, NULL, 0, 0},
};

static const Key REPOSITORY_KEYS[] = {
    CHOICE_KEY(RepositoryConfig, type, "type", " posix s3 ssh "),
    TEXT_KEY(RepositoryConfig, path, "path"),
    CHOICE_KEY(RepositoryConfig, encryption, "encryption", " none passphrase key-file sealed "),
    CHOICE_KEY(RepositoryConfig, compression, "compression", " none lz4 zstd "),
    INT_KEY(RepositoryConfig, compression_level, "compression-level", 0, 19),
    IGNORED_KEY("passphrase-file"),
    IGNORED_KEY("passphrase-command"),
    IGNORED_KEY("key-file"),
    IGNORED_KEY("recipients"),
    IGNORED_KEY("endpoint"),
    IGNORED_KEY("bucket"),
    IGNORED_KEY("prefix"),
    IGNORED_KEY("region"),
    IGNORED_KEY("uri-style"),
    IGNORED_KEY("access-key"),
    IGNORED_KEY("secret-key"),
    IGNORED_KEY("ca-file"),
    IGNORED_KEY("required"),
    {NULL, VALUE_TEXT, 0, NULL, 0, 0},
};

static const Key CLUSTER_KEYS[] = {
    TEXT_KEY(ClusterConfig, conninfo, "conninfo"),
    TEXT_KEY(ClusterConfig, pgdata, "pgdata"),
    TEXT_KEY(ClusterConfig, timezone, "timezone"),
    TEXT_KEY(ClusterConfig, repositories, "repository"),
    {NULL, VALUE_TEXT, 0, NULL, 0, 0},
};

/* The section that lines or variables go into. */
typedef struct {
    const Key *keys;
    void *values;
    char title[NAME_LIMIT + 16]; /* "[cluster main]" */
    uint32_t seen;               /* bit i: keys[i] was given in the file */
} Section;

bool
parse_size(const char *text, uint64_t *size_out)
{
    static const char UNITS[] = "KMGT";

    if (!isdigit((unsigned char)text[0]))
        return false; /* strtoull would take signs and blanks */
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0)
        return false;

    unsigned shift = 0;
    if (*end != '\0') {
        const char *unit = strchr(UNITS, *end);
        if (unit != NULL) {
            shift = 10 * (unsigned)(unit - UNITS + 1);
            end++;
            if (end[0] == 'i' && end[1] == 'B')
                end++;
        }
        if (*end == 'B')
            end++;
    }
    if (*end != '\0' || value > UINT64_MAX >> shift)
        return false;
    *size_out = (uint64_t)value << shift;
    return true;
}

static bool refuse(const Origin *origin, CairnError *err, const char *format, ...)
    PRINTF_LIKE(3, 4);

static bool
refuse(const Origin *origin, CairnError *err, const char *format, ...)
{
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (origin->variable != NULL)
        return cairn_error(err, CAIRN_USAGE, "environment variable %s: %s", origin->variable,
                           message);
    return cairn_error(err, CAIRN_USAGE, "%s:%d: %s", origin->file, origin->line, message);
}

static bool
set_int(const Key *key, int *field, const char *value, const Origin *origin, CairnError *err)
{
    char *end;
    errno = 0;
    const long number = strtol(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || isspace((unsigned char)value[0]) ||
        number < key->minimum || number > key->maximum) {
        return refuse(origin, err, "'%s' must be a number from %d to %d, not '%.100s'", key->name,
                      key->minimum, key->maximum, value);
    }
    *field = (int)number;
    return true;
}

static bool
is_choice(const char *choices, const char *value)
{
    char padded[64];
    const int length = snprintf(padded, sizeof padded, " %s ", value);
    return length > 2 && (size_t)length < sizeof padded && strchr(value, ' ') == NULL &&
           strstr(choices, padded) != NULL;
}

static bool
set_value(Config *config, const Key *key, void *values, const char *value, const Origin *origin,
          CairnError *err)
{
    void *field = (char *)values + key->offset;
    if (*value == '\0')
        return refuse(origin, err, "'%s' has no value", key->name);

    switch (key->type) {
    case VALUE_CHOICE:
        if (!is_choice(key->choices, value))
            return refuse(origin, err, "'%s' must be one of%.*s, not '%.100s'", key->name,
                          (int)strlen(key->choices) - 1, key->choices, value);
        *(const char **)field = arena_strdup(config->arena, value);
        return true;
    case VALUE_TEXT:
        *(const char **)field = arena_strdup(config->arena, value);
        return true;
    case VALUE_INT:
        return set_int(key, field, value, origin, err);
    case VALUE_SIZE:
        if (!parse_size(value, field))
            return refuse(origin, err, "'%s' must be a size like 64MiB, not '%.100s'", key->name,
                          value);
        return true;
    case VALUE_IGNORED:
        return true;
    }
    return cairn_error(err, CAIRN_INTERNAL, "unknown type of key '%s'", key->name);
}

/* Names become parts of object names, so they keep to the characters that those may have. */
static bool
name_valid(const char *name)
{
    static const char ALLOWED[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    const size_t length = strlen(name);
    return length > 0 && length <= NAME_LIMIT && name[0] != '.' && strspn(name, ALLOWED) == length;
}

static RepositoryConfig *
add_repository(Config *config, const char *name)
{
    if (config->repository_count == SECTION_LIMIT)
        return NULL;
    RepositoryConfig *repository = &config->repositories[config->repository_count++];
    *repository = (RepositoryConfig){
        .name = arena_strdup(config->arena, name), .type = "posix", .compression = "lz4"};
    return repository;
}

static ClusterConfig *
add_cluster(Config *config, const char *name)
{
    if (config->cluster_count == SECTION_LIMIT)
        return NULL;
    ClusterConfig *cluster = &config->clusters[config->cluster_count++];
    *cluster = (ClusterConfig){.name = arena_strdup(config->arena, name)};
    return cluster;
}

static const RepositoryConfig *
find_repository(const Config *config, const char *name)
{
    for (size_t i = 0; i < config->repository_count; i++) {
        if (strcmp(config->repositories[i].name, name) == 0)
            return &config->repositories[i];
    }
    return NULL;
}

static const ClusterConfig *
find_cluster(const Config *config, const char *name)
{
    for (size_t i = 0; i < config->cluster_count; i++) {
        if (strcmp(config->clusters[i].name, name) == 0)
            return &config->clusters[i];
    }
    return NULL;
}

/* text is what stands between the brackets. */
static bool
enter_section(Config *config, char *text, const Origin *origin, Section *section, CairnError *err)
{
    *section = (Section){0};
    if (strcmp(text, "global") == 0) {
        section->keys = GLOBAL_KEYS;
        section->values = &config->global;
        snprintf(section->title, sizeof section->title, "[global]");
        return true;
    }

    const size_t kind_length = strcspn(text, " \t");
    const char *name = text + kind_length + strspn(text + kind_length, " \t");
    text[kind_length] = '\0';
    const bool is_cluster = strcmp(text, "cluster") == 0;
    if (!is_cluster && strcmp(text, "repository") != 0)
        return refuse(origin, err,
                      "unknown section '%.100s': expected global, repository NAME or cluster NAME",
                      text);
    if (!name_valid(name))
        return refuse(origin, err,
                      "section '%s' needs a name of at most %d letters, digits, '_', '-' and '.'",
                      text, NAME_LIMIT);
    if (is_cluster ? find_cluster(config, name) != NULL : find_repository(config, name) != NULL)
        return refuse(origin, err, "%s '%s' is defined twice", text, name);

    section->keys = is_cluster ? CLUSTER_KEYS : REPOSITORY_KEYS;
    section->values = is_cluster ? (void *)add_cluster(config, name) : add_repository(config, name);
    if (section->values == NULL)
        return refuse(origin, err, "more than %d sections of one kind", SECTION_LIMIT);
    snprintf(section->title, sizeof section->title, "[%s %s]", text, name);
    return true;
}

static char *
trim(char *text)
{
    text += strspn(text, " \t");
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    text[length] = '\0';
    return text;
}

static bool
read_setting(Config *config, Section *section, char *line, const Origin *origin, CairnError *err)
{
    char *equals = strchr(line, '=');
    if (equals == NULL)
        return refuse(origin, err, "expected 'key = value' or '[section]'");
    *equals = '\0';
    const char *name = trim(line);
    const char *value = trim(equals + 1);
    if (section->keys == NULL)
        return refuse(origin, err, "'%.100s' stands before the first section", name);

    for (size_t i = 0; section->keys[i].name != NULL; i++) {
        if (strcmp(section->keys[i].name, name) != 0)
            continue;
        if ((section->seen & UINT32_C(1) << i) != 0)
            return refuse(origin, err, "'%s' is given twice in %s", name, section->title);
        section->seen |= UINT32_C(1) << i;
        return set_value(config, &section->keys[i], section->values, value, origin, err);
    }
    return refuse(origin, err, "unknown key '%.100s' in %s", name, section->title);
}

static bool
parse_text(Config *config, char *text, size_t size, const char *file, CairnError *err)
{
    Origin origin = {.file = file};
    Section section = {0};

    for (char *next = text; next != NULL;) {
        char *raw = next;
        char *newline = memchr(raw, '\n', size - (size_t)(raw - text));
        const size_t length =
            newline != NULL ? (size_t)(newline - raw) : size - (size_t)(raw - text);
        next = newline != NULL ? newline + 1 : NULL;
        raw[length] = '\0';
        origin.line++;
        if (strlen(raw) != length)
            return refuse(&origin, err, "a NUL byte");

        char *line = trim(raw);
        if (line[0] == '\0' || line[0] == '#' || line[0] == ';')
            continue;
        if (line[0] != '[') {
            if (!read_setting(config, &section, line, &origin, err))
                return false;
            continue;
        }
        char *bracket = strchr(line, ']');
        if (bracket == NULL || bracket[1] != '\0')
            return refuse(&origin, err, "a section is written [kind name], alone on its line");
        *bracket = '\0';
        if (!enter_section(config, trim(line + 1), &origin, &section, err))
            return false;
    }
    return true;
}

static const char *
environment(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* "PGCAIRN_REPOSITORY_" and "passphrase-file" make PGCAIRN_REPOSITORY_PASSPHRASE_FILE. */
static const char *
key_environment(const char *prefix, const char *key, char *name, size_t size)
{
    snprintf(name, size, "%s%s", prefix, key);
    for (char *at = name + strlen(prefix); *at != '\0'; at++)
        *at = *at == '-' ? '_' : (char)toupper((unsigned char)*at);
    return environment(name);
}

static bool
any_environment(const char *prefix, const Key *keys)
{
    char name[128];
    for (const Key *key = keys; key->name != NULL; key++) {
        if (key_environment(prefix, key->name, name, sizeof name) != NULL)
            return true;
    }
    return false;
}

static bool
apply_environment(Config *config, const char *prefix, const Key *keys, void *values,
                  CairnError *err)
{
    char name[128];
    for (const Key *key = keys; key->name != NULL; key++) {
        const char *value = key_environment(prefix, key->name, name, sizeof name);
        const Origin origin = {.variable = name};
        if (value != NULL && !set_value(config, key, values, value, &origin, err))
            return false;
    }
    return true;
}

static bool
apply_repository_environment(Config *config, CairnError *err)
{
    static const char PREFIX[] = "PGCAIRN_REPOSITORY_";
    if (!any_environment(PREFIX, REPOSITORY_KEYS))
        return true;
    if (config->repository_count == 0) {
        const char *name = config->chosen_repository != NULL ? config->chosen_repository : "main";
        if (!name_valid(name))
            return cairn_error(err, CAIRN_USAGE, "PGCAIRN_REPOSITORY is no valid name");
        add_repository(config, name);
    }
    const RepositoryConfig *repository = config_repository(config, NULL, err);
    if (repository == NULL)
        return cairn_error_wrap(err, "unable to apply %s* from the environment", PREFIX);
    return apply_environment(config, PREFIX, REPOSITORY_KEYS,
                             &config->repositories[repository - config->repositories], err);
}

static bool
apply_cluster_environment(Config *config, CairnError *err)
{
    static const char PREFIX[] = "PGCAIRN_CLUSTER_";
    if (!any_environment(PREFIX, CLUSTER_KEYS))
        return true;
    if (config->cluster_count == 0) {
        const char *name = config->chosen_cluster != NULL ? config->chosen_cluster : "main";
        if (!name_valid(name))
            return cairn_error(err, CAIRN_USAGE, "PGCAIRN_CLUSTER is no valid name");
        add_cluster(config, name);
    }
    const ClusterConfig *cluster = config_cluster(config, NULL, err);
    if (cluster == NULL)
        return cairn_error_wrap(err, "unable to apply %s* from the environment", PREFIX);
    return apply_environment(config, PREFIX, CLUSTER_KEYS,
                             &config->clusters[cluster - config->clusters], err);
}

static bool
load_file(Config *config, const World *world, const char *path, CairnError *err)
{
    if (path[0] != '/') {
        char here[PATH_MAX];
        if (getcwd(here, sizeof here) == NULL)
            return cairn_error_errno(err, "unable to find the working directory");
        config->global.file = arena_printf(config->arena, "%s/%s", here, path);
    } else {
        config->global.file = arena_strdup(config->arena, path);
    }

    size_t size;
    SCOPED_MEMORY char *text = file_read_all(world, AT_FDCWD, path, FILE_SIZE_LIMIT, &size, err);
    if (text == NULL)
        return false;
    return parse_text(config, text, size, path, err);
}

static bool
load(Config *config, const World *world, const char *path, CairnError *err)
{
    bool must_exist = true;
    if (path == NULL)
        path = environment("PGCAIRN_CONFIG");
    if (path == NULL) {
        path = CONFIG_DEFAULT_PATH;
        must_exist = false;
    }
    if (!load_file(config, world, path, err)) {
        if (err->kind == CAIRN_NOT_FOUND && !must_exist) {
            cairn_error_clear(err);
            config->global.file = NULL;
        } else if (err->kind == CAIRN_USAGE) {
            return false; /* names file and line already */
        } else {
            return cairn_error_wrap(err, "configuration");
        }
    }
    return apply_environment(config, "PGCAIRN_", GLOBAL_KEYS, &config->global, err) &&
           apply_repository_environment(config, err) && apply_cluster_environment(config, err);
}

Config *
config_load(const World *world, const char *path, CairnError *err)
{
    SCOPED(Config) config = calloc(1, sizeof *config);
    if (config == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    config->arena = arena_new();
    config->global.wal_timeout_s = -1;
    const char *repository = environment("PGCAIRN_REPOSITORY");
    const char *cluster = environment("PGCAIRN_CLUSTER");
    if (repository != NULL)
        config->chosen_repository = arena_strdup(config->arena, repository);
    if (cluster != NULL)
        config->chosen_cluster = arena_strdup(config->arena, cluster);
    if (!load(config, world, path, err))
        return NULL;
    return take(&config);
}

void
config_free(Config *config)
{
    if (config == NULL)
        return;
    arena_free(config->arena);
    free(config);
}

const GlobalConfig *
config_global(const Config *config)
{
    return &config->global;
}

size_t
config_cluster_count(const Config *config)
{
    return config->cluster_count;
}

static void
explain_choice(CairnError *err, const char *kind, const char *name, size_t count)
{
    if (name != NULL)
        cairn_error(err, CAIRN_USAGE, "%s '%.100s' is not configured", kind, name);
    else if (count == 0)
        cairn_error(err, CAIRN_USAGE, "no %s is configured", kind);
    else
        cairn_error(err, CAIRN_USAGE, "%zu of kind %s are configured: say which one", count, kind);
    if (name == NULL && count > 0)
        cairn_error_hint(err, "give --%s NAME", kind);
    else
        cairn_error_hint(err, "add [%s %s] to the configuration file (%s)", kind,
                         name != NULL ? name : "main", CONFIG_DEFAULT_PATH);
}

const ClusterConfig *
config_cluster(const Config *config, const char *name, CairnError *err)
{
    if (name == NULL)
        name = config->chosen_cluster;
    const ClusterConfig *found = NULL;
    if (name != NULL)
        found = find_cluster(config, name);
    else if (config->cluster_count == 1)
        found = &config->clusters[0];
    if (found == NULL)
        explain_choice(err, "cluster", name, config->cluster_count);
    return found;
}

const RepositoryConfig *
config_repository(const Config *config, const char *name, CairnError *err)
{
    if (name == NULL)
        name = config->chosen_repository;
    const RepositoryConfig *found = NULL;
    if (name != NULL)
        found = find_repository(config, name);
    else if (config->repository_count == 1)
        found = &config->repositories[0];
    if (found == NULL)
        explain_choice(err, "repository", name, config->repository_count);
    return found;
}
