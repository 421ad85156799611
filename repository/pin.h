/*
 * Pins: readers (restore, verify) hold the backups that they read, so that no collector deletes
 * their packs and WAL meanwhile (docs/format.md, "Pin").
 *
 * `pin/<token>` is there as long as the reader reads; `pin/<token>.<n>` is its n-th sign of life,
 * a new name each time. The reader's side: the pin is durable first, then it looks for doomed
 * objects; a collector writes doomed objects first, then reads the pins: one of them sees the
 * other.
 *
 * Units: seconds, of the observer's own monotonic clock; never a comparison between two hosts'
 * clocks. Ownership: pin_release frees. Threads: pin_keep_alive starts one of its own.
 * Crash: a pin of this host whose process is gone counts for nothing and is removed by the next
 * collector here; a foreign one holds until somebody asks for it to be judged (pin_judge).
 */
#ifndef PGCAIRN_REPOSITORY_PIN_H
#define PGCAIRN_REPOSITORY_PIN_H

#include "repository/backup_id.h"
#include "repository/catalog.h"
#include "repository/host.h"
#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PIN_RENEW_S = 60, PIN_STALE_S = 300 };

typedef struct Pin Pin;

/*
 * purpose: "restore" or "verify", for people. REFUSED when one of the backups is being deleted.
 * NO_SPACE, DENIED: the repository cannot be written; reading on without a pin is the caller's
 * decision. cluster is borrowed as long as the pin lives. Returned owned.
 */
Pin *pin_take(Repository *repository, const char *cluster, const char *purpose,
              const BackupId *backups, size_t count, CairnError *err) MUST_CHECK;
/* The next sign of life, and the last one goes. */
bool pin_renew(Pin *pin, CairnError *err) MUST_CHECK;
/* Renews every PIN_RENEW_S seconds from a thread, until release. Failures there are logged: the pin
 * holds without. */
bool pin_keep_alive(Pin *pin, CairnError *err) MUST_CHECK;
/* Removes and frees. What cannot be removed the next collector of this host removes. */
void pin_release(Pin *pin);
SCOPED_TYPE(Pin, pin_release);

/*
 * For readers on whatever they can get: a pin that renews itself, or NULL and true with a warning
 * where the repository cannot be written (read-only, full): then only the collector's grace
 * protects. False: REFUSED and everything else.
 */
bool pin_take_or_warn(Repository *repository, const char *cluster, const char *purpose,
                      const BackupId *backups, size_t count, Pin **pin_out,
                      CairnError *err) MUST_CHECK;

/* The same for every backup of a catalog that readers may use. */
bool pin_catalog_or_warn(Repository *repository, const char *cluster, const char *purpose,
                         const Catalog *catalog, Pin **pin_out, CairnError *err) MUST_CHECK;

/* A pin as a collector finds it. */
typedef struct {
    char token[17];
    char purpose[16];
    Host host;
    int64_t taken_us; /* of the reader's clock: for people */
    uint64_t renewals;
    BackupId *backups;
    size_t backup_count;
} PinRecord;

typedef struct {
    PinRecord *pins;
    size_t count, capacity;
} Pins;

void pins_free(Pins *pins);
#define SCOPED_PINS __attribute__((cleanup(pins_free))) Pins

/* Every pin of the cluster but those whose process on this host is gone. An unreadable one is an
 * error: it is never absent. */
bool pins_read(Repository *repository, const char *cluster, Pins *pins_out,
               CairnError *err) MUST_CHECK;
/* Removes pins of this host's dead processes, and signs of life without a pin. */
bool pins_remove_dead(Repository *repository, const char *cluster, CairnError *err) MUST_CHECK;

/*
 * Watches one pin for PIN_STALE_S seconds and removes it when it gave no sign of life. REFUSED
 * when it did; NOT_FOUND.
 */
bool pin_judge(Repository *repository, const char *cluster, const char *token,
               CairnError *err) MUST_CHECK;

#endif
