/*
 * What the files of verify share. Inside repository/ only.
 */
#ifndef PGCAIRN_REPOSITORY_VERIFY_INTERN_H
#define PGCAIRN_REPOSITORY_VERIFY_INTERN_H

#include "codec/codec.h"
#include "common/digest.h"
#include "repository/damage.h"
#include "repository/map_cache.h"
#include "repository/map_packs.h"
#include "repository/object.h"
#include "repository/pack.h"
#include "repository/pack_slots.h"
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
    uint64_t refs_bytes;   /* of its reference summary, as it was listed */
    uint64_t object_count; /* damaged objects other than data packs */
    const char **objects;  /* the first DAMAGE_OBJECTS_LISTED of them; NULL before the first */
} BackupCheck;

typedef struct VerifyPool VerifyPool;
typedef struct VerifyJob VerifyJob;
typedef struct VerifyWorker VerifyWorker;

typedef struct {
    Repository *repository;
    const VerifyOptions *options;
    const Catalog *catalog;
    VerifyReport *report;
    BackupCheck *checks; /* as catalog->backups */
    uint32_t slice;      /* of a sampled run */
    uint64_t run;        /* its number */
    DamagedPacks packs;  /* data packs that are missing or damaged */
    MapCache *nodes;     /* this and the next two: any thread's */
    MapPacks *map_packs;
    PackSlots *slots;
    VerifyPool *pool; /* threads that read objects (verify_work.c); everything else has one */

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
 * object's. Comes after all that is said of objects that were added before.
 */
bool verify_note(Verify *verify, const VerifySubject *subject, CairnError *err) MUST_CHECK;
/* The same, of an object whose turn it is. */
bool verify_note_now(Verify *verify, const VerifySubject *subject, CairnError *err) MUST_CHECK;

/* Takes out of the set those that promise nothing any more; indexes has room for all. recheck:
 * looks again, now, at several at a time where the storage is far away. */
bool verify_keep_live(Verify *verify, const BackupSet *set, bool recheck, uint32_t *indexes,
                      size_t *count_out, CairnError *err) MUST_CHECK;
/* Marks those that expired while we read: what only they need is nobody's. */
bool verify_look_who_is_left(Verify *verify, CairnError *err) MUST_CHECK;

/* Labels of the backups, in the report's arena. */
const char *verify_labels(Verify *verify, const BackupSet *set);

/* Is every byte of the object to be read in this run? */
bool verify_reads(Verify *verify, const char *name, bool *reads_out, CairnError *err) MUST_CHECK;

/* Header, trailer, index, and where this run reads it, every byte. Only added: see verify_add. */
bool verify_object(Verify *verify, const char *name, ObjectKind kind, const VerifySubject *subject,
                   CairnError *err) MUST_CHECK;

/* So many small requests at a time are worth it: 1 where the storage is near. */
int verify_requests_at_once(const Verify *verify);

/* What lies beside the packs of each backup. */
bool verify_small_objects(Verify *verify, CairnError *err) MUST_CHECK;

/* Every pack that a wanted backup refers to, once. */
bool verify_packs(Verify *verify, CairnError *err) MUST_CHECK;
/* Reference summary of a wanted backup; NULL with an empty err when a finding was filed. */
Refs *verify_refs(Verify *verify, uint32_t index, CairnError *err) MUST_CHECK;
/* The same in two steps: is there one to read, and what is wrong with it. */
bool verify_has_refs(const Verify *verify, uint32_t index);
bool verify_note_refs(Verify *verify, uint32_t index, CairnError *err) MUST_CHECK;
/* The map of each wanted backup. */
bool verify_maps(Verify *verify, CairnError *err) MUST_CHECK;
/* What is said of a map: nothing more where a map pack that is not there has been reported. */
bool verify_note_map(Verify *verify, const VerifyJob *job, const VerifySubject *subject,
                     CairnError *err) MUST_CHECK;

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

/* What a stored file is: only segments have a place on a path. */
typedef struct {
    bool is_segment;
    uint32_t timeline;
    uint64_t segment;
} WalPlace;

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

/* What is said of a WAL file has the moments that recovery cannot reach without it. */
bool verify_note_wal(WalCheck *check, VerifySubject *subject, const WalPlace *place,
                     CairnError *err) MUST_CHECK;

/*
 * One object that a thread looks at. Whoever adds it fills what stands before `read`'s results,
 * zero where it is not meant.
 */
struct VerifyJob {
    /* In a thread of the pool, touching nothing but worker and job. False with err: what is wrong
     * with the object, or why the run ends. */
    bool (*read)(VerifyWorker *worker, VerifyJob *job, CairnError *err);
    char object[STORAGE_NAME_LIMIT + 1];
    ObjectKind kind;
    bool reads_all;
    bool uncounted; /* no object of its own: a question, a walk over others */
    bool may_vanish, is_wal;
    BackupSet needed_by; /* copied when it is added */
    bool is_pack;        /* a data pack: number `pack` of creator */
    BackupId creator;
    uint32_t pack;
    bool is_map;     /* the map of a backup, walked */
    uint32_t backup; /* whose: its number in the catalog */
    WalCheck *wal;   /* a WAL file; the owner's: when the run fails it goes before the threads do */
    Incarnation incarnation; /* of the WAL file, and its name in the archive */
    WalPlace place;
    char file[STORAGE_NAME_LIMIT];

    /* Results. */
    bool no_refs; /* of a map: what is said is of the reference summary, object too */
    bool unseen;  /* of a WAL file: not there, or out of reach; counts not, object is `file` */
    bool opened;
    uint64_t stored_size;
    uint32_t slot_count;

    /* The pool's. */
    bool done, speaks;
    CairnError said;
    const char *said_files;
};

/* What each thread has for itself. */
struct VerifyWorker {
    const Verify *verify; /* the run's; what changes in it belongs to its own thread */
    VerifyPool *pool;
    VerifyJob *job;
    CodecContext *codec;
    KeyedDigest *fingerprints;
    uint8_t *raw;  /* one frame */
    WalStore *wal; /* of the incarnation whose WAL was read last; NULL at first */
    Incarnation incarnation;
};

bool verify_pool_begin(Verify *verify, int jobs, CairnError *err) MUST_CHECK;
/* Ends threads in the middle of what they do; harmless when there are none. */
void verify_pool_end(Verify *verify);
/* Counts the object and hands a copy of the job to the threads; what earlier ones came to may be
 * filed meanwhile. */
bool verify_add(Verify *verify, const VerifyJob *job, CairnError *err) MUST_CHECK;
/* Everything that was added is read, and what came of it is filed. */
bool verify_settle(Verify *verify, CairnError *err) MUST_CHECK;
/* A thread: one thing that is wrong with its object, of several; files as in VerifySubject. Empties
 * err. False: the run ends. */
bool verify_say(VerifyWorker *worker, const char *files, CairnError *err) MUST_CHECK;

/* What was found is kept with the backups, so that info, restore and retention know it. */
bool verify_conclude(Verify *verify, CairnError *err) MUST_CHECK;

#endif
