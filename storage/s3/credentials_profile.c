/*
 * The shared credentials and configuration files of AWS's tools: an INI grammar of its own.
 *
 * Sections are [name] in the credentials file and [profile name] or [default] in the configuration
 * file. A line that starts with a blank belongs to the setting above it and is skipped. Comments
 * start with # or ;, at a line's start or behind a blank. Unknown settings are skipped: the files
 * are shared. Source: "Shared config and credentials files" of the SDKs' reference guide.
 */
#include "storage/s3/credentials_intern.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROFILE_FILE_LIMIT = 256 << 10, PROFILE_PATH_SIZE = 4096, PROFILE_VALUE_SIZE = 2048 };

typedef struct {
    bool seen;
    S3Credentials credentials;
    char role[PROFILE_VALUE_SIZE];
    char token_file[PROFILE_PATH_SIZE];
    char session_name[PROFILE_VALUE_SIZE];
    const char *unsupported; /* a setting that we cannot follow */
} Profile;

static void
wipe_profile(Profile *profile)
{
    OPENSSL_cleanse(profile, sizeof *profile);
}

/* What only makes sense when no keys are there: where they would come from. */
static const char *
unsupported_setting(const char *name)
{
    static const char *const NAMES[] = {"credential_process", "source_profile", "credential_source",
                                        "sso_session",        "sso_start_url",  "login_session"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        if (strcmp(name, NAMES[i]) == 0)
            return NAMES[i];
    return NULL;
}

static bool
take_setting(Profile *profile, const char *name, const char *value, CairnError *err)
{
    S3Credentials *found = &profile->credentials;
    const struct {
        const char *name;
        char *field;
        size_t size;
    } fields[] = {
        {"aws_access_key_id", found->access_key, sizeof found->access_key},
        {"aws_secret_access_key", found->secret_key, sizeof found->secret_key},
        {"aws_session_token", found->session_token, sizeof found->session_token},
        {"role_arn", profile->role, sizeof profile->role},
        {"web_identity_token_file", profile->token_file, sizeof profile->token_file},
        {"role_session_name", profile->session_name, sizeof profile->session_name},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strcmp(name, fields[i].name) == 0)
            return credentials_take(fields[i].field, fields[i].size, value, name, err);
    const char *unsupported = unsupported_setting(name);
    if (unsupported != NULL)
        profile->unsupported = unsupported;
    return true;
}

/* Without blanks at its ends; changes the text. */
static char *
trim(char *text)
{
    text += strspn(text, " \t");
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r", text[length - 1]) != NULL)
        length--;
    text[length] = '\0';
    return text;
}

static void
cut_comment(char *value)
{
    for (char *at = value; *at != '\0'; at++)
        if ((*at == '#' || *at == ';') && at > value && (at[-1] == ' ' || at[-1] == '\t')) {
            *at = '\0';
            return;
        }
}

/* "[profile backup]" or "[backup]" of the wanted name? */
static bool
is_section_of(char *line, const char *wanted, bool is_config)
{
    char *end = strchr(line, ']');
    if (end == NULL)
        return false;
    *end = '\0';
    char *name = trim(line + 1);
    static const char WORD[] = "profile";
    const size_t word = sizeof WORD - 1;
    const bool has_word =
        strncmp(name, WORD, word) == 0 && strchr(" \t", name[word]) != NULL && name[word] != '\0';
    if (is_config && has_word)
        name = trim(name + word);
    else if (is_config && strcmp(name, "default") != 0)
        return false;
    return strcmp(name, wanted) == 0;
}

static bool
parse_line(Profile *profile, char *line, const char *wanted, bool is_config, bool *in_section,
           CairnError *err)
{
    if (line[0] == '\0' || strchr(" \t#;\r", line[0]) != NULL)
        return true;
    if (line[0] == '[') {
        *in_section = is_section_of(line, wanted, is_config);
        profile->seen = profile->seen || *in_section;
        return true;
    }
    char *equals = strchr(line, '=');
    if (!*in_section || equals == NULL)
        return true;
    *equals = '\0';
    cut_comment(equals + 1);
    char *value = trim(equals + 1);
    return value[0] == '\0' || take_setting(profile, trim(line), value, err);
}

static bool
parse_profile(Profile *profile, Secret *text, const char *wanted, bool is_config, const char *path,
              CairnError *err)
{
    char *line = (char *)text->data;
    line[text->size] = '\0';
    bool in_section = false;
    for (size_t number = 1; line != NULL; number++) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end = '\0';
        if (!parse_line(profile, line, wanted, is_config, &in_section, err))
            return cairn_error_wrap(err, "'%s' line %zu", path, number);
        line = end != NULL ? end + 1 : NULL;
    }
    return true;
}

/* A file that is not there, or that is in somebody else's home, is none; one that others can read
   is refused. */
