/*
 * What the three files of the configuration share: config.c finds, loads and answers,
 * config_text.c reads the INI text, config_values.c knows the keys. Nobody else includes this.
 */
#ifndef PGCAIRN_COMMON_CONFIG_INTERN_H
#define PGCAIRN_COMMON_CONFIG_INTERN_H

#include "common/arena.h"
#include "common/config.h"

enum { CONFIG_FILE_SIZE_LIMIT = 1 << 20, CONFIG_SECTION_LIMIT = 64, CONFIG_NAME_LIMIT = 63 };

struct Config {
    Arena *arena;
    GlobalConfig global;
    RepositoryConfig repositories[CONFIG_SECTION_LIMIT];
    size_t repository_count;
    ClusterConfig clusters[CONFIG_SECTION_LIMIT];
    size_t cluster_count;
    const char *chosen_repository; /* PGCAIRN_REPOSITORY or NULL */
    const char *chosen_cluster;
};

/* Where a value came from, for messages: a line of a file or an environment variable. */
typedef struct {
    const char *file;
    int line;
    const char *variable; /* NULL: a file's line */
} ConfigOrigin;

typedef enum { VALUE_TEXT, VALUE_CHOICE, VALUE_INT, VALUE_SIZE } ValueType;

typedef struct {
    const char *name;
    ValueType type;
    size_t offset;       /* of the field in its section's struct */
    const char *choices; /* " one two " */
    int minimum;
    int maximum;
} ConfigKey;

/* Ended by a NULL name. */
extern const ConfigKey CONFIG_GLOBAL_KEYS[];
extern const ConfigKey CONFIG_REPOSITORY_KEYS[];
extern const ConfigKey CONFIG_CLUSTER_KEYS[];

/* Always false: USAGE with the origin in front. */
bool config_refuse(const ConfigOrigin *origin, CairnError *err, const char *format, ...)
    PRINTF_LIKE(3, 4);
/* Checks value and sets key's field in the section's struct. */
bool config_set_value(Config *config, const ConfigKey *key, void *values, const char *value,
                      const ConfigOrigin *origin, CairnError *err) MUST_CHECK;

bool config_name_valid(const char *name);
/* A new section with its defaults; NULL when there are CONFIG_SECTION_LIMIT of its kind. */
RepositoryConfig *config_add_repository(Config *config, const char *name);
ClusterConfig *config_add_cluster(Config *config, const char *name);
const RepositoryConfig *config_find_repository(const Config *config, const char *name);
const ClusterConfig *config_find_cluster(const Config *config, const char *name);
/* Reads a whole file's text (changed by it; text[size] is its NUL). */
bool config_parse_text(Config *config, char *text, size_t size, const char *file,
                       CairnError *err) MUST_CHECK;

#endif
