/* What a look at archiving means: pure. */
#include "agent/archiving.h"

#include "common/progress.h"
#include "common/timestamp.h"
#include "repository/json.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SHORT_TEXT_SIZE = 32, SECONDS_A_DAY = 86400, DISK_YEARS_S = 10 * 365 * 86400 };

const char *
archiving_state_name(ArchivingState state)
{
    static const char *const NAMES[] = {"none", "up-to-date", "behind", "failing"};
    return NAMES[state];
}

/* Whole segments between what was archived last and what is being written. */
static uint64_t
guess_waiting(const Archiving *archiving)
{
    uint32_t timeline;
    uint64_t last;
    const uint64_t current = archiving->lsn / archiving->segment_size;

    if (!wal_segment_parse(archiving->archived, archiving->segment_size, &timeline, &last) ||
        current <= last + 1)
        return 0;
    return current - last - 1;
}

/* What waits says best how fast it comes: each segment became ready when it was full. */
static double
rate_of(const Archiving *archiving)
{
    const int64_t span_us = archiving->ready_newest_us - archiving->ready_oldest_us;

    if (archiving->ready_known && archiving->ready_count >= ARCHIVING_RATE_FILES && span_us > 0)
        return (double)(archiving->ready_count - 1) * archiving->segment_size /
               ((double)span_us / 1e6);
    return archiving->average_rate;
}

static int64_t
disk_lasts(const Archiving *archiving, double rate)
{
    if (!archiving->free_known || rate <= 0)
        return -1;
    const double seconds = (double)archiving->free_bytes / rate;
    return seconds < DISK_YEARS_S ? (int64_t)seconds : DISK_YEARS_S;
}

/* FAILING needs something that waits: an old failure of a file that is gone is history. */
static ArchivingState
state_of(const Archiving *archiving, const ArchivingVerdict *verdict)
{
    if (!archiving->archives)
        return ARCHIVING_NONE;
    const bool failed_last =
        archiving->failed_us != 0 && archiving->failed_us > archiving->archived_us;
    if (failed_last && (verdict->waiting > 0 || !archiving->ready_known))
        return ARCHIVING_FAILING;
    return verdict->waiting > 0 && archiving->now_us - verdict->since_us > ARCHIVING_BEHIND_US
               ? ARCHIVING_BEHIND
               : ARCHIVING_FINE;
}

static int64_t
since_of(const Archiving *archiving)
{
    if (archiving->ready_known)
        return archiving->ready_count > 0 ? archiving->ready_oldest_us : 0;
    /* It kept up until then; where it never archived, the failure is all that is known. */
    return archiving->archived_us != 0 ? archiving->archived_us : archiving->failed_us;
}

ArchivingVerdict
archiving_judge(const Archiving *archiving)
{
    ArchivingVerdict verdict = {.since_us = since_of(archiving), .rate = rate_of(archiving)};

    verdict.waiting_is_guess = !archiving->ready_known;
    verdict.waiting = archiving->ready_known ? archiving->ready_count : guess_waiting(archiving);
    verdict.waiting_bytes = verdict.waiting * archiving->segment_size;
    verdict.disk_lasts_s = disk_lasts(archiving, verdict.rate);
    verdict.state = state_of(archiving, &verdict);
    if (verdict.state == ARCHIVING_NONE || verdict.state == ARCHIVING_FINE)
        verdict.since_us = 0;
    return verdict;
}

static void PRINTF_LIKE(2, 3) add(char text[ARCHIVING_TEXT_SIZE], const char *format, ...)
{
    const size_t used = strlen(text);
    va_list args;

    va_start(args, format);
    vsnprintf(text + used, ARCHIVING_TEXT_SIZE - used, format, args);
    va_end(args);
}

static void
format_seconds(char text[SHORT_TEXT_SIZE], int64_t seconds)
{
    if (seconds < 120)
        snprintf(text, SHORT_TEXT_SIZE, "%" PRId64 " s", seconds);
    else if (seconds < 7200)
        snprintf(text, SHORT_TEXT_SIZE, "%" PRId64 " min", seconds / 60);
    else if (seconds < 2 * SECONDS_A_DAY)
        snprintf(text, SHORT_TEXT_SIZE, "%" PRId64 " h", seconds / 3600);
    else
        snprintf(text, SHORT_TEXT_SIZE, "%" PRId64 " days", seconds / SECONDS_A_DAY);
}

static void
add_waiting(const Archiving *archiving, const ArchivingVerdict *verdict,
            char text[ARCHIVING_TEXT_SIZE])
{
    char size[SHORT_TEXT_SIZE], since[TIMESTAMP_TEXT_SIZE], age[SHORT_TEXT_SIZE];

    timestamp_format(since, verdict->since_us - verdict->since_us % 1000000);
    format_seconds(age, (archiving->now_us - verdict->since_us) / 1000000);
    format_bytes(size, verdict->waiting_bytes);
    add(text, "%s since %s (%s): %s%" PRIu64 " file%s, %s, wait%s",
        verdict->state == ARCHIVING_FAILING ? "FAILING" : "BEHIND", since, age,
        verdict->waiting_is_guess ? "about " : "", verdict->waiting,
        verdict->waiting == 1 ? "" : "s", size, verdict->waiting == 1 ? "s" : "");
    if (archiving->ready_oldest[0] != '\0')
        add(text, ", first %s", archiving->ready_oldest);
    if (verdict->waiting_is_guess)
        add(text, " (role.sql lets pgcairn see how many)");
}

