/*
 * The model storage. Of an object two things are told apart: whether it is *seen* and whether it is
 * *durable*. A file system lets a name be seen at link and makes it durable when its directory is
 * synced, together with everything else in that directory; new directories are volatile until their
 * parent is synced. An object store does both in one atomic step.
 *
 * What it may do to its callers, and what they must live with: a crash between any two steps; a
 * request or reply lost; a request that arrives after its sender gave it up; an error of a sync,
 * after which the name is seen and perhaps never durable; a full disk; a listing that is some time
 * old (though everyone sees what they did themselves).
 */
#include "tests/sim/sim_disk.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    Storage base; /* first */
    Actor *actor;
} SimHandle;

typedef struct SimWriter {
    StorageWriter base; /* first */
    Actor *actor;
    char *name;
    uint8_t *data;
    size_t size, capacity;
    int64_t started_us;
    bool swept; /* somebody removed its temporary file */
    struct SimWriter *next;
} SimWriter;

typedef struct {
    StorageReader base; /* first */
    Actor *actor;
    char *name;
    uint8_t *data;
} SimReader;

/* --- faults --- */

static bool
is_faulty(const Actor *actor)
{
    return actor->sim->faults_on && !actor->no_faults && !actor->is_oracle;
}

/* The step before a request; false when there is nobody left to make it. */
static bool
enter(Actor *actor, const char *what, const char *name, CairnError *err)
{
    sim_scene_stop(actor, what, name);
    if (!sim_step(actor))
        return cairn_error(err, CAIRN_UNAVAILABLE, "the actor has crashed");
    sim_trace(actor->sim, actor, "%s %s", what, name);
    if (is_faulty(actor) && sim_chance(actor->sim, actor->sim->faults.lost / 2)) {
        actor->met_fault = true;
        sim_trace(actor->sim, actor, "... the request is lost");
        return cairn_error(err, CAIRN_UNAVAILABLE, "unable to reach the storage");
    }
    return true;
}

static bool
lose_reply(Actor *actor, CairnError *err)
{
    if (!is_faulty(actor) || !sim_chance(actor->sim, actor->sim->faults.lost / 2))
        return false;
    actor->met_fault = true;
    sim_trace(actor->sim, actor, "... the reply is lost");
    cairn_error(err, CAIRN_UNAVAILABLE, "the storage did not answer in time");
    return true;
}

static bool
is_late(Actor *actor, const char *name, const uint8_t *data, size_t size, CairnError *err)
{
    Sim *sim = actor->sim;
    if (!is_faulty(actor) || sim->late_count == SIM_LATE_LIMIT ||
        !sim_chance(sim, sim->faults.late))
        return false;
    const int64_t most = sim_below(sim, 2) == 0 ? 10 * SIM_SECOND : 3 * SIM_DAY;
    sim->late[sim->late_count++] = (SimLate){
        .name = sim_need(strdup(name)),
        .data = data != NULL ? sim_copy(data, size) : NULL,
        .size = size,
        .due_us = sim->now_us + (int64_t)sim_below(sim, (uint64_t)most),
        .creator = actor->serial,
    };
    actor->met_fault = true;
    sim_trace(sim, actor, "... arrives late");
    cairn_error(err, CAIRN_UNAVAILABLE, "the storage did not answer in time");
    return true;
}

static bool
is_full(Actor *actor, CairnError *err)
{
    if (!is_faulty(actor) || !actor->sim->disk_full)
        return false;
    actor->met_fault = true;
    cairn_error(err, CAIRN_NO_SPACE, "no space left on device");
    return true;
}

void
sim_storage_arrivals(Sim *sim)
{
    for (size_t i = 0; i < sim->late_count;) {
        SimLate late = sim->late[i];
        if (late.due_us > sim->now_us) {
            i++;
            continue;
        }
        sim->late[i] = sim->late[--sim->late_count];
        sim_trace(sim, NULL, "late %s of %s", late.data != NULL ? "creation" : "removal",
                  late.name);
        if (late.data != NULL) {
            if (sim_object_create(sim, late.name, late.data, late.size, late.creator))
                sim_check_created(sim, late.name);
        } else if (sim_object_is_seen(sim, late.name)) {
            SimObject *object = sim_object(sim, late.name);
            sim_object_set_seen(sim, object, false);
            object->durable = false;
            sim_check_removed(sim, late.name);
        }
        free(late.name);
        free(late.data);
    }
}

/* --- writing --- */

static bool
writer_write(StorageWriter *base, const void *data, size_t size, CairnError *err)
{
    SimWriter *writer = (SimWriter *)base;
    if (is_full(writer->actor, err))
        return false;
    while (writer->capacity - writer->size < size) {
        writer->capacity = writer->capacity == 0 ? 1024 : 2 * writer->capacity;
        writer->data = sim_need(realloc(writer->data, writer->capacity));
    }
    memcpy(writer->data + writer->size, data, size);
    writer->size += size;
    return true;
}

