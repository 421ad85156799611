#include "common/config.h"

#include "common/config_intern.h"
#include "common/file.h"
#include "common/secret.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

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
any_environment(const char *prefix, const ConfigKey *keys)
{
    char name[128];
    for (const ConfigKey *key = keys; key->name != NULL; key++) {
        if (key_environment(prefix, key->name, name, sizeof name) != NULL)
            return true;
    }
    return false;
}

static bool
apply_environment(Config *config, const char *prefix, const ConfigKey *keys, void *values,
                  CairnError *err)
{
    char name[128];
    for (const ConfigKey *key = keys; key->name != NULL; key++) {
        const char *value = key_environment(prefix, key->name, name, sizeof name);
        const ConfigOrigin origin = {.variable = name};
        if (value != NULL && !config_set_value(config, key, values, value, &origin, err))
            return false;
    }
    return true;
}

static bool
apply_repository_environment(Config *config, CairnError *err)
{
    static const char PREFIX[] = "PGCAIRN_REPOSITORY_";
    if (!any_environment(PREFIX, CONFIG_REPOSITORY_KEYS))
        return true;
    if (config->repository_count == 0) {
        const char *name = config->chosen_repository != NULL ? config->chosen_repository : "main";
        if (!config_name_valid(name))
            return cairn_error(err, CAIRN_USAGE, "PGCAIRN_REPOSITORY is no valid name");
        config_add_repository(config, name);
    }
    const RepositoryConfig *repository = config_repository(config, NULL, err);
    if (repository == NULL)
        return cairn_error_wrap(err, "unable to apply %s* from the environment", PREFIX);
    return apply_environment(config, PREFIX, CONFIG_REPOSITORY_KEYS,
                             &config->repositories[repository - config->repositories], err);
}

static bool
apply_cluster_environment(Config *config, CairnError *err)
{
    static const char PREFIX[] = "PGCAIRN_CLUSTER_";
    if (!any_environment(PREFIX, CONFIG_CLUSTER_KEYS))
        return true;
    if (config->cluster_count == 0) {
        const char *name = config->chosen_cluster != NULL ? config->chosen_cluster : "main";
        if (!config_name_valid(name))
            return cairn_error(err, CAIRN_USAGE, "PGCAIRN_CLUSTER is no valid name");
        config_add_cluster(config, name);
    }
    const ClusterConfig *cluster = config_cluster(config, NULL, err);
    if (cluster == NULL)
        return cairn_error_wrap(err, "unable to apply %s* from the environment", PREFIX);
    return apply_environment(config, PREFIX, CONFIG_CLUSTER_KEYS,
                             &config->clusters[cluster - config->clusters], err);
}

/* A secret in the file itself: then the file is one. */
static bool
check_secret_place(const Config *config, const World *world, const char *path, CairnError *err)
{
    for (size_t i = 0; i < config->repository_count; i++) {
        const RepositoryConfig *repository = &config->repositories[i];
        if (repository->s3.secret_key == NULL || secret_file_check(world, path, err))
            continue;
        cairn_error_wrap(err, "secret-key of repository '%s'", repository->name);
        return cairn_error_hint(err,
                                "put it into a file that nobody else can read and name that "
                                "by secret-key-file, or close this one: chmod 600 '%s'",
                                path);
    }
    return true;
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
    SCOPED_MEMORY char *text =
        file_read_all(world, AT_FDCWD, path, CONFIG_FILE_SIZE_LIMIT, &size, err);
    if (text == NULL)
        return false;
    return config_parse_text(config, text, size, path, err) &&
           check_secret_place(config, world, path, err);
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
            if (err->kind == CAIRN_NOT_FOUND)
                err->kind = CAIRN_USAGE; /* somebody named a file that is not there */
            return cairn_error_wrap(err, "configuration");
        }
    }
    return apply_environment(config, "PGCAIRN_", CONFIG_GLOBAL_KEYS, &config->global, err) &&
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
    config->global.refresh_percent = -1;
    config->global.get_prefetch = -1;
    const char *repository = environment("PGCAIRN_REPOSITORY");
    const char *cluster = environment("PGCAIRN_CLUSTER");
    if (repository != NULL)
        config->chosen_repository = arena_strdup(config->arena, repository);
    if (cluster != NULL)
        config->chosen_cluster = arena_strdup(config->arena, cluster);
    if (!load(config, world, path, err))
        return NULL;
    for (size_t i = 0; i < config->repository_count; i++)
        config->repositories[i].spool_path = config->global.spool_path;
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

size_t
config_repository_count(const Config *config)
{
    return config->repository_count;
}

const RepositoryConfig *
config_repository_at(const Config *config, size_t index)
{
    CAIRN_ASSERT(index < config->repository_count);
    return &config->repositories[index];
}

bool
config_assume_cluster(Config *config, const char *name, CairnError *err)
{
    if (name == NULL)
        name = config->chosen_cluster;
    if (name == NULL || config->cluster_count > 0)
        return true;
    if (!config_name_valid(name))
        return cairn_error(err, CAIRN_USAGE, "'%.100s' is no name of a cluster", name);
    CAIRN_ASSERT(config_add_cluster(config, name) != NULL);
    return true;
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
        found = config_find_cluster(config, name);
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
        found = config_find_repository(config, name);
    else if (config->repository_count == 1)
        found = &config->repositories[0];
    if (found == NULL)
        explain_choice(err, "repository", name, config->repository_count);
    return found;
}

/* The next name of a comma-separated list, without the blanks around it; NULL: too long. */
static const char *
next_name(const char **names, char *name, size_t size)
{
    const char *start = *names + strspn(*names, " \t");
    size_t length = strcspn(start, ",");

    *names = start + length + (start[length] == ',' ? 1 : 0);
    while (length > 0 && (start[length - 1] == ' ' || start[length - 1] == '\t'))
        length--;
    if (length >= size)
        return NULL;
    memcpy(name, start, length);
    name[length] = '\0';
    return name;
}

bool
config_repositories(const Config *config, const char *names,
                    const RepositoryConfig *list_out[CONFIG_REPOSITORIES_LIMIT], size_t *count_out,
                    CairnError *err)
{
    char name[128];
    size_t count = 0;

    for (const char *rest = names; names == NULL || *rest != '\0';) {
        if (names != NULL && (next_name(&rest, name, sizeof name) == NULL || name[0] == '\0'))
            return cairn_error(err, CAIRN_USAGE, "'%.200s' is no list of repositories", names);
        const RepositoryConfig *found = config_repository(config, names != NULL ? name : NULL, err);
        if (found == NULL)
            return false;
        for (size_t i = 0; i < count; i++) {
            if (list_out[i] == found)
                return cairn_error(err, CAIRN_USAGE, "repository '%s' is named twice in '%.200s'",
                                   found->name, names);
        }
        if (count == CONFIG_REPOSITORIES_LIMIT)
            return cairn_error(err, CAIRN_USAGE, "'%.200s' names more than %d repositories", names,
                               CONFIG_REPOSITORIES_LIMIT);
        list_out[count++] = found;
        if (names == NULL)
            break;
    }
    if (count == 0)
        return cairn_error(err, CAIRN_USAGE, "a list of repositories is empty");
    *count_out = count;
    return true;
}

bool
repository_is_required(const RepositoryConfig *config)
{
    return config->required == NULL || strcmp(config->required, "no") != 0;
}
