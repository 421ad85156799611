#include "storage/connect.h"

#include "storage/driver_load.h"
#include "storage/posix.h"
#include "storage/s3_config.h"
#include "storage/ssh.h"

#include <stdio.h>
#include <string.h>

static const char *
type_of(const RepositoryConfig *config)
{
    return config->type != NULL ? config->type : "posix";
}

bool
storage_is_directory(const RepositoryConfig *config)
{
    return strcmp(type_of(config), "posix") == 0;
}

static bool
is_ssh(const RepositoryConfig *config)
{
    return strcmp(type_of(config), "ssh") == 0;
}

static bool
is_s3(const RepositoryConfig *config)
{
    return strcmp(type_of(config), "s3") == 0;
}

bool
storage_config_check(const RepositoryConfig *config, CairnError *err)
{
    if (is_ssh(config))
        return ssh_config_check(config, err);
    if (is_s3(config))
        return s3_config_check(config, err);
    if (!storage_is_directory(config)) {
        cairn_error(err, CAIRN_UNSUPPORTED,
                    "repository '%s': type '%s' is not supported by this version", config->name,
                    config->type);
        return cairn_error_hint(err, "use type = posix, s3 or ssh");
    }
    if (config->path == NULL || config->path[0] != '/') {
        cairn_error(err, CAIRN_USAGE, "repository '%s' needs an absolute path", config->name);
        return cairn_error_hint(err, "set path = /var/lib/pgcairn in section [repository %s]",
                                config->name);
    }
    return true;
}

Storage *
storage_connect(const World *world, const RepositoryConfig *config, bool create, CairnError *err)
{
    if (!storage_config_check(config, err))
        return NULL;
    if (is_ssh(config))
        return ssh_storage_open(world, config, create, err);
    if (is_s3(config)) {
        const StorageDriver *driver = storage_driver_s3(err);
        return driver != NULL ? driver->open(world, config, err) : NULL;
    }
    return posix_storage_open(world, config->path, create, err);
}

/* NULL as "". */
static const char *
text_of(const char *text)
{
    return text != NULL ? text : "";
}

/* The place over there is named by the key (its forced command) or by the program's options, so
   these are part of the name: what one repository has must never be believed of another on the same
   host. */
static void
ssh_place_text(const RepositoryConfig *config, char text[STORAGE_PLACE_TEXT_SIZE])
{
    const char *program = config->ssh.program;
    const char *command = config->ssh.command;
    snprintf(text, STORAGE_PLACE_TEXT_SIZE, "ssh://%s%s%s%s%s%s", text_of(config->ssh.host),
             text_of(config->path), program != NULL ? " by " : "", text_of(program),
             command != NULL ? " through " : "", text_of(command));
}

void
storage_place_text(const RepositoryConfig *config, char text[STORAGE_PLACE_TEXT_SIZE])
{
    if (is_s3(config))
        snprintf(text, STORAGE_PLACE_TEXT_SIZE, "s3://%s/%s at %s", text_of(config->s3.bucket),
                 text_of(config->s3.prefix), text_of(config->s3.endpoint));
    else if (is_ssh(config))
        ssh_place_text(config, text);
    else
        snprintf(text, STORAGE_PLACE_TEXT_SIZE, "%s", text_of(config->path));
}
