/*
 * What the files of verify share. Inside repository/ only.
 */
#ifndef PGCAIRN_REPOSITORY_VERIFY_INTERN_H
#define PGCAIRN_REPOSITORY_VERIFY_INTERN_H

#include "codec/codec.h"
#include "common/digest.h"
#include "repository/damage.h"
#include "repository/map_cache.h"
#include "repository/object.h"
#include "repository/pack.h"
#include "repository/refs_sweep.h"
#include "repository/verify.h"
#include "repository/wal_archive.h"

/* What this run has learnt of one backup of the catalog. */
typedef struct {
    bool wanted;   /* COMMITTED when the run began, and asked for */
    bool gone;     /* expired meanwhile: it promises nothing any more */
    bool no_refs;  /* its reference summary cannot be read */
    bool damaged;  /* something it needs is missing or damaged */
    bool unproven; /* something it needs is out of reach, or WAL that may still come is missing */
    uint64_t object_count; /* damaged objects other than data packs */
    const char **objects;  /* the first DAMAGE_OBJECTS_LISTED of them; NULL before the first */
} BackupCheck;

/* Slots of packs that were opened: a constant amount of memory, a hint only. */
typedef struct {
    BackupId creator;
    uint32_t pack;
    uint32_t slot_count;
} PackSlots;
enum { PACK_SLOTS_KNOWN = 16384 };

typedef struct {
    Repository *repository;
    const VerifyOptions *options;
    const Catalog *catalog;
    VerifyReport *report;
    BackupCheck *checks; /* as catalog->backups */
    uint32_t slice;      /* of a sampled run */
    uint64_t run;        /* its number */
    DamagedPacks packs;  /* data packs that are missing or damaged */
    CodecContext *codec;
    KeyedDigest *fingerprints;
    MapCache *nodes;
    PackSlots *slots;
    uint8_t *raw;    /* one frame */
    uint8_t *stored; /* one frame */

    /* The set that labels were last made of: a damaged directory makes the same many times. */
    uint32_t *label_indexes;
    size_t label_count;
    const char *labels;
} Verify;

/* What a finding is about. Zero where not known. */
typedef struct {
    const char *object;
    BackupSet needed_by;
    const char *files;
    const VerifyMoments *moments;
    bool is_wal;     /* missing WAL damages no backup: it may still come */
    bool may_vanish; /* it was listed just now; if nobody needs it, whoever removed it was right */
    const BackupId *creator; /* of a data pack */
    uint32_t pack;
} VerifySubject;

/*
 * Files a finding, and remembers it of the backups that need the object; err is emptied. No finding
 * when all of them expired meanwhile. False (and err kept) when the failure is none of the
 * object's.
 */
bool verify_note(Verify *verify, const VerifySubject *subject, CairnError *err) MUST_CHECK;

/* Takes out of the set those that promise nothing any more; indexes has room for all. recheck:
 * looks again, now. */
bool verify_keep_live(Verify *verify, const BackupSet *set, bool recheck, uint32_t *indexes,
                      size_t *count_out, CairnError *err) MUST_CHECK;

/* Labels of the backups, in the report's arena. */
const char *verify_labels(Verify *verify, const BackupSet *set);

/* Is every byte of the object to be read in this run? */
bool verify_reads(Verify *verify, const char *name, bool *reads_out, CairnError *err) MUST_CHECK;

/* Header, trailer, index, and where this run reads it, every byte. *ok_out false: a finding was
 * filed. */
bool verify_object(Verify *verify, const char *name, ObjectKind kind, const VerifySubject *subject,
                   bool *ok_out, CairnError *err) MUST_CHECK;

/* Every pack that a wanted backup refers to, once. */
bool verify_packs(Verify *verify, CairnError *err) MUST_CHECK;
/* Reference summary of a wanted backup; NULL with an empty err when a finding was filed. */
Refs *verify_refs(Verify *verify, uint32_t index, CairnError *err) MUST_CHECK;
/* Where the slots of a pack are remembered, if they are; whose they are has to be looked at. */
PackSlots *verify_slots_place(Verify *verify, const BackupId *creator, uint32_t pack);
void verify_remember_slots(Verify *verify, const BackupId *creator, uint32_t pack,
                           uint32_t slot_count);
/* The map of each wanted backup. */
bool verify_maps(Verify *verify, CairnError *err) MUST_CHECK;

/* Incarnations, and the WAL below c/<cluster>/w that this run is about. */
bool verify_wal(Verify *verify, CairnError *err) MUST_CHECK;

/*
 * One incarnation's WAL while it is looked at. archive NULL: a history file is damaged, and no path
 * is known for certain.
 */
typedef struct {
    uint32_t timeline;
    uint64_t first, last; /* segments */
    uint32_t backup;
} WalNeed;

typedef struct {
    uint32_t timeline;
    uint64_t first, last; /* segments of a hole that was reported */
} WalHole;

typedef struct {
    Verify *verify;
    const Incarnation *incarnation;
    WalStore *store;
    WalArchive *archive;
    WalNeed *needs; /* from start to stop of wanted backups */
    size_t need_count, need_capacity;
    WalHole *holes;
    size_t hole_count, hole_capacity;
    uint32_t *indexes; /* room for all backups */
} WalCheck;

/* The newest path that reads this segment under this timeline's name; NULL when none does. */
const TimelineHistory *verify_path_of(const WalCheck *check, uint32_t timeline, uint64_t segment);
/* Backups on the path that begin before end_lsn: numbers into indexes, their count. */
size_t verify_backups_before(const WalCheck *check, const TimelineHistory *path, uint64_t end_lsn,
                             uint32_t *indexes);
/* What cannot be reached when [from_lsn, to_lsn) of the path cannot be read, in the report's arena.
 * NULL with an empty err: no backup gets there anyway. */
const VerifyMoments *verify_moments(const WalCheck *check, const TimelineHistory *path,
                                    uint64_t from_lsn, uint64_t to_lsn, CairnError *err) MUST_CHECK;
/* Reports segments that are missing although WAL after them is stored. */
bool verify_holes(WalCheck *check, CairnError *err) MUST_CHECK;
/* Backups that need this segment between their start and stop. */
BackupSet verify_needed_by(const WalCheck *check, uint32_t timeline, uint64_t segment);

/* What was found is kept with the backups, so that info, restore and retention know it. */
bool verify_conclude(Verify *verify, CairnError *err) MUST_CHECK;

#endif
