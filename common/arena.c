#include "common/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first chunk is small: ten thousand fates have an arena each. */
enum { FIRST_CHUNK_SIZE = 2 * 1024, CHUNK_SIZE = 32 * 1024, BIG = CHUNK_SIZE / 4 };

typedef struct Chunk Chunk;
struct Chunk {
    Chunk *next;
    size_t used;
    size_t capacity;
    _Alignas(max_align_t) uint8_t data[];
};

struct Arena {
    Chunk *chunks; /* the first one is being filled */
};

static Chunk *
chunk_new(size_t capacity)
{
    size_t total;
    CAIRN_ASSERT(!__builtin_add_overflow(sizeof(Chunk), capacity, &total));
    /* calloc, because arena_alloc promises zeroed memory and no byte is handed out twice. */
    Chunk *chunk = calloc(1, total);
    CAIRN_ASSERT(chunk != NULL);
    chunk->capacity = capacity;
    return chunk;
}

Arena *
arena_new(void)
{
    Arena *arena = calloc(1, sizeof *arena);
    CAIRN_ASSERT(arena != NULL);
    return arena;
}

void
arena_free(Arena *arena)
{
    if (arena == NULL)
        return;
    Chunk *chunk = arena->chunks;
    while (chunk != NULL) {
        Chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    free(arena);
}

void *
arena_alloc(Arena *arena, size_t size)
{
    const size_t alignment = _Alignof(max_align_t);
    CAIRN_ASSERT(size <= SIZE_MAX - alignment);
    size = (size + alignment - 1) / alignment * alignment;

    Chunk *first = arena->chunks;
    if (first != NULL && first->capacity - first->used >= size) {
        void *memory = first->data + first->used;
        first->used += size;
        return memory;
    }
    if (size > BIG && first != NULL) {
        /* Its own chunk, behind the first, whose rest stays usable. */
        Chunk *own = chunk_new(size);
        own->used = size;
        own->next = first->next;
        first->next = own;
        return own->data;
    }
    size_t capacity = first == NULL ? FIRST_CHUNK_SIZE : 2 * first->capacity;
    if (capacity > CHUNK_SIZE)
        capacity = CHUNK_SIZE;
    Chunk *chunk = chunk_new(size > capacity ? size : capacity);
    chunk->used = size;
    chunk->next = first;
    arena->chunks = chunk;
    return chunk->data;
}

char *
arena_strndup(Arena *arena, const char *text, size_t size)
{
    const size_t length = strnlen(text, size);
    char *copy = arena_alloc(arena, length + 1);
    memcpy(copy, text, length);
    return copy;
}

char *
arena_strdup(Arena *arena, const char *text)
{
    return arena_strndup(arena, text, strlen(text));
}

char *
arena_printf(Arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CAIRN_ASSERT(length >= 0);

    char *text = arena_alloc(arena, (size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}
