#include "storage/s3/retry.h"

#include <string.h>

_Static_assert(S3_ATTEMPTS_LIMIT > 3 * (S3_PATIENCE_MS / (S3_DELAY_LIMIT_MS / 2)),
               "time ends the waiting, not the number of attempts");

S3Retry
s3_retry_decision(const S3Outcome *outcome)
{
    if (outcome->status == 0)
        return outcome->hopeless ? S3_RETRY_NO : S3_RETRY_LATER;
    if (s3_error_is_clock(outcome->code))
        return S3_RETRY_CLOCK;
    if (s3_error_is_expired(outcome->code) || s3_error_is_about_keys(outcome->code))
        return S3_RETRY_CREDENTIALS;
    return s3_error_is_transient(outcome->status, outcome->code) ? S3_RETRY_LATER : S3_RETRY_NO;
}

int64_t
s3_retry_delay_ms(int attempt, uint32_t random, int64_t retry_after_ms)
{
    int64_t bound = S3_DELAY_FIRST_MS;
    for (int i = 1; i < attempt && bound < S3_DELAY_LIMIT_MS; i++)
        bound *= 2;
    if (bound > S3_DELAY_LIMIT_MS)
        bound = S3_DELAY_LIMIT_MS;
    /* Behind what the store asks for comes jitter too: it told everybody the same. */
    return retry_after_ms + (int64_t)(((uint64_t)random * (uint64_t)(bound + 1)) >> 32);
}

int64_t
s3_retry_after_ms(const char *text)
{
    const size_t digits = strspn(text, "0123456789");
    int64_t seconds = 0;
    if (digits == 0 || text[digits] != '\0')
        return 0; /* a date: rare, and our own delays will do */
    for (size_t i = 0; i < digits && seconds < S3_RETRY_AFTER_LIMIT_MS / 1000; i++)
        seconds = 10 * seconds + (text[i] - '0');
    return seconds < S3_RETRY_AFTER_LIMIT_MS / 1000 ? seconds * 1000 : S3_RETRY_AFTER_LIMIT_MS;
}