/* The sync of the directory after a name came or went; before it, others may see what is volatile.
 */
static bool
sync_after(Actor *actor, const char *name, CairnError *err)
{
    Sim *sim = actor->sim;
    if (sim->kind == SIM_S3)
        return true;
    if (!sim_step(actor))
        return cairn_error(err, CAIRN_UNAVAILABLE, "the actor has crashed");
    if (is_faulty(actor) && sim_chance(sim, sim->faults.sync_error)) {
        actor->met_fault = true;
        sim_trace(sim, actor, "... the directory's sync fails");
        return cairn_error(err, CAIRN_IO, "unable to sync the directory of '%s'", name);
    }
    sim_directory_sync(sim, name, sim_parent_size(name, strlen(name)));
    return true;
}

static bool
writer_commit(StorageWriter *base, CairnError *err)
{
    SimWriter *writer = (SimWriter *)base;
    Actor *actor = writer->actor;
    Sim *sim = actor->sim;
    sim_linger(actor);
    if (!enter(actor, "create", writer->name, err) || is_full(actor, err) ||
        is_late(actor, writer->name, writer->data, writer->size, err))
        return false;
    if (writer->swept)
        return cairn_error(err, CAIRN_NOT_FOUND, "unable to publish '%s': it is gone",
                           writer->name);
    if (!sim_object_create(sim, writer->name, writer->data, writer->size, actor->serial)) {
        sim_trace(sim, actor, "... is taken");
        return cairn_error(err, CAIRN_CONFLICT, "object '%s' exists already", writer->name);
    }
    if (!actor->is_oracle)
        sim_check_created(sim, writer->name);
    return sync_after(actor, writer->name, err) && !lose_reply(actor, err);
}

static void
writer_free(StorageWriter *base)
{
    SimWriter *writer = (SimWriter *)base;
    SimWriter **at = &writer->actor->sim->writers;
    while (*at != writer)
        at = &(*at)->next;
    *at = writer->next;
    free(writer->name);
    free(writer->data);
    free(writer);
}

static const StorageWriterOps WRITER_OPS = {writer_write, writer_commit, writer_free};

/* Each new directory is seen first and durable when its parent is synced, as mkdir and fsync do. */
static bool
make_directories(Actor *actor, const char *name, CairnError *err)
{
    Sim *sim = actor->sim;
    const size_t end = sim_parent_size(name, strlen(name));
    for (size_t size = 0; size < end;) {
        const size_t parent = size;
        size += size > 0 ? 1 : 0;
        size += strcspn(name + size, "/");
        if (sim_directory(sim, name, size) != NULL)
            continue;
        sim_directory_add(sim, name, size, actor->serial);
        if (!sim_step(actor))
            return cairn_error(err, CAIRN_UNAVAILABLE, "the actor has crashed");
        if (sim_directory(sim, name, size) == NULL) /* somebody pruned it meanwhile */
            return cairn_error(err, CAIRN_NOT_FOUND, "the directory of '%s' is gone", name);
        sim_directory_sync(sim, name, parent);
    }
    return true;
}

static StorageWriter *
sim_create(Storage *base, const char *name, CairnError *err)
{
    Actor *actor = ((SimHandle *)base)->actor;
    if (actor->crashed) {
        cairn_error(err, CAIRN_UNAVAILABLE, "the actor has crashed");
        return NULL;
    }
    if (is_full(actor, err) || (actor->sim->kind != SIM_S3 && !make_directories(actor, name, err)))
        return NULL;
    SimWriter *writer = sim_need(calloc(1, sizeof *writer));
    writer->base.ops = &WRITER_OPS;
    writer->actor = actor;
    writer->name = sim_need(strdup(name));
    writer->started_us = actor->sim->now_us;
    writer->next = actor->sim->writers;
    actor->sim->writers = writer;
    return &writer->base;
}

/* --- reading --- */

static bool
reader_pread(StorageReader *base, void *data, size_t size, uint64_t offset, CairnError *err)
{
    SimReader *reader = (SimReader *)base;
    Actor *actor = reader->actor;
    /* An open file stays whole on a disk; of an object store each read is a request. */
    if (actor->sim->kind != SIM_LOCAL && !actor->is_oracle && sim_below(actor->sim, 4) == 0) {
        if (!enter(actor, "read", reader->name, err))
            return false;
        if (!sim_object_is_seen(actor->sim, reader->name))
            return cairn_error(err, CAIRN_NOT_FOUND, "there is no object '%s' any more",
                               reader->name);
    } else if (actor->crashed) {
        return cairn_error(err, CAIRN_UNAVAILABLE, "the actor has crashed");
    }
    memcpy(data, reader->data + offset, size);
    return true;
}

