/*
 * Memory that lives as long as one job: strings and small structs, freed together.
 * Out of memory aborts through CAIRN_ASSERT: what an arena holds is bounded by its caller.
 * Threads: one arena, one thread.
 */
#ifndef PGCAIRN_COMMON_ARENA_H
#define PGCAIRN_COMMON_ARENA_H

#include "common/error.h"
#include "common/scoped.h"

#include <stddef.h>

typedef struct Arena Arena;
Arena *arena_new(void);
void arena_free(Arena *arena);
/* Zeroed, aligned for anything. */
void *arena_alloc(Arena *arena, size_t size);
char *arena_strdup(Arena *arena, const char *text);
char *arena_strndup(Arena *arena, const char *text, size_t size);
char *arena_printf(Arena *arena, const char *format, ...) PRINTF_LIKE(2, 3);
SCOPED_TYPE(Arena, arena_free);

#endif
