/* Credentials that somebody wrote down: in our configuration, or in the environment. */
#include "storage/s3/credentials_intern.h"

#include "common/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* One line, which is all there is: its newline goes. */
static bool
cut_line(Secret *secret, const char *path, CairnError *err)
{
    char *text = (char *)secret->data;
    text[secret->size] = '\0';
    const size_t line = strcspn(text, "\r\n");
    if (line == 0 || line + strspn(text + line, "\r\n") != secret->size)
        return cairn_error(err, CAIRN_USAGE, "'%s' is not one line of text", path);
    text[line] = '\0';
    secret->size = line;
    return true;
}

static bool
take_from_file(const World *world, const char *path, char *field, size_t field_size,
               CairnError *err)
{
    SCOPED(Secret) secret = secret_read_file(world, path, S3_SESSION_TOKEN_SIZE, err);
    return secret != NULL && cut_line(secret, path, err) &&
           credentials_take(field, field_size, (const char *)secret->data, path, err);
}

/* From a key's own text, else from its file. */
static bool
take_key(const World *world, const char *text, const char *path, char *field, size_t field_size,
         const char *what, CairnError *err)
{
    if (text != NULL && path != NULL)
        return cairn_error(err, CAIRN_USAGE, "%s and %s-file are both set", what, what);
    if (text != NULL)
        return credentials_take(field, field_size, text, what, err);
    if (path != NULL)
        return take_from_file(world, path, field, field_size, err);
    return cairn_error(err, CAIRN_USAGE, "%s or %s-file is missing", what, what);
}

ProviderResult
provider_config(CredentialSearch *search, CairnError *err)
{
    const S3Config *config = search->config;
    S3Credentials *found = search->found;
    const bool any = config->access_key != NULL || config->access_key_file != NULL ||
                     config->secret_key != NULL || config->secret_key_file != NULL ||
                     config->session_token_file != NULL;
    if (!any)
        return credentials_absent(search, "configuration: no access-key");
    if (!take_key(search->world, config->access_key, config->access_key_file, found->access_key,
                  sizeof found->access_key, "access-key", err) ||
        !take_key(search->world, config->secret_key, config->secret_key_file, found->secret_key,
                  sizeof found->secret_key, "secret-key", err))
        return PROVIDER_FAILED;
    if (config->session_token_file != NULL &&
        !take_from_file(search->world, config->session_token_file, found->session_token,
                        sizeof found->session_token, err))
        return PROVIDER_FAILED;
    snprintf(search->from, sizeof search->from, "configuration");
    search->rotates = config->access_key_file != NULL || config->secret_key_file != NULL ||
                      config->session_token_file != NULL;
    return PROVIDER_FOUND;
}

ProviderResult
provider_environment(CredentialSearch *search, CairnError *err)
{
    S3Credentials *found = search->found;
    const char *access_key = credentials_environment("AWS_ACCESS_KEY_ID");
    const char *secret_key = credentials_environment("AWS_SECRET_ACCESS_KEY");
    const char *session_token = credentials_environment("AWS_SESSION_TOKEN");
    if (access_key == NULL && secret_key == NULL)
        return credentials_absent(search, "environment: AWS_ACCESS_KEY_ID is not set");
    if (access_key == NULL || secret_key == NULL) {
        cairn_error(err, CAIRN_USAGE, "%s is set, %s is not",
                    access_key != NULL ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
                    access_key != NULL ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
        return PROVIDER_FAILED;
    }
    if (!credentials_take(found->access_key, sizeof found->access_key, access_key,
                          "AWS_ACCESS_KEY_ID", err) ||
        !credentials_take(found->secret_key, sizeof found->secret_key, secret_key,
                          "AWS_SECRET_ACCESS_KEY", err))
        return PROVIDER_FAILED;
    if (session_token != NULL &&
        !credentials_take(found->session_token, sizeof found->session_token, session_token,
                          "AWS_SESSION_TOKEN", err))
        return PROVIDER_FAILED;
    snprintf(search->from, sizeof search->from, "environment");
    return PROVIDER_FOUND;
}

Secret *
credentials_read_token(const World *world, const char *path, CairnError *err)
{
    const Disk *disk = world->disk;
    const int fd = disk->openat(disk, AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0) {
        cairn_error_errno(err, "unable to open '%s'", path);
        return NULL;
    }
    enum { LIMIT = 32 * 1024 };
    SCOPED(Secret) secret = secret_new(LIMIT, err);
    size_t size = 0;
    const bool read = secret != NULL && file_read(world, fd, secret->data, LIMIT, &size, path, err);
    disk->close(disk, fd);
    if (!read)
        return NULL;
    if (size == LIMIT) {
        cairn_error(err, CAIRN_USAGE, "'%s' is too large for a token", path);
        return NULL;
    }
    secret->size = size;
    return cut_line(secret, path, err) ? take(&secret) : NULL;
}
