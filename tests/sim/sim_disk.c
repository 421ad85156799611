#include "tests/sim/sim_disk.h"

#include <string.h>

void *
sim_need(void *memory)
{
    CAIRN_ASSERT(memory != NULL);
    return memory;
}

uint8_t *
sim_copy(const void *data, size_t size)
{
    uint8_t *copy = sim_need(malloc(size + 1));
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

size_t
sim_parent_size(const char *name, size_t size)
{
    while (size > 0 && name[size - 1] != '/')
        size--;
    return size > 0 ? size - 1 : 0;
}

/* --- objects and directories --- */

static size_t
place_of(const Sim *sim, const char *name, bool *found_out)
{
    size_t low = 0, high = sim->object_count;
    *found_out = false;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = strcmp(sim->objects[middle].name, name);
        if (order == 0) {
            *found_out = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

SimObject *
sim_object(const Sim *sim, const char *name)
{
    bool found;
    const size_t place = place_of(sim, name, &found);
    return found ? &sim->objects[place] : NULL;
}

bool
sim_object_is_seen(const Sim *sim, const char *name)
{
    const SimObject *object = sim_object(sim, name);
    return object != NULL && object->seen;
}

static SimObject *
object_at(Sim *sim, const char *name)
{
    bool found;
    const size_t place = place_of(sim, name, &found);
    if (found)
        return &sim->objects[place];
    if (sim->object_count == sim->object_capacity) {
        sim->object_capacity = sim->object_capacity == 0 ? 256 : 2 * sim->object_capacity;
        sim->objects = sim_need(realloc(sim->objects, sim->object_capacity * sizeof *sim->objects));
    }
    memmove(sim->objects + place + 1, sim->objects + place,
            (sim->object_count - place) * sizeof *sim->objects);
    sim->object_count++;
    sim->objects[place] = (SimObject){.name = sim_need(strdup(name))};
    return &sim->objects[place];
}

SimDirectory *
sim_directory(const Sim *sim, const char *path, size_t size)
{
    for (size_t i = 0; i < sim->directory_count; i++) {
        SimDirectory *directory = &sim->directories[i];
        if (strlen(directory->path) == size && memcmp(directory->path, path, size) == 0)
            return directory;
    }
    return NULL;
}

void
sim_directory_add(Sim *sim, const char *path, size_t size, unsigned creator)
{
    if (sim->directory_count == sim->directory_capacity) {
        sim->directory_capacity = sim->directory_capacity == 0 ? 64 : 2 * sim->directory_capacity;
        sim->directories =
            sim_need(realloc(sim->directories, sim->directory_capacity * sizeof *sim->directories));
    }
    char *copy = sim_need(strndup(path, size));
    sim->directories[sim->directory_count++] =
        (SimDirectory){.path = copy, .created_us = sim->now_us, .creator = creator};
}

void
sim_directory_sync(Sim *sim, const char *path, size_t size)
{
    for (size_t i = 0; i < sim->object_count; i++) {
        SimObject *object = &sim->objects[i];
        if (sim_parent_size(object->name, strlen(object->name)) == size &&
            memcmp(object->name, path, size) == 0)
            object->durable = object->seen;
    }
    for (size_t i = 0; i < sim->directory_count; i++) {
        SimDirectory *directory = &sim->directories[i];
        if (sim_parent_size(directory->path, strlen(directory->path)) == size &&
            memcmp(directory->path, path, size) == 0)
            directory->durable = true;
    }
}

bool
sim_object_is_durable(const Sim *sim, const char *name)
{
    const SimObject *object = sim_object(sim, name);
    if (object == NULL || !object->seen || !object->durable)
        return false;
    if (sim->kind == SIM_S3)
        return true;
    for (size_t size = sim_parent_size(name, strlen(name)); size > 0;
         size = sim_parent_size(name, size)) {
        const SimDirectory *directory = sim_directory(sim, name, size);
        if (directory == NULL || !directory->durable)
            return false;
    }
    return true;
}

void
sim_object_set_seen(Sim *sim, SimObject *object, bool seen)
{
    object->seen = seen;
    *(seen ? &object->created_us : &object->removed_us) = sim->now_us;
}

bool
sim_object_create(Sim *sim, const char *name, const uint8_t *data, size_t size, unsigned creator)
{
    SimObject *object = object_at(sim, name);
    if (object->seen)
        return false;
    free(object->data);
    object->data = sim_copy(data, size);
    object->size = size;
    object->creator = creator;
    sim_object_set_seen(sim, object, true);
    if (sim->kind == SIM_S3)
        object->durable = true;
    return true;
}

/* The directory and all that is below it. path is one of the directories' own. */
static void
lose_directory(Sim *sim, const char *path)
{
    SCOPED_MEMORY char *lost = sim_need(strdup(path));
    const size_t size = strlen(lost);
    for (size_t i = 0; i < sim->object_count; i++) {
        SimObject *object = &sim->objects[i];
        if (strncmp(object->name, lost, size) == 0 && object->name[size] == '/') {
            sim_object_set_seen(sim, object, false);
            object->durable = false;
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < sim->directory_count; i++) {
        char *other = sim->directories[i].path;
        if (strncmp(other, lost, size) == 0 && (other[size] == '/' || other[size] == '\0'))
            free(other);
        else
            sim->directories[kept++] = sim->directories[i];
    }
    sim->directory_count = kept;
}

void
sim_storage_power_cut(Sim *sim)
{
    for (size_t i = 0; i < sim->object_count; i++) {
        SimObject *object = &sim->objects[i];
        if (object->seen != object->durable && sim_below(sim, 2) == 0)
            sim_object_set_seen(sim, object, object->durable);
        object->durable = object->seen;
    }
    for (size_t i = 0; i < sim->directory_count;) {
        if (sim->directories[i].durable || sim_below(sim, 2) == 0)
            sim->directories[i++].durable = true;
        else
            lose_directory(sim, sim->directories[i].path);
    }
}

void
sim_storage_free(Sim *sim)
{
    for (size_t i = 0; i < sim->object_count; i++) {
        free(sim->objects[i].name);
        free(sim->objects[i].data);
    }
    for (size_t i = 0; i < sim->directory_count; i++)
        free(sim->directories[i].path);
    for (size_t i = 0; i < sim->late_count; i++) {
        free(sim->late[i].name);
        free(sim->late[i].data);
    }
    free(sim->objects);
    free(sim->directories);
}
