#include "storage/serve_policy.h"

#include "storage/storage.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* A reader has two pins at a time: itself and its last sign of life. What falls out of the ring
 * stays for the repository host. */
enum { PIN_LIMIT = 64 };

struct ServePolicy {
    const char *const *clusters;
    size_t cluster_count;
    const char *host;
    pthread_mutex_t lock;
    char pins[PIN_LIMIT][STORAGE_NAME_LIMIT + 1];
    size_t next_pin;
};

ServePolicy *
serve_policy_new(const char *const *clusters, size_t count, const char *host, CairnError *err)
{
    ServePolicy *policy = calloc(1, sizeof *policy);
    if (policy == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    policy->clusters = clusters;
    policy->cluster_count = count;
    policy->host = host;
    pthread_mutex_init(&policy->lock, NULL);
    return policy;
}

void
serve_policy_free(ServePolicy *policy)
{
    if (policy == NULL)
        return;
    pthread_mutex_destroy(&policy->lock);
    free(policy);
}

/* What follows the prefix and a slash; "" for the prefix itself; NULL when name is elsewhere. */
static const char *
below(const char *name, const char *prefix)
{
    const size_t size = strlen(prefix);
    if (strncmp(name, prefix, size) != 0)
        return NULL;
    if (name[size] == '\0')
        return name + size;
    return name[size] == '/' ? name + size + 1 : NULL;
}

/* What follows "c/<cluster>/" of one of the named clusters. */
static const char *
below_cluster(const ServePolicy *policy, const char *name)
{
    const char *rest = below(name, "c");
    for (size_t i = 0; rest != NULL && i < policy->cluster_count; i++) {
        const char *found = below(rest, policy->clusters[i]);
        if (found != NULL)
            return found;
    }
    return NULL;
}

static bool
may_read(const ServePolicy *policy, const char *name)
{
    return strcmp(name, "pgcairn.repo") == 0 || strcmp(name, "pgcairn.replica") == 0 ||
           below(name, "keys") != NULL || below_cluster(policy, name) != NULL;
}

static bool
may_list(const ServePolicy *policy, const char *prefix)
{
    return prefix[0] == '\0' || strcmp(prefix, "c") == 0 || may_read(policy, prefix);
}

static bool
begins_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* Of a backup: rest is what follows its id. */
static bool
is_part_of_backup(const char *rest)
{
    static const char *const WHOLE[] = {"intent", "refs", "fate"};
    static const char *const BEGINNINGS[] = {"p/",           "m/",          "ev.scrubbed.",
                                             "ev.verified.", "ev.drilled.", "ev.failed."};
    for (size_t i = 0; i < sizeof WHOLE / sizeof WHOLE[0]; i++) {
        if (strcmp(rest, WHOLE[i]) == 0)
            return true;
    }
    for (size_t i = 0; i < sizeof BEGINNINGS / sizeof BEGINNINGS[0]; i++) {
        if (begins_with(rest, BEGINNINGS[i]))
            return true;
    }
    return false;
}

/* A list of what is allowed, so that a name of a later version is refused until somebody has
 * thought about it. */
static bool
may_create(const ServePolicy *policy, const char *name)
{
    const char *rest = below_cluster(policy, name);
    if (rest == NULL)
        return false;
    if (begins_with(rest, "i/") || begins_with(rest, "w/") || begins_with(rest, "pin/") ||
        (begins_with(rest, "check-") && strchr(rest, '/') == NULL))
        return true;
    const char *backup = below(rest, "b");
    const char *part = backup != NULL ? strchr(backup, '/') : NULL;
    return part != NULL && is_part_of_backup(part + 1);
}

/* Its place in the ring; PIN_LIMIT when this connection did not create it. */
static size_t
find_pin(const ServePolicy *policy, const char *name)
{
    size_t at = 0;
    while (at < PIN_LIMIT && strcmp(policy->pins[at], name) != 0)
        at++;
    return at;
}

void
serve_policy_note_created(ServePolicy *policy, const char *name)
{
    const char *rest = policy != NULL ? below_cluster(policy, name) : NULL;
    if (rest == NULL || !begins_with(rest, "pin/"))
        return;
    pthread_mutex_lock(&policy->lock);
    const size_t free_place = find_pin(policy, "");
    const size_t place = free_place < PIN_LIMIT ? free_place : policy->next_pin;
    snprintf(policy->pins[place], sizeof policy->pins[place], "%s", name);
    policy->next_pin = (place + 1) % PIN_LIMIT;
    pthread_mutex_unlock(&policy->lock);
}

/* True once: whoever creates the name after that is somebody else. */
static bool
take_pin(ServePolicy *policy, const char *name)
{
    pthread_mutex_lock(&policy->lock);
    const size_t place = find_pin(policy, name);
    const bool found = name[0] != '\0' && place < PIN_LIMIT;
    if (found)
        policy->pins[place][0] = '\0';
    pthread_mutex_unlock(&policy->lock);
    return found;
}

static bool
deny(const ServePolicy *policy, const char *verb, const char *name, CairnError *err)
{
    cairn_error(err, CAIRN_DENIED, "this connection is create-only: it may not %s '%s'", verb,
                name);
    return cairn_error_hint(
        err,
        "run expire, keep, release, collect and what else lets go of backups on "
        "the repository host, %s",
        policy->host);
}

static bool
deny_other(const ServePolicy *policy, const char *verb, const char *name, CairnError *err)
{
    char clusters[512] = "";
    for (size_t i = 0; i < policy->cluster_count; i++) {
        const size_t used = strlen(clusters);
        snprintf(clusters + used, sizeof clusters - used, "%s%s", i > 0 ? ", " : "",
                 policy->clusters[i]);
    }
    cairn_error(err, CAIRN_DENIED, "this connection may not %s '%s'", verb, name);
    return cairn_error_hint(
        err, "its key is for cluster %s: authorized_keys on the repository host, %s, says so",
        clusters, policy->host);
}

bool
serve_policy_check(ServePolicy *policy, ServeAct act, const char *name, CairnError *err)
{
    if (policy == NULL)
        return true;
    switch (act) {
    case SERVE_READ:
        return may_read(policy, name) || deny_other(policy, "read", name, err);
    case SERVE_LIST:
        return may_list(policy, name) || deny_other(policy, "list", name, err);
    case SERVE_CREATE:
        if (may_create(policy, name))
            return true;
        if (strcmp(name, "pgcairn.repo") == 0) {
            cairn_error(err, CAIRN_DENIED,
                        "this connection is create-only: it may not make a repository");
            return cairn_error_hint(
                err, "run `pgcairn init --no-server` on the repository host, %s, first",
                policy->host);
        }
        return below_cluster(policy, name) != NULL ? deny(policy, "create", name, err)
                                                   : deny_other(policy, "create", name, err);
    case SERVE_REMOVE:
        return take_pin(policy, name) || deny(policy, "remove", name, err);
    case SERVE_SWEEP:
        return deny(policy, "clean up", name, err);
    }
    return deny(policy, "touch", name, err);
}

bool
serve_policy_shows(const ServePolicy *policy, const char *prefix, const char *entry)
{
    char name[2 * STORAGE_NAME_LIMIT + 2];
    if (policy == NULL)
        return true;
    snprintf(name, sizeof name, "%s%s%s", prefix, prefix[0] != '\0' ? "/" : "", entry);
    return strcmp(name, "c") == 0 || may_read(policy, name);
}