static void
reader_free(StorageReader *base)
{
    SimReader *reader = (SimReader *)base;
    free(reader->name);
    free(reader->data);
    free(reader);
}

static const StorageReaderOps READER_OPS = {reader_pread, reader_free};

static StorageReader *
sim_open(Storage *base, const char *name, CairnError *err)
{
    Actor *actor = ((SimHandle *)base)->actor;
    if (!enter(actor, "open", name, err))
        return NULL;
    const SimObject *object = sim_object(actor->sim, name);
    if (object == NULL || !object->seen) {
        cairn_error(err, CAIRN_NOT_FOUND, "there is no object '%s'", name);
        return NULL;
    }
    SimReader *reader = sim_need(calloc(1, sizeof *reader));
    reader->base.ops = &READER_OPS;
    reader->base.size_bytes = object->size;
    reader->actor = actor;
    reader->name = sim_need(strdup(name));
    reader->data = sim_copy(object->data, object->size);
    return &reader->base;
}

static bool
sim_exists(Storage *base, const char *name, uint64_t *size_out, CairnError *err)
{
    Actor *actor = ((SimHandle *)base)->actor;
    if (!enter(actor, "exists", name, err))
        return false;
    const SimObject *object = sim_object(actor->sim, name);
    if (object == NULL || !object->seen)
        return cairn_error(err, CAIRN_NOT_FOUND, "there is no object '%s'", name);
    *size_out = object->size;
    return true;
}

/* --- listing --- */

typedef struct {
    char (*names)[STORAGE_NAME_LIMIT];
    StorageEntry *entries;
    size_t count, capacity;
} Listing;

static void
list_add(Listing *listing, const char *rest, bool is_directory, uint64_t size_bytes,
         int64_t modified_us)
{
    const int size = (int)strcspn(rest, "/");
    for (size_t i = 0; i < listing->count; i++) {
        if (strlen(listing->names[i]) == (size_t)size &&
            memcmp(listing->names[i], rest, (size_t)size) == 0)
            return;
    }
    if (listing->count == listing->capacity) {
        listing->capacity = listing->capacity == 0 ? 32 : 2 * listing->capacity;
        listing->names =
            sim_need(realloc(listing->names, listing->capacity * sizeof *listing->names));
        listing->entries =
            sim_need(realloc(listing->entries, listing->capacity * sizeof *listing->entries));
    }
    snprintf(listing->names[listing->count], sizeof *listing->names, "%.*s", size, rest);
    listing->entries[listing->count++] = (StorageEntry){
        .is_directory = is_directory, .size_bytes = size_bytes, .modified_us = modified_us};
}

/* Below the prefix, the part of the name after it; else NULL. */
static const char *
below(const char *name, const char *prefix)
{
    const size_t size = strlen(prefix);
    if (size == 0)
        return name;
    return strncmp(name, prefix, size) == 0 && name[size] == '/' ? name + size + 1 : NULL;
}

/* As the actor saw it at view_us, but for what it did itself. */
static bool
is_listed(const SimObject *object, const Actor *actor, int64_t view_us)
{
    if (object->creator == actor->serial || object->created_us <= view_us)
        return object->seen || (object->removed_us > view_us && object->created_us <= view_us);
    return false;
}

static void
collect_listing(Actor *actor, const char *prefix, Listing *listing)
{
    const Sim *sim = actor->sim;
    int64_t view_us = sim->now_us;
    if (actor->stale_us > 0 && sim->faults_on)
        view_us -= (int64_t)sim_below(actor->sim, (uint64_t)actor->stale_us);
    for (size_t i = 0; i < sim->object_count; i++) {
        const SimObject *object = &sim->objects[i];
        const char *rest = below(object->name, prefix);
        if (rest == NULL || !is_listed(object, actor, view_us))
            continue;
        const bool is_directory = strchr(rest, '/') != NULL;
        list_add(listing, rest, is_directory, is_directory ? 0 : object->size,
                 is_directory ? 0 : object->created_us);
    }
    for (size_t i = 0; i < sim->directory_count && sim->kind != SIM_S3; i++) {
        const SimDirectory *directory = &sim->directories[i];
        const char *rest = below(directory->path, prefix);
        if (rest != NULL &&
            (directory->creator == actor->serial || directory->created_us <= view_us))
            list_add(listing, rest, true, 0, 0);
    }
}

