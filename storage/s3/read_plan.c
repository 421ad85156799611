#include "storage/s3/read_plan.h"

#include <string.h>

static size_t
clip(uint64_t size, uint64_t left)
{
    return (size_t)(size < left ? size : left);
}

S3ReadPlan
s3_read_plan(const S3ReadState *state, uint64_t offset, size_t size)
{
    const uint64_t left = state->object_size - offset;
    if (size >= S3_DIRECT_MIN)
        return (S3ReadPlan){.offset = offset, .size = size, .direct = true};

    if (offset == state->next_offset && offset > 0) {
        uint64_t ahead = 2 * (uint64_t)state->ahead;
        if (ahead < S3_AHEAD_FIRST)
            ahead = S3_AHEAD_FIRST;
        if (ahead > S3_AHEAD_LIMIT)
            ahead = S3_AHEAD_LIMIT;
        return (S3ReadPlan){.offset = offset, .size = clip(ahead, left)};
    }
    if (left <= S3_TAIL_READ) {
        const uint64_t start =
            state->object_size > S3_TAIL_READ ? state->object_size - S3_TAIL_READ : 0;
        return (S3ReadPlan){.offset = start, .size = (size_t)(state->object_size - start)};
    }
    return (S3ReadPlan){.offset = offset,
                        .size = clip(size > S3_RANDOM_READ ? size : S3_RANDOM_READ, left)};
}

/* Digits from *text on; moves it behind them. */
static bool
take_number(const char **text, uint64_t *number_out)
{
    uint64_t number = 0;
    const char *at = *text;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*at - '0'), &number))
            return false;
    }
    const bool any = at > *text;
    *text = at;
    *number_out = number;
    return any;
}

bool
s3_content_range_parse(const char *text, uint64_t *first_out, uint64_t *last_out,
                       uint64_t *total_out)
{
    uint64_t first, last, total;
    if (strncmp(text, "bytes ", 6) != 0)
        return false;
    text += 6;
    if (!take_number(&text, &first) || *text++ != '-' || !take_number(&text, &last) ||
        *text++ != '/' || !take_number(&text, &total) || *text != '\0')
        return false;
    if (first > last || last >= total)
        return false;
    *first_out = first;
    *last_out = last;
    *total_out = total;
    return true;
}