static bool
read_profile(const World *world, Profile *profile, const char *wanted, bool is_config,
             const char *path, CairnError *err)
{
    if (path[0] == '\0')
        return true;
    SCOPED(Secret) text = secret_read_file(world, path, PROFILE_FILE_LIMIT, err);
    if (text != NULL)
        return parse_profile(profile, text, wanted, is_config, path, err);
    if (err->kind != CAIRN_NOT_FOUND && err->system_errno != EACCES)
        return false;
    cairn_error_clear(err);
    return true;
}

/* "" when there is no home to be found. */
static void
default_path(const char *name, char path[PROFILE_PATH_SIZE])
{
    const char *home = credentials_environment("HOME");
    char buffer[1024];
    struct passwd entry;
    struct passwd *found = NULL;
    if (home == NULL && getpwuid_r(geteuid(), &entry, buffer, sizeof buffer, &found) == 0 &&
        found != NULL)
        home = found->pw_dir;
    path[0] = '\0';
    if (home != NULL &&
        snprintf(path, PROFILE_PATH_SIZE, "%s/.aws/%s", home, name) >= PROFILE_PATH_SIZE)
        path[0] = '\0';
}

static void
choose_path(const char *configured, const char *variable, const char *name,
            char path[PROFILE_PATH_SIZE])
{
    const char *chosen = configured != NULL ? configured : credentials_environment(variable);
    if (chosen == NULL)
        default_path(name, path);
    else if (snprintf(path, PROFILE_PATH_SIZE, "%s", chosen) >= PROFILE_PATH_SIZE)
        path[0] = '\0';
}

static ProviderResult
use_profile(CredentialSearch *search, const Profile *profile, const char *name, const char *path,
            CairnError *err)
{
    snprintf(search->from, sizeof search->from, "profile '%.100s' of '%.380s'", name, path);
    search->rotates = true;
    const S3Credentials *credentials = &profile->credentials;
    if (credentials->access_key[0] != '\0' && credentials->secret_key[0] != '\0') {
        *search->found = *credentials;
        return PROVIDER_FOUND;
    }
    if (profile->role[0] != '\0' && profile->token_file[0] != '\0') {
        const char *session = profile->session_name[0] != '\0' ? profile->session_name : NULL;
        if (credentials_assume_role(search, profile->role, profile->token_file, session, err))
            return PROVIDER_FOUND;
        cairn_error_wrap(err, "profile '%s'", name);
        return PROVIDER_FAILED;
    }
    if (profile->unsupported != NULL) {
        cairn_error(err, CAIRN_UNSUPPORTED, "profile '%s' uses %s, which we cannot follow", name,
                    profile->unsupported);
        cairn_error_hint(err,
                         "give it aws_access_key_id and aws_secret_access_key, or role_arn and "
                         "web_identity_token_file");
    } else {
        cairn_error(err, CAIRN_USAGE,
                    "profile '%s' has no aws_access_key_id and aws_secret_access_key", name);
    }
    return PROVIDER_FAILED;
}

static ProviderResult
find_profile(CredentialSearch *search, bool must_exist, CairnError *err)
{
    const S3Config *config = search->config;
    const char *name =
        config->profile != NULL ? config->profile : credentials_environment("AWS_PROFILE");
    must_exist = must_exist || name != NULL;
    if (name == NULL)
        name = "default";
    char credentials_path[PROFILE_PATH_SIZE];
    char config_path[PROFILE_PATH_SIZE];
    choose_path(config->credentials_file, "AWS_SHARED_CREDENTIALS_FILE", "credentials",
                credentials_path);
    choose_path(NULL, "AWS_CONFIG_FILE", "config", config_path);

    __attribute__((cleanup(wipe_profile))) Profile profile = {0};
    /* The credentials file's word stands: it is read last. */
    if (!read_profile(search->world, &profile, name, true, config_path, err) ||
        !read_profile(search->world, &profile, name, false, credentials_path, err))
        return PROVIDER_FAILED;
    if (profile.seen && (must_exist || profile.credentials.access_key[0] != '\0' ||
                         profile.credentials.secret_key[0] != '\0' || profile.role[0] != '\0' ||
                         profile.unsupported != NULL))
        return use_profile(search, &profile, name, credentials_path, err);
    if (!must_exist)
        return credentials_absent(search, "profile: no 'default' with keys in '%s'",
                                  credentials_path);
    cairn_error(err, CAIRN_USAGE, "there is no profile '%s' in '%s' or '%s'", name,
                credentials_path, config_path);
    return PROVIDER_FAILED;
}

ProviderResult
provider_chosen_profile(CredentialSearch *search, CairnError *err)
{
    if (search->config->profile == NULL && search->config->credentials_file == NULL)
        return PROVIDER_ABSENT;
    return find_profile(search, true, err);
}

ProviderResult
provider_profile(CredentialSearch *search, CairnError *err)
{
    return find_profile(search, false, err);
}
