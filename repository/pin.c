#include "repository/pin.h"

#include "common/log.h"
#include "common/parallel.h"
#include "repository/condemned.h"
#include "repository/json.h"
#include "repository/mark.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct Pin {
    Repository *repository;
    const char *cluster;
    char token[17];
    uint64_t renewals;
    bool placed;
    bool has_thread;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool ending;
};

static void
object_name(char *name, const char *cluster, const char *token, uint64_t renewal)
{
    if (renewal == 0)
        snprintf(name, STORAGE_NAME_LIMIT, "c/%s/pin/%s", cluster, token);
    else
        snprintf(name, STORAGE_NAME_LIMIT, "c/%s/pin/%s.%" PRIu64, cluster, token, renewal);
}

static json_t *
backups_json(const BackupId *backups, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count && array != NULL; i++) {
        if (json_array_append_new(array, json_string(backups[i].text)) != 0) {
            json_decref(array);
            return NULL; /* a pin that lost an entry would not hold it */
        }
    }
    return array;
}

static bool
place(Pin *pin, const char *purpose, const BackupId *backups, size_t count, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    const World *world = repository_world(pin->repository);
    object_name(name, pin->cluster, pin->token, 0);
    SCOPED_JSON json_t *json =
        json_pack("{s:s, s:s, s:s, s:o, s:o}", "token", pin->token, "purpose", purpose, "program",
                  "pgcairn " PGCAIRN_VERSION, "at", json_time(world->clock->wall_us(world->clock)),
                  "backups", backups_json(backups, count));
    if (json == NULL || !host_put(json))
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    pin->placed = true; /* also where the answer is lost: removing what is not there does no harm */
    return json_put(pin->repository, name, OBJECT_PIN, 0, json, NULL, err) ||
           cairn_error_wrap(err, "unable to pin what is read");
}

static bool
has_summary(Repository *repository, const char *cluster, const BackupId *bid, bool *has_out,
            CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    uint64_t size;
    snprintf(name, sizeof name, "c/%s/b/%s/refs", cluster, bid->text);
    *has_out = storage_exists(repository_storage(repository), name, &size, err);
    if (*has_out)
        return true;
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    return true;
}

/*
 * After the pin is durable; doomed objects before the summary, since a sweep removes them in the
 * other order: neither of both means that it has begun and ended. Below a backup that is alive a
 * doomed object is left over from a collector that gave way to an un-expire and died before it took
 * it back, which deletes nothing; and a summary that is missing is damage, for the reader to
 * report.
 */
static bool
check_backup(Repository *repository, const char *cluster, const BackupId *bid, CairnError *err)
{
    bool doomed, whole = false;
    MarkState marks;
    if (!doomed_any(repository, cluster, bid, &doomed, err) ||
        (!doomed && !has_summary(repository, cluster, bid, &whole, err)))
        return false;
    if (whole)
        return true;
    if (!mark_read(repository, cluster, bid, &marks, err))
        return false;
    if (!marks.expired && !marks.pending)
        return true;
    return cairn_error(err, CAIRN_REFUSED, "backup %s is expired and %s", bid->text,
                       doomed ? "being deleted" : "gone");
}

typedef struct {
    Repository *repository;
    const char *cluster;
    const BackupId *backups;
} PinCheck;

static bool
check_one(void *context, size_t index, CairnError *err)
{
    const PinCheck *check = context;
    return check_backup(check->repository, check->cluster, &check->backups[index], err);
}

static Pin *
pin_new(Repository *repository, const char *cluster, CairnError *err)
{
    Pin *pin = calloc(1, sizeof *pin);
    if (pin == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    pin->repository = repository;
    pin->cluster = cluster;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pin->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&pin->lock, NULL);
    return pin;
}

Pin *
pin_take(Repository *repository, const char *cluster, const char *purpose, const BackupId *backups,
         size_t count, CairnError *err)
{
    SCOPED(Pin) pin = pin_new(repository, cluster, err);
    if (pin == NULL || !random_token(repository_world(repository), pin->token, err) ||
        !place(pin, purpose, backups, count, err))
        return NULL;
    PinCheck check = {repository, cluster, backups};
    const int at_once = storage_requests_at_once(repository_storage(repository));
    return parallel_each(count, at_once, check_one, &check, err) ? take(&pin) : NULL;
}

