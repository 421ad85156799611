#include "common/config_intern.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/*
 * The parser is our own, 80 lines: libinih cuts section names at 50 bytes without a word, does not
 * report empty sections ([cluster main] alone is a valid one), and cuts values at " ;".
 */

/* The section that lines or variables go into. */
typedef struct {
    const ConfigKey *keys;
    void *values;
    char title[CONFIG_NAME_LIMIT + 16]; /* "[cluster main]" */
    uint64_t seen;                      /* bit i: keys[i] was given in the file */
} Section;

/* Names become parts of object names, so they keep to the characters that those may have. */
bool
config_name_valid(const char *name)
{
    static const char ALLOWED[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    const size_t length = strlen(name);
    return length > 0 && length <= CONFIG_NAME_LIMIT && name[0] != '.' &&
           strspn(name, ALLOWED) == length;
}

RepositoryConfig *
config_add_repository(Config *config, const char *name)
{
    if (config->repository_count == CONFIG_SECTION_LIMIT)
        return NULL;
    RepositoryConfig *repository = &config->repositories[config->repository_count++];
    *repository = (RepositoryConfig){
        .name = arena_strdup(config->arena, name), .type = "posix", .compression = "lz4"};
    return repository;
}

ClusterConfig *
config_add_cluster(Config *config, const char *name)
{
    if (config->cluster_count == CONFIG_SECTION_LIMIT)
        return NULL;
    ClusterConfig *cluster = &config->clusters[config->cluster_count++];
    *cluster = (ClusterConfig){.name = arena_strdup(config->arena, name)};
    return cluster;
}

const RepositoryConfig *
config_find_repository(const Config *config, const char *name)
{
    for (size_t i = 0; i < config->repository_count; i++) {
        if (strcmp(config->repositories[i].name, name) == 0)
            return &config->repositories[i];
    }
    return NULL;
}

const ClusterConfig *
config_find_cluster(const Config *config, const char *name)
{
    for (size_t i = 0; i < config->cluster_count; i++) {
        if (strcmp(config->clusters[i].name, name) == 0)
            return &config->clusters[i];
    }
    return NULL;
}

/* text is what stands between the brackets. */
static bool
enter_section(Config *config, char *text, const ConfigOrigin *origin, Section *section,
              CairnError *err)
{
    *section = (Section){0};
    if (strcmp(text, "global") == 0) {
        section->keys = CONFIG_GLOBAL_KEYS;
        section->values = &config->global;
        snprintf(section->title, sizeof section->title, "[global]");
        return true;
    }

    const size_t kind_length = strcspn(text, " \t");
    const char *name = text + kind_length + strspn(text + kind_length, " \t");
    text[kind_length] = '\0';
    const bool is_cluster = strcmp(text, "cluster") == 0;
    if (!is_cluster && strcmp(text, "repository") != 0)
        return config_refuse(
            origin, err,
            "unknown section '%.100s': expected global, repository NAME or cluster NAME", text);
    if (!config_name_valid(name))
        return config_refuse(
            origin, err,
            "section '%s' needs a name of at most %d letters, digits, '_', '-' and '.'", text,
            CONFIG_NAME_LIMIT);
    if (is_cluster ? config_find_cluster(config, name) != NULL
                   : config_find_repository(config, name) != NULL)
        return config_refuse(origin, err, "%s '%s' is defined twice", text, name);

    section->keys = is_cluster ? CONFIG_CLUSTER_KEYS : CONFIG_REPOSITORY_KEYS;
    section->values =
        is_cluster ? (void *)config_add_cluster(config, name) : config_add_repository(config, name);
    if (section->values == NULL)
        return config_refuse(origin, err, "more than %d sections of one kind",
                             CONFIG_SECTION_LIMIT);
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
read_setting(Config *config, Section *section, char *line, const ConfigOrigin *origin,
             CairnError *err)
{
    char *equals = strchr(line, '=');
    if (equals == NULL)
        return config_refuse(origin, err, "expected 'key = value' or '[section]'");
    *equals = '\0';
    const char *name = trim(line);
    const char *value = trim(equals + 1);
    if (section->keys == NULL)
        return config_refuse(origin, err, "'%.100s' stands before the first section", name);

    for (size_t i = 0; section->keys[i].name != NULL; i++) {
        CAIRN_ASSERT(i < 64); /* bits of seen */
        if (strcmp(section->keys[i].name, name) != 0)
            continue;
        if ((section->seen & UINT64_C(1) << i) != 0)
            return config_refuse(origin, err, "'%s' is given twice in %s", name, section->title);
        section->seen |= UINT64_C(1) << i;
        return config_set_value(config, &section->keys[i], section->values, value, origin, err);
    }
    return config_refuse(origin, err, "unknown key '%.100s' in %s", name, section->title);
}

bool
config_parse_text(Config *config, char *text, size_t size, const char *file, CairnError *err)
{
    ConfigOrigin origin = {.file = file};
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
            return config_refuse(&origin, err, "a NUL byte");

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
            return config_refuse(&origin, err,
                                 "a section is written [kind name], alone on its line");
        *bracket = '\0';
        if (!enter_section(config, trim(line + 1), &origin, &section, err))
            return false;
    }
    return true;
}
