/*
 * What the files of verify share. Inside repository/ only.
 */
#ifndef PGCAIRN_REPOSITORY_VERIFY_INTERN_H
#define PGCAIRN_REPOSITORY_VERIFY_INTERN_H

#include "codec/codec.h"
#include "common/digest.h"
#include "repository/object.h"
#include "repository/verify.h"

typedef struct {
    Repository *repository;
    const VerifyOptions *options;
    const Catalog *catalog;
    VerifyReport *report;
    CodecContext *codec;
    KeyedDigest *fingerprints;
    uint8_t *raw;    /* one frame */
    uint8_t *stored; /* one frame */
} Verify;

/* Files a finding; err is emptied. False (and err kept) when the failure is none of the object's.
 */
bool verify_note(Verify *verify, const char *object, const char *backups, const char *files,
                 CairnError *err) MUST_CHECK;

/* Header, trailer, index, and in a full verification every byte. *ok_out false: a finding was
 * filed. */
bool verify_object(Verify *verify, const char *name, ObjectKind kind, const char *backups,
                   bool *ok_out, CairnError *err) MUST_CHECK;

/* A backup with all that it needs. *good_out: nothing is wrong with it. */
bool verify_backup(Verify *verify, const CatalogBackup *backup, bool *good_out,
                   CairnError *err) MUST_CHECK;

/* A data pack. backups: labels that need it. */
bool verify_pack(Verify *verify, const BackupId *creator, uint32_t pack, const char *backups,
                 bool *ok_out, CairnError *err) MUST_CHECK;

/* Incarnations and the WAL below c/<cluster>/w, all of it; and what one backup needs from start to
   stop: read, except by a quick look at everything. *good_out: all of it is there and whole. */
bool verify_all_wal(Verify *verify, CairnError *err) MUST_CHECK;
bool verify_backup_wal(Verify *verify, const Fate *fate, bool *good_out,
                       CairnError *err) MUST_CHECK;

#endif