static bool
sim_list(Storage *base, const char *prefix, StorageListCallback *callback, void *context,
         CairnError *err)
{
    Actor *actor = ((SimHandle *)base)->actor;
    if (!enter(actor, "list", prefix, err))
        return false;
    Listing listing = {0};
    collect_listing(actor, prefix, &listing);
    StorageListNext next = STORAGE_LIST_GO_ON;
    for (size_t i = 0; i < listing.count && next == STORAGE_LIST_GO_ON; i++) {
        listing.entries[i].name = listing.names[i];
        next = callback(context, &listing.entries[i], err);
    }
    free(listing.names);
    free(listing.entries);
    return next != STORAGE_LIST_FAILED;
}

/* --- the rest --- */

static bool
sim_make_durable(Storage *base, const char *name, CairnError *err)
{
    Actor *actor = ((SimHandle *)base)->actor;
    Sim *sim = actor->sim;
    if (!enter(actor, "make durable", name, err))
        return false;
    if (!sim_object_is_seen(sim, name))
        return cairn_error(err, CAIRN_NOT_FOUND, "there is no object '%s'", name);
    if (sim->kind == SIM_S3)
        return true;
    for (size_t size = strlen(name); size > 0;) {
        size = sim_parent_size(name, size);
        sim_directory_sync(sim, name, size);
    }
    return true;
}

static bool
sim_remove(Storage *base, const char *name, CairnError *err)
{
    Actor *actor = ((SimHandle *)base)->actor;
    Sim *sim = actor->sim;
    sim_linger(actor);
    if (!enter(actor, "remove", name, err) || is_late(actor, name, NULL, 0, err))
        return false;
    if (!sim_object_is_seen(sim, name))
        return true;
    SimObject *object = sim_object(sim, name);
    sim_object_set_seen(sim, object, false);
    if (sim->kind == SIM_S3)
        object->durable = false;
    sim_check_removed(sim, name);
    return sync_after(actor, name, err) && !lose_reply(actor, err);
}

static bool
sim_free_space(Storage *base, uint64_t *bytes_out, CairnError *err)
{
    (void)base;
    (void)err;
    *bytes_out = UINT64_C(1) << 50;
    return true;
}

static bool
sim_sweep(Storage *base, const char *prefix, int64_t older_than_us, CairnError *err)
{
    Actor *actor = ((SimHandle *)base)->actor;
    Sim *sim = actor->sim;
    if (sim->kind == SIM_S3)
        return !actor->crashed || cairn_error(err, CAIRN_UNAVAILABLE, "the actor has crashed");
    if (!enter(actor, "sweep", prefix, err))
        return false;
    for (SimWriter *writer = sim->writers; writer != NULL; writer = writer->next) {
        const char *rest = below(writer->name, prefix);
        if (rest != NULL && strchr(rest, '/') == NULL && writer->started_us < older_than_us)
            writer->swept = true;
    }
    return true;
}

static bool
is_empty(const Sim *sim, const char *prefix)
{
    for (size_t i = 0; i < sim->object_count; i++) {
        if (sim->objects[i].seen && below(sim->objects[i].name, prefix) != NULL)
            return false;
    }
    for (size_t i = 0; i < sim->directory_count; i++) {
        if (below(sim->directories[i].path, prefix) != NULL)
            return false;
    }
    for (const SimWriter *writer = sim->writers; writer != NULL; writer = writer->next) {
        if (below(writer->name, prefix) != NULL)
            return false; /* its temporary file */
    }
    return true;
}

static bool
sim_prune(Storage *base, const char *prefix, CairnError *err)
{
    Actor *actor = ((SimHandle *)base)->actor;
    Sim *sim = actor->sim;
    if (sim->kind == SIM_S3)
        return !actor->crashed || cairn_error(err, CAIRN_UNAVAILABLE, "the actor has crashed");
    if (!enter(actor, "prune", prefix, err))
        return false;
    SimDirectory *directory = sim_directory(sim, prefix, strlen(prefix));
    if (directory == NULL || !is_empty(sim, prefix))
        return true;
    free(directory->path);
    *directory = sim->directories[--sim->directory_count];
    return true;
}

static bool
sim_is_local(Storage *base)
{
    return ((SimHandle *)base)->actor->sim->kind == SIM_LOCAL;
}

static void
sim_close(Storage *base)
{
    free(base);
}

static const StorageOps SIM_OPS = {
    .close = sim_close,
    .create = sim_create,
    .open = sim_open,
    .list = sim_list,
    .exists = sim_exists,
    .make_durable = sim_make_durable,
    .remove = sim_remove,
    .free_space = sim_free_space,
    .sweep = sim_sweep,
    .prune = sim_prune,
    .is_local = sim_is_local,
};

Storage *
sim_storage_open(Actor *actor)
{
    SimHandle *handle = sim_need(calloc(1, sizeof *handle));
    handle->base.ops = &SIM_OPS;
    handle->actor = actor;
    return &handle->base;
}
