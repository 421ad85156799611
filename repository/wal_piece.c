#include "repository/wal_piece.h"

#include "common/file.h"
#include "repository/wal_object.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define INFIX ".tail."

enum { SEGMENT_DIGITS = 24, TOKEN_DIGITS = 16, OFFSET_DIGITS = 8 };

bool
wal_piece_name_parse(const char *name, uint32_t segment_size, WalPieceName *name_out)
{
    const char *token = name + SEGMENT_DIGITS + strlen(INFIX);
    const char *offset = token + TOKEN_DIGITS + 1;
    char segment[WAL_NAME_SIZE];
    WalPieceName parsed = {0};

    _Static_assert(SEGMENT_DIGITS + sizeof INFIX - 1 + TOKEN_DIGITS + 1 + OFFSET_DIGITS + 1 ==
                       WAL_PIECE_NAME_SIZE,
                   "the size is that of a name");
    if (strlen(name) != WAL_PIECE_NAME_SIZE - 1 ||
        strncmp(name + SEGMENT_DIGITS, INFIX, strlen(INFIX)) != 0 ||
        strspn(token, "0123456789abcdef") != TOKEN_DIGITS || token[TOKEN_DIGITS] != '.')
        return false;
    snprintf(segment, sizeof segment, "%.24s", name);
    if (!wal_segment_parse(segment, segment_size, &parsed.timeline, &parsed.segment) ||
        !wal_digits_parse(offset, &parsed.offset) || parsed.offset >= segment_size)
        return false;
    memcpy(parsed.name, name, WAL_PIECE_NAME_SIZE);
    *name_out = parsed;
    return true;
}

uint64_t
wal_piece_start_lsn(const WalStore *store, const WalPieceName *name)
{
    return name->segment * store->incarnation->wal_segment_size + name->offset;
}

static uint32_t
log_of(const WalStore *store, uint64_t segment)
{
    return (uint32_t)(segment / wal_segments_per_log(store->incarnation->wal_segment_size));
}

void
wal_piece_object_name(const WalStore *store, const WalPieceName *name,
                      char text[STORAGE_NAME_LIMIT + 1])
{
    wal_store_name(store, name->timeline, log_of(store, name->segment), name->name, text);
}

/* -- storing -- */

typedef struct {
    WalStore *store;
    WalIndex index;
    int fd;
    uint32_t offset;
} NewPiece;

/* One frame: read, digested, compressed. */
static bool
append_frame(NewPiece *piece, ObjectWriter *object, ObjectFrame *frame, uint64_t at,
             CairnError *err)
{
    WalStore *store = piece->store;
    const uint64_t left = piece->index.size - at;
    const size_t size = left < piece->index.frame_size ? (size_t)left : piece->index.frame_size;
    ObjectBlock block;

    if (!file_pread(repository_world(store->repository), piece->fd, store->raw, size,
                    piece->offset + at, "the receiver's segment", err) ||
        !keyed_digest_update(store->digest, store->raw, size, err) ||
        !wal_store_compress(store, size, &block, err))
        return false;
    return object_append(object, &block, frame, err);
}

