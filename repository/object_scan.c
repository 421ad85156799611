#include "repository/object_scan.h"

#include <string.h>

struct ObjectScan {
    const ObjectReader *reader;
    Sha256 *sha;
    uint64_t end;    /* what the digest covers */
    uint64_t hashed; /* so many bytes went into it, none left out while it is in order */
    bool in_order;
    uint8_t *window;
    size_t capacity;
    uint64_t start; /* of the window in the object */
    size_t size;
};

/* Bytes between what was read and what is asked for: read along, since the digest needs them too.
 */
enum { GAP_LIMIT = OBJECT_SCAN_WINDOW / 2 };

_Static_assert((int)GAP_LIMIT > (int)OBJECT_HEADER_LIMIT, "a first frame lies in the first window");

ObjectScan *
object_scan_new(const ObjectReader *reader, CairnError *err)
{
    SCOPED(ObjectScan) scan = calloc(1, sizeof *scan);
    if (scan == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    scan->reader = reader;
    scan->end = object_stored_size(reader) - SHA256_SIZE;
    scan->in_order = true;
    scan->capacity = scan->end < OBJECT_SCAN_WINDOW ? (size_t)scan->end : OBJECT_SCAN_WINDOW;
    scan->window = malloc(scan->capacity);
    if (scan->window == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    scan->sha = sha256_new(err);
    return scan->sha == NULL ? NULL : take(&scan);
}

void
object_scan_free(ObjectScan *scan)
{
    if (scan == NULL)
        return;
    sha256_free(scan->sha);
    free(scan->window);
    free(scan);
}

/* Puts the window's start at offset, or where the digest ended when that is not far before; what it
 * holds from there on stays. */
static void
move_window(ObjectScan *scan, uint64_t offset)
{
    if (offset >= scan->start && offset - scan->start <= scan->size) {
        const size_t skip = (size_t)(offset - scan->start);
        memmove(scan->window, scan->window + skip, scan->size - skip);
        scan->start = offset;
        scan->size -= skip;
        return;
    }
    const bool near = offset >= scan->hashed && offset - scan->hashed < GAP_LIMIT;
    scan->start = near ? scan->hashed : offset;
    scan->size = 0;
}

/* Reads on behind the window's end, as much as it has room for. */
static bool
fill_window(ObjectScan *scan, CairnError *err)
{
    const uint64_t at = scan->start + scan->size;
    const size_t room = scan->capacity - scan->size;
    const size_t size = scan->end - at < room ? (size_t)(scan->end - at) : room;
    uint8_t *data = scan->window + scan->size;

    if (!object_pread_any(scan->reader, data, size, at, err)) {
        scan->in_order = false;
        return false;
    }
    scan->size += size;
    if (scan->in_order && scan->hashed == at) {
        scan->hashed += size;
        return sha256_update(scan->sha, data, size, err);
    }
    scan->in_order = false;
    return true;
}

/* A place in the object, as opposed to the way to it: what lies beside it may be read. */
static bool
is_of_a_place(CairnErrorKind kind)
{
    return kind == CAIRN_IO || kind == CAIRN_CORRUPT;
}

static bool
fill_with(ObjectScan *scan, uint64_t offset, uint32_t size, CairnError *err)
{
    move_window(scan, offset);
    if (fill_window(scan, err))
        return true;
    if (is_of_a_place(err->kind)) {
        cairn_error_clear(err);
        scan->start = offset;
        scan->size = 0;
        if (object_pread_any(scan->reader, scan->window, size, offset, err)) {
            scan->size = size;
            return true;
        }
    }
    scan->size = 0;
    return false;
}

bool
object_scan_frame(ObjectScan *scan, uint64_t offset, uint32_t size, const uint8_t **data_out,
                  CairnError *err)
{
    CAIRN_ASSERT(offset < scan->end && size <= scan->end - offset && size <= GAP_LIMIT);
    const bool held = offset >= scan->start && offset - scan->start <= scan->size &&
                      size <= scan->size - (size_t)(offset - scan->start);
    if (!held && !fill_with(scan, offset, size, err))
        return false;
    *data_out = scan->window + (offset - scan->start);
    return true;
}

/* From the first byte on again. */
static bool
start_over(ObjectScan *scan, CairnError *err)
{
    uint8_t ignored[SHA256_SIZE];
    scan->hashed = 0;
    scan->in_order = true;
    return sha256_finish(scan->sha, ignored, err);
}

bool
object_scan_finish(ObjectScan *scan, CairnError *err)
{
    uint8_t digest[SHA256_SIZE];

    if (!scan->in_order && !start_over(scan, err))
        return false;
    while (scan->hashed < scan->end) {
        scan->start = scan->hashed;
        scan->size = 0;
        if (!fill_window(scan, err))
            return false;
    }
    return sha256_finish(scan->sha, digest, err) && object_check_digest(scan->reader, digest, err);
}

bool
object_scrub(ObjectReader *reader, CairnError *err)
{
    SCOPED(ObjectScan) scan = object_scan_new(reader, err);
    return scan != NULL && object_scan_finish(scan, err);
}
