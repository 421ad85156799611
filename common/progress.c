#include "common/progress.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BAR_WIDTH = 30, TERMINAL_PERIOD_MS = 200, PLAIN_PERIOD_MS = 10000, LINE_SIZE = 256 };

struct Progress {
    const World *world;
    char what[64];
    uint64_t total_bytes;
    _Atomic uint64_t done_bytes;
    int64_t start_ns;
    int64_t drawn_ns;
    bool terminal;
    bool line_open; /* a bar stands on the terminal's current line */
};

Progress *
progress_new(const World *world, const char *what, uint64_t total_bytes)
{
    Progress *progress = calloc(1, sizeof *progress);
    if (progress == NULL)
        return NULL; /* a silent one: a bar is not worth failing for */
    progress->world = world;
    snprintf(progress->what, sizeof progress->what, "%s", what);
    progress->total_bytes = total_bytes;
    progress->start_ns = world->clock->monotonic_ns(world->clock);
    progress->drawn_ns = progress->start_ns;
    progress->terminal = isatty(STDERR_FILENO) == 1;
    return progress;
}

void
format_bytes(char *text, uint64_t bytes)
{
    enum { TEXT_SIZE = 32 };
    static const char *const UNITS[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    if (bytes < 1000) {
        snprintf(text, TEXT_SIZE, "%" PRIu64 " B", bytes);
        return;
    }
    double value = (double)bytes;
    size_t unit = 0;
    /* 999.95 would print as 1000.0 of the smaller unit. */
    while (value >= 999.95 && unit + 1 < sizeof UNITS / sizeof UNITS[0]) {
        value /= 1000;
        unit++;
    }
    snprintf(text, TEXT_SIZE, "%.1f %s", value, UNITS[unit]);
}

static void
append(char line[LINE_SIZE], const char *text)
{
    const size_t length = strlen(line);
    snprintf(line + length, LINE_SIZE - length, "%s", text);
}

static void
append_bar(char line[LINE_SIZE], uint64_t done, uint64_t total)
{
    char bar[BAR_WIDTH + 16];
    const double part = (double)(done < total ? done : total) / (double)total;
    const size_t filled = (size_t)(part * BAR_WIDTH);
    bar[0] = ' ';
    bar[1] = '[';
    memset(bar + 2, '#', filled);
    memset(bar + 2 + filled, '.', BAR_WIDTH - filled);
    snprintf(bar + 2 + BAR_WIDTH, sizeof bar - 2 - BAR_WIDTH, "] %3.0f%%", part * 100);
    append(line, bar);
}

static void
describe(const Progress *progress, int64_t now_ns, char line[LINE_SIZE])
{
    const uint64_t done = atomic_load(&progress->done_bytes);
    const double elapsed_s = (double)(now_ns - progress->start_ns) / 1e9;
    const double rate = elapsed_s > 0 ? (double)done / elapsed_s : 0;
    char text[32];

    snprintf(line, LINE_SIZE, "%s:", progress->what);
    if (progress->total_bytes > 0 && progress->terminal)
        append_bar(line, done, progress->total_bytes);
    append(line, " ");
    format_bytes(text, done);
    append(line, text);
    if (progress->total_bytes > 0) {
        append(line, " of ");
        format_bytes(text, progress->total_bytes);
        append(line, text);
    }
    append(line, ", ");
    format_bytes(text, (uint64_t)rate);
    append(line, text);
    append(line, "/s");
    if (progress->total_bytes > done && rate > 0) {
        const double left_s = (double)(progress->total_bytes - done) / rate;
        if (left_s < 360000) {
            const unsigned seconds = (unsigned)left_s;
            snprintf(text, sizeof text, ", %u:%02u:%02u left", seconds / 3600, seconds / 60 % 60,
                     seconds % 60);
            append(line, text);
        }
    }
}

static void
draw_now(Progress *progress, int64_t now_ns)
{
    char line[LINE_SIZE];
    describe(progress, now_ns, line);
    if (progress->terminal) {
        fprintf(stderr, "\r%s\033[K", line);
        fflush(stderr);
        progress->line_open = true;
    } else {
        fprintf(stderr, "%s\n", line);
    }
    progress->drawn_ns = now_ns;
}

void
progress_draw(Progress *progress)
{
    if (progress == NULL)
        return;
    const int64_t now_ns = progress->world->clock->monotonic_ns(progress->world->clock);
    const int64_t period_ms = progress->terminal ? TERMINAL_PERIOD_MS : PLAIN_PERIOD_MS;
    if (now_ns - progress->drawn_ns >= period_ms * 1000000)
        draw_now(progress, now_ns);
}

void
progress_add(Progress *progress, uint64_t bytes)
{
    if (progress != NULL)
        atomic_fetch_add_explicit(&progress->done_bytes, bytes, memory_order_relaxed);
}

void
progress_free(Progress *progress)
{
    if (progress == NULL)
        return;
    if (progress->line_open) {
        draw_now(progress, progress->world->clock->monotonic_ns(progress->world->clock));
        fputc('\n', stderr);
    }
    free(progress);
}