static bool
write_piece(NewPiece *piece, const char *name, CairnError *err)
{
    WalStore *store = piece->store;
    WalIndex *index = &piece->index;
    const size_t count = (size_t)((index->size + index->frame_size - 1) / index->frame_size);
    SCOPED_BYTES ByteWriter bytes = {0};
    SCOPED_MEMORY ObjectFrame *frames = calloc(count, sizeof *frames);

    if (frames == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    SCOPED(ObjectWriter)
    object = object_create(store->repository, name, OBJECT_WAL_TAIL, 0, err);
    if (object == NULL || !keyed_digest_begin(store->digest, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!append_frame(piece, object, &frames[i], (uint64_t)i * index->frame_size, err))
            return false;
    }
    if (!wal_digest_finish(store->digest, index->size, index->digest, err))
        return false;
    wal_index_pusher(index, repository_world(store->repository));
    index->frames = frames;
    index->frame_count = count;
    return wal_index_format(index, &bytes, err) &&
           object_finish(object, bytes.data, bytes.size, NULL, err);
}

bool
wal_piece_put(WalStore *store, uint32_t timeline, uint64_t segment, int fd, uint32_t offset,
              uint32_t size, WalPieceName *name_out, CairnError *err)
{
    const uint32_t segment_size = store->incarnation->wal_segment_size;
    WalPieceName name = {.timeline = timeline, .segment = segment, .offset = offset};
    char token[TOKEN_DIGITS + 1];
    char segment_name[WAL_NAME_SIZE];
    char text[STORAGE_NAME_LIMIT + 1];

    CAIRN_ASSERT(size > 0 && offset < segment_size && size <= segment_size - offset);
    if (!wal_store_prepare(store, err) ||
        !random_token(repository_world(store->repository), token, err))
        return false;
    wal_segment_name(segment_name, timeline, segment, segment_size);
    snprintf(name.name, sizeof name.name, "%s" INFIX "%s.%08" PRIX32, segment_name, token, offset);
    wal_piece_object_name(store, &name, text);

    NewPiece piece = {
        .store = store,
        .index = {.kind = WAL_FILE_PIECE,
                  .size = size,
                  .data_size = size, /* zeros compress, and the last bytes are rarely zeros */
                  .timeline = timeline,
                  .start_lsn = wal_piece_start_lsn(store, &name),
                  .frame_size = WAL_FRAME_SIZE / 2},
        .fd = fd,
        .offset = offset,
    };
    if (!write_piece(&piece, text, err))
        return cairn_error_wrap(err, "unable to store WAL of '%s'", segment_name);
    *name_out = name;
    return true;
}

bool
wal_piece_remove(WalStore *store, const WalPieceName *name, CairnError *err)
{
    char text[STORAGE_NAME_LIMIT + 1];

    wal_piece_object_name(store, name, text);
    return storage_remove(repository_storage(store->repository), text, err);
}

/* -- what there is -- */

typedef struct {
    const WalStore *store;
    uint32_t timeline;
    uint64_t segment;
    bool any_segment; /* looks for the newest segment instead */
    bool found;
    WalPieceName *names;
    size_t count, capacity;
} PieceList;

static bool
add_name(PieceList *list, const WalPieceName *name, CairnError *err)
{
    if (list->count == WAL_PIECE_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "more than %d pieces of one segment",
                           WAL_PIECE_LIMIT);
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        WalPieceName *names = reallocarray(list->names, capacity, sizeof *names);
        if (names == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        list->names = names;
        list->capacity = capacity;
    }
    list->names[list->count++] = *name;
    return true;
}

static StorageListNext
collect_piece(void *context, const StorageEntry *entry, CairnError *err)
{
    PieceList *list = context;
    WalPieceName name;

    if (entry->is_directory ||
        !wal_piece_name_parse(entry->name, list->store->incarnation->wal_segment_size, &name) ||
        name.timeline != list->timeline)
        return STORAGE_LIST_GO_ON;
    if (list->any_segment) {
        if (!list->found || name.segment > list->segment)
            list->segment = name.segment;
        list->found = true;
        return STORAGE_LIST_GO_ON;
    }
    if (name.segment != list->segment)
        return STORAGE_LIST_GO_ON;
    return add_name(list, &name, err) ? STORAGE_LIST_GO_ON : STORAGE_LIST_FAILED;
}

static int
compare_names(const void *left, const void *right)
{
    const WalPieceName *a = left;
    const WalPieceName *b = right;

    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return strcmp(a->name, b->name);
}

bool
wal_piece_list(WalStore *store, uint32_t timeline, uint64_t segment, WalPieceName **names_out,
               size_t *count_out, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT + 1];
    PieceList list = {.store = store, .timeline = timeline, .segment = segment};

    list.names = malloc(sizeof *list.names);
    list.capacity = 1;
    if (list.names == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    wal_store_log_prefix(store, timeline, log_of(store, segment), prefix);
    if (!storage_list_with_gone(repository_storage(store->repository), prefix, collect_piece, &list,
                                err)) {
        free(list.names);
        return false;
    }
    qsort(list.names, list.count, sizeof *list.names, compare_names);
    *names_out = list.names;
    *count_out = list.count;
    return true;
}

bool
wal_piece_last(WalStore *store, uint32_t timeline, uint64_t *segment_out, bool *found_out,
               CairnError *err)
{
    SCOPED_MEMORY uint32_t *logs = NULL;
    size_t count = 0;
    PieceList list = {.store = store, .timeline = timeline, .any_segment = true};

    if (!wal_store_logs(store, timeline, &logs, &count, err))
        return false;
    /* The unfinished segment lies in the newest log, or in the one before as long as nothing of the
       next is complete. */
    for (size_t tries = 0; tries < 2 && count > 0 && !list.found; tries++) {
        if (!wal_store_list_log(store, timeline, logs[--count], collect_piece, &list, err))
            return false;
    }
    *found_out = list.found;
    *segment_out = list.segment;
    return true;
}
