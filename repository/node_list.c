#include "repository/node_list.h"

#include "common/file.h"
#include "common/scratch_file.h"

#include <string.h>

enum {
    BUFFER_SIZE = 32 << 10,
    RECORD_HEADER_SIZE = 4, /* u32 key size; then the key and the reference as it lies in memory */
};

/* Scratch never leaves this process, so a reference may lie there as it is. */
struct NodeList {
    const World *world;
    int fd;
    uint8_t buffer[BUFFER_SIZE];
    size_t used, at;
    uint64_t file_size, file_at;
    bool reading;
    uint8_t key[MAP_KEY_LIMIT + 1]; /* of the record that waits */
    size_t key_size;
    bool waiting;
    MapNodeRef ref;
};

NodeList *
node_list_new(const World *world, const char *scratch_directory, CairnError *err)
{
    SCOPED(NodeList) list = calloc(1, sizeof *list);
    if (list == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    list->world = world;
    list->fd = scratch_file_open(world, scratch_directory, err);
    if (list->fd < 0)
        return NULL;
    return take(&list);
}

void
node_list_free(NodeList *list)
{
    if (list == NULL)
        return;
    if (list->fd >= 0)
        list->world->disk->close(list->world->disk, list->fd);
    free(list);
}

static bool
flush(NodeList *list, CairnError *err)
{
    if (!file_pwrite(list->world, list->fd, list->buffer, list->used, list->file_size,
                     "scratch file", err))
        return false;
    list->file_size += list->used;
    list->used = 0;
    return true;
}

bool
node_list_add(NodeList *list, const void *key, size_t key_size, const MapNodeRef *ref,
              CairnError *err)
{
    CAIRN_ASSERT(!list->reading && key_size <= MAP_KEY_LIMIT);
    if (RECORD_HEADER_SIZE + key_size + sizeof *ref > BUFFER_SIZE - list->used && !flush(list, err))
        return false;
    uint8_t *record = list->buffer + list->used;
    put_u32(record, (uint32_t)key_size);
    memcpy(record + RECORD_HEADER_SIZE, key, key_size);
    memcpy(record + RECORD_HEADER_SIZE + key_size, ref, sizeof *ref);
    list->used += RECORD_HEADER_SIZE + key_size + sizeof *ref;
    return true;
}

/* Makes `need` bytes available; false in *there_out at the end. */
static bool
fill(NodeList *list, size_t need, bool *there_out, CairnError *err)
{
    if (list->used - list->at < need) {
        memmove(list->buffer, list->buffer + list->at, list->used - list->at);
        list->used -= list->at;
        list->at = 0;
        uint64_t left = list->file_size - list->file_at;
        size_t more = BUFFER_SIZE - list->used;
        if (more > left)
            more = (size_t)left;
        if (more > 0 && !file_pread(list->world, list->fd, list->buffer + list->used, more,
                                    list->file_at, "scratch file", err))
            return false;
        list->file_at += more;
        list->used += more;
    }
    *there_out = list->used - list->at >= need;
    return true;
}

static bool
next(NodeList *list, CairnError *err)
{
    bool there;
    list->waiting = false;
    if (!fill(list, RECORD_HEADER_SIZE, &there, err))
        return false;
    if (!there)
        return true;
    size_t key_size = get_u32(list->buffer + list->at);
    if (key_size > MAP_KEY_LIMIT)
        return cairn_error(err, CAIRN_CORRUPT, "scratch file holds an impossible record");
    if (!fill(list, RECORD_HEADER_SIZE + key_size + sizeof list->ref, &there, err))
        return false;
    if (!there)
        return cairn_error(err, CAIRN_CORRUPT, "scratch file ended early");
    const uint8_t *record = list->buffer + list->at;
    memcpy(list->key, record + RECORD_HEADER_SIZE, key_size);
    memcpy(&list->ref, record + RECORD_HEADER_SIZE + key_size, sizeof list->ref);
    list->key_size = key_size;
    list->at += RECORD_HEADER_SIZE + key_size + sizeof list->ref;
    list->waiting = true;
    return true;
}

static int
compare_keys(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order != 0 ? order : (a_size > b_size) - (a_size < b_size);
}

bool
node_list_find(NodeList *list, const void *key, size_t key_size, MapNodeRef *ref_out,
               bool *found_out, CairnError *err)
{
    *found_out = false;
    if (!list->reading) {
        if (!flush(list, err))
            return false;
        list->reading = true;
        if (!next(list, err))
            return false;
    }
    while (list->waiting) {
        int order = compare_keys(list->key, list->key_size, key, key_size);
        if (order > 0)
            return true;
        if (order == 0) {
            *ref_out = list->ref;
            *found_out = true;
            return true;
        }
        if (!next(list, err))
            return false;
    }
    return true;
}
