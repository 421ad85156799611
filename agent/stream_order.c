#include "agent/stream_order.h"

#include "common/bytes.h"
#include "common/file.h"
#include "common/scratch_file.h"
#include "postgres/tar.h"

#include <string.h>

enum {
    BUFFER_SIZE = 64 << 10,
    RECORD_HEADER_SIZE = 16,
    RECORD_LIMIT = RECORD_HEADER_SIZE + TAR_PATH_LIMIT + 64
};

/* A record: u64 size, u32 CRC, u32 path length, path. */
struct StreamOrder {
    const World *world;
    int fd;
    uint8_t buffer[BUFFER_SIZE];
    size_t used;        /* bytes in the buffer */
    size_t at;          /* next to read */
    uint64_t file_size; /* written so far */
    uint64_t file_at;   /* next to read */
    bool reading;
    uint64_t added, checked;
};

StreamOrder *
stream_order_new(const World *world, const char *scratch_directory, CairnError *err)
{
    SCOPED(StreamOrder) order = calloc(1, sizeof *order);
    if (order == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    order->world = world;
    order->fd = scratch_file_open(world, scratch_directory, err);
    if (order->fd < 0)
        return NULL;
    return take(&order);
}

void
stream_order_free(StreamOrder *order)
{
    if (order == NULL)
        return;
    if (order->fd >= 0)
        order->world->disk->close(order->world->disk, order->fd);
    free(order);
}

static bool
flush(StreamOrder *order, CairnError *err)
{
    if (!file_write(order->world, order->fd, order->buffer, order->used, "scratch file", err))
        return false;
    order->file_size += order->used;
    order->used = 0;
    return true;
}

bool
stream_order_add(StreamOrder *order, const char *path, uint64_t size_bytes, uint32_t crc32c_value,
                 CairnError *err)
{
    CAIRN_ASSERT(!order->reading);
    size_t path_size = strlen(path);
    CAIRN_ASSERT(RECORD_HEADER_SIZE + path_size <= RECORD_LIMIT);
    if (order->used + RECORD_HEADER_SIZE + path_size > BUFFER_SIZE && !flush(order, err))
        return false;
    uint8_t *record = order->buffer + order->used;
    put_u64(record, size_bytes);
    put_u32(record + 8, crc32c_value);
    put_u32(record + 12, (uint32_t)path_size);
    memcpy(record + RECORD_HEADER_SIZE, path, path_size);
    order->used += RECORD_HEADER_SIZE + path_size;
    order->added++;
    return true;
}

/* Makes `need` bytes available at the read position; false in *there_out at the end. */
static bool
fill(StreamOrder *order, size_t need, bool *there_out, CairnError *err)
{
    if (!order->reading) {
        if (!flush(order, err))
            return false;
        order->reading = true;
    }
    if (order->used - order->at < need) {
        memmove(order->buffer, order->buffer + order->at, order->used - order->at);
        order->used -= order->at;
        order->at = 0;
        uint64_t left = order->file_size - order->file_at;
        size_t more = BUFFER_SIZE - order->used;
        if (more > left)
            more = (size_t)left;
        if (more > 0 && !file_pread(order->world, order->fd, order->buffer + order->used, more,
                                    order->file_at, "scratch file", err))
            return false;
        order->file_at += more;
        order->used += more;
    }
    *there_out = order->used - order->at >= need;
    return true;
}

bool
stream_order_check(StreamOrder *order, const ManifestFile *file, CairnError *err)
{
    bool there;
    if (!fill(order, RECORD_HEADER_SIZE, &there, err))
        return false;
    if (!there)
        return cairn_error(err, CAIRN_CORRUPT, "backup manifest lists '%s', which was not sent",
                           file->path);
    uint64_t size_bytes = get_u64(order->buffer + order->at);
    uint32_t crc = get_u32(order->buffer + order->at + 8);
    uint32_t path_size = get_u32(order->buffer + order->at + 12);
    if (!fill(order, RECORD_HEADER_SIZE + path_size, &there, err))
        return false;
    CAIRN_ASSERT(there);
    const char *path = (const char *)order->buffer + order->at + RECORD_HEADER_SIZE;
    if (path_size != file->path_size || memcmp(path, file->path, path_size) != 0) {
        return cairn_error(err, CAIRN_CORRUPT,
                           "backup manifest lists '%s' where the server sent '%.*s'", file->path,
                           (int)path_size, path);
    }
    if (size_bytes != file->size_bytes || !file->has_crc32c || crc != file->crc32c) {
        cairn_error(
            err, CAIRN_CORRUPT,
            "'%s' arrived with %llu bytes and CRC-32C %08x, the backup manifest says %llu and %08x",
            file->path, (unsigned long long)size_bytes, crc, (unsigned long long)file->size_bytes,
            file->crc32c);
        return cairn_error_hint(
            err, "something between the server's disk and us changed bytes; run the backup "
                 "again, and check memory and network when it repeats");
    }
    order->at += RECORD_HEADER_SIZE + path_size;
    order->checked++;
    return true;
}

bool
stream_order_finish(StreamOrder *order, CairnError *err)
{
    if (order->added != order->checked) {
        return cairn_error(
            err, CAIRN_CORRUPT,
            "the server sent %llu files, its backup manifest lists only %llu of them",
            (unsigned long long)order->added, (unsigned long long)order->checked);
    }
    return true;
}
