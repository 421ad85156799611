/*
 * Progress for people on standard error: a redrawn bar on a terminal (bytes, rate, time left), a
 * plain line every 10 seconds elsewhere. Threads: add from any, the rest from the owner.
 */
#ifndef PGCAIRN_COMMON_PROGRESS_H
#define PGCAIRN_COMMON_PROGRESS_H

#include "common/scoped.h"
#include "common/world.h"

#include <stdint.h>

typedef struct Progress Progress;
/* what: "backup"; total_bytes 0 when unknown. Never NULL-checked: a NULL Progress is silent. */
Progress *progress_new(const World *world, const char *what, uint64_t total_bytes);
void progress_free(Progress *progress); /* ends the bar's line */
void progress_add(Progress *progress, uint64_t bytes);
/* Draws when it is time to; cheap otherwise. */
void progress_draw(Progress *progress);
SCOPED_TYPE(Progress, progress_free);

/* "3.2 GB", "512 B": for people. text holds at least 32 bytes. */
void format_bytes(char *text, uint64_t bytes);

#endif