static void
add_failure(const Archiving *archiving, char text[ARCHIVING_TEXT_SIZE])
{
    char when[TIMESTAMP_TEXT_SIZE];

    if (archiving->failed_us == 0 || archiving->failed_us <= archiving->archived_us)
        return;
    timestamp_format(when, archiving->failed_us - archiving->failed_us % 1000000);
    add(text, "; it failed %" PRIu64 " times, last on %s at %s: the server log says why",
        archiving->failed_count, archiving->failed, when);
}

static void
add_space(const Archiving *archiving, const ArchivingVerdict *verdict,
          char text[ARCHIVING_TEXT_SIZE])
{
    char size[SHORT_TEXT_SIZE], lasts[SHORT_TEXT_SIZE];

    if (archiving->wal_known) {
        format_bytes(size, archiving->wal_bytes);
        add(text, "; pg_wal has %s", size);
    }
    if (verdict->disk_lasts_s < 0)
        return;
    format_bytes(size, archiving->free_bytes);
    format_seconds(lasts, verdict->disk_lasts_s);
    add(text, "; %s are free: the disk lasts about %s", size, lasts);
    format_bytes(size, (uint64_t)verdict->rate);
    add(text, " at the present rate (%s/s)", size);
}

void
archiving_format(const Archiving *archiving, const ArchivingVerdict *verdict,
                 char text_out[ARCHIVING_TEXT_SIZE])
{
    char age[SHORT_TEXT_SIZE];

    text_out[0] = '\0';
    switch (verdict->state) {
    case ARCHIVING_NONE:
        add(text_out, "this server archives nothing");
        return;
    case ARCHIVING_FINE:
        add(text_out, "up to date");
        if (archiving->archived_us != 0) {
            format_seconds(age, (archiving->now_us - archiving->archived_us) / 1000000);
            add(text_out, ", %s %s ago", archiving->archived, age);
        }
        return;
    case ARCHIVING_BEHIND:
    case ARCHIVING_FAILING:
        add_waiting(archiving, verdict, text_out);
        add_failure(archiving, text_out);
        add_space(archiving, verdict, text_out);
        return;
    }
}

bool
archiving_format_slots(const Archiving *archiving, char text_out[ARCHIVING_TEXT_SIZE])
{
    text_out[0] = '\0';
    for (size_t i = 0; i < archiving->slot_count; i++) {
        const ArchivingSlot *slot = &archiving->slots[i];
        char size[SHORT_TEXT_SIZE];
        if (!slot->lost && slot->held_bytes < ARCHIVING_SLOT_BYTES)
            continue;
        format_bytes(size, slot->held_bytes);
        add(text_out, "%sslot %s", text_out[0] != '\0' ? "; " : "", slot->name);
        if (slot->lost)
            add(text_out, " lost the WAL it needs: drop it, and set its consumer up anew");
        else
            add(text_out, " holds back %s of pg_wal%s", size,
                slot->active ? "" : ", and nobody uses it: start its consumer, or drop it");
    }
    return text_out[0] != '\0';
}

static json_t *
time_or_null(int64_t time_us)
{
    return time_us != 0 ? json_time(time_us) : json_null();
}

static json_t *
text_or_null(const char *text)
{
    return text[0] != '\0' ? json_string(text) : json_null();
}

static json_t *
number_or_null(bool known, int64_t value)
{
    return known ? json_integer(value) : json_null();
}

static json_t *
slots_json(const Archiving *archiving)
{
    json_t *array = json_array();
    for (size_t i = 0; i < archiving->slot_count; i++) {
        const ArchivingSlot *slot = &archiving->slots[i];
        json_array_append_new(array, json_pack("{s:s, s:b, s:b, s:I}", "name", slot->name, "active",
                                               slot->active, "lost", slot->lost, "held_bytes",
                                               (json_int_t)slot->held_bytes));
    }
    return array;
}

json_t *
archiving_json(const Archiving *archiving, const ArchivingVerdict *verdict)
{
    return json_pack(
        "{s:s, s:o, s:I, s:b, s:I, s:o, s:o, s:o, s:o, s:I, s:o, s:f, s:o, s:o, s:o}", "state",
        archiving_state_name(verdict->state), "since", time_or_null(verdict->since_us), "waiting",
        (json_int_t)verdict->waiting, "waiting_is_guess", verdict->waiting_is_guess,
        "waiting_bytes", (json_int_t)verdict->waiting_bytes, "last_archived",
        text_or_null(archiving->archived), "last_archived_at", time_or_null(archiving->archived_us),
        "last_failed", text_or_null(archiving->failed), "last_failed_at",
        time_or_null(archiving->failed_us), "failed_count", (json_int_t)archiving->failed_count,
        "pg_wal_bytes", number_or_null(archiving->wal_known, (int64_t)archiving->wal_bytes),
        "bytes_per_second", verdict->rate, "free_bytes",
        number_or_null(archiving->free_known, (int64_t)archiving->free_bytes), "disk_lasts_seconds",
        number_or_null(verdict->disk_lasts_s >= 0, verdict->disk_lasts_s), "slots",
        slots_json(archiving));
}
