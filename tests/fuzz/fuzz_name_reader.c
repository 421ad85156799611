/* Lists of names: pieces of any size give the same rows and the same verdict. */
#include "postgres/name_reader.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t sum;
} Rows;

static bool
take_relation(void *context, const RelationName *relation, CairnError *err)
{
    Rows *rows = context;
    (void)err;
    CAIRN_ASSERT(strlen(relation->name) < NAME_LINE_LIMIT);
    rows->sum = rows->sum * 31 + relation->oid + relation->relfilenode + strlen(relation->schema) +
                strlen(relation->name);
    return true;
}

static bool
read_pieces(const uint8_t *data, size_t size, size_t piece, Rows *rows)
{
    NameReader reader;
    CairnError err = {0};
    bool whole;
    const NameCallbacks callbacks = {.relation = take_relation, .context = rows};
    name_reader_begin(&reader, &callbacks);
    for (size_t at = 0; at < size; at += piece) {
        if (!name_reader_feed(&reader, data + at, piece < size - at ? piece : size - at, &err))
            return false;
    }
    return name_reader_finish(&reader, &whole, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Rows at_once = {0};
    Rows in_pieces = {0};
    const bool first = read_pieces(data, size, size + 1, &at_once);
    const bool second = read_pieces(data, size, 3, &in_pieces);
    CAIRN_ASSERT(first == second && (!first || at_once.sum == in_pieces.sum));
    return 0;
}