/* The new name first: there is no moment without the last one. */
bool
pin_renew(Pin *pin, CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    const World *world = repository_world(pin->repository);
    object_name(name, pin->cluster, pin->token, pin->renewals + 1);
    SCOPED_JSON json_t *json = json_pack("{s:s, s:o}", "token", pin->token, "at",
                                         json_time(world->clock->wall_us(world->clock)));
    if (!json_put(pin->repository, name, OBJECT_PIN, 0, json, NULL, err))
        return cairn_error_wrap(err, "unable to renew a pin");
    if (pin->renewals++ == 0)
        return true;
    object_name(name, pin->cluster, pin->token, pin->renewals - 1);
    return storage_remove(repository_storage(pin->repository), name, err);
}

static void *
renew_regularly(void *argument)
{
    Pin *pin = argument;
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    pthread_mutex_lock(&pin->lock);
    while (!pin->ending) {
        due.tv_sec += PIN_RENEW_S;
        while (!pin->ending && pthread_cond_timedwait(&pin->wake, &pin->lock, &due) != ETIMEDOUT)
            continue;
        if (pin->ending)
            break;
        CairnError err = {0};
        if (!pin_renew(pin, &err))
            log_debug("%s", err.message);
    }
    pthread_mutex_unlock(&pin->lock);
    return NULL;
}

bool
pin_keep_alive(Pin *pin, CairnError *err)
{
    CAIRN_ASSERT(!pin->has_thread);
    if (pthread_create(&pin->thread, NULL, renew_regularly, pin) != 0)
        return cairn_error(err, CAIRN_INTERNAL, "unable to start a thread");
    pin->has_thread = true;
    return true;
}

static void
end_thread(Pin *pin)
{
    if (!pin->has_thread)
        return;
    pthread_mutex_lock(&pin->lock);
    pin->ending = true;
    pthread_cond_signal(&pin->wake);
    pthread_mutex_unlock(&pin->lock);
    pthread_join(pin->thread, NULL);
}

static void
remove_ignoring(Pin *pin, uint64_t renewal)
{
    char name[STORAGE_NAME_LIMIT];
    CairnError ignored = {0};
    object_name(name, pin->cluster, pin->token, renewal);
    if (!storage_remove(repository_storage(pin->repository), name, &ignored))
        log_debug("a pin is left to the next collector: %s", ignored.message);
}

void
pin_release(Pin *pin)
{
    if (pin == NULL)
        return;
    end_thread(pin);
    if (pin->placed)
        remove_ignoring(pin, 0);
    if (pin->renewals > 0)
        remove_ignoring(pin, pin->renewals);
    pthread_cond_destroy(&pin->wake);
    pthread_mutex_destroy(&pin->lock);
    free(pin);
}

bool
pin_take_or_warn(Repository *repository, const char *cluster, const char *purpose,
                 const BackupId *backups, size_t count, Pin **pin_out, CairnError *err)
{
    if (repository_is_replica(repository)) {
        *pin_out = NULL; /* nothing is deleted there */
        return true;
    }
    SCOPED(Pin) pin = pin_take(repository, cluster, purpose, backups, count, err);
    if (pin == NULL) {
        if (err->kind != CAIRN_DENIED && err->kind != CAIRN_NO_SPACE)
            return false;
        log_warn("%s; going on without, so a collector may delete an expired backup while it is "
                 "read",
                 err->message);
        cairn_error_clear(err);
        *pin_out = NULL;
        return true;
    }
    if (!pin_keep_alive(pin, err))
        return false;
    *pin_out = take(&pin);
    return true;
}

bool
pin_catalog_or_warn(Repository *repository, const char *cluster, const char *purpose,
                    const Catalog *catalog, Pin **pin_out, CairnError *err)
{
    SCOPED_MEMORY BackupId *backups = calloc(catalog->count + 1, sizeof *backups);
    size_t count = 0;
    if (backups == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = 0; i < catalog->count; i++) {
        if (catalog->backups[i].presence == BACKUP_COMMITTED)
            backups[count++] = catalog->backups[i].bid;
    }
    return pin_take_or_warn(repository, cluster, purpose, backups, count, pin_out, err);
}
