/*
 * What stands below `keys/`: slots, the epoch that new objects are written under, and in sealed
 * mode the recipients that data is sealed to (docs/format.md, "Key (2)").
 *
 *     keys/<slot>            a slot (key_slot.h)
 *     keys/epoch.<n>         created once each; the highest that is genuine counts
 *     keys/recipients.<n>    likewise: the whole list
 *
 * Nothing here is encrypted; everything but a slot is authenticated under the metadata root.
 *
 * Errors: DENIED "wrong key" where no slot opens; a damaged slot never hides another one. REFUSED
 * for what would lock everybody out. Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_KEY_STORE_H
#define PGCAIRN_REPOSITORY_KEY_STORE_H

#include "repository/descriptor.h"
#include "repository/key_slot.h"
#include "repository/key_source.h"

enum { KEY_SLOT_LIMIT = 64, KEY_LIST_LIMIT = 256 };

typedef struct {
    char name[KEY_SLOT_NAME_LIMIT + 1];
    bool looked_at;
    bool readable;
    KeySlot slot;           /* if readable */
    CairnErrorKind trouble; /* else; MISMATCH: of another repository, left by an init */
    const char *trouble_text;
} KeyStoreSlot;

typedef struct {
    Repository *repository;
    /* Borrowed, set by who opens: a slot whose roots did not make it opens nothing. */
    const Descriptor *descriptor;
    Arena *arena;
    KeyStoreSlot slots[KEY_SLOT_LIMIT]; /* by name */
    size_t slot_count;
    uint16_t epochs[KEY_LIST_LIMIT]; /* highest first; the highest ones, where there are more */
    size_t epoch_count;
    uint16_t lists[KEY_LIST_LIMIT]; /* of recipients, likewise */
    size_t list_count;
} KeyStore;

/* Lists names; slots are read as they are wanted. */
KeyStore *key_store_read(Repository *repository, CairnError *err) MUST_CHECK;
void key_store_free(KeyStore *store);
SCOPED_TYPE(KeyStore, key_store_free);
/* The slot at index, read if need be. */
const KeyStoreSlot *key_store_slot(KeyStore *store, size_t index);
/* NULL when there is none of this name. */
const KeyStoreSlot *key_store_find(KeyStore *store, const char *name);

/* Roots out of the first slot that opens with what the source has and proves the descriptor;
   `first` (may be NULL) is tried before the others. *opened_out: the slot's name. CORRUPT when
   slots open and none proves it. */
bool key_store_open(KeyStore *store, KeySource *source, const char *first, KeyRoots *roots_out,
                    char opened_out[KEY_SLOT_NAME_LIMIT + 1], CairnError *err) MUST_CHECK;

/* The epoch that counts. What is not genuine is passed over, with a warning. */
bool key_store_epoch(KeyStore *store, const KeyRoots *roots, uint16_t *epoch_out,
                     CairnError *err) MUST_CHECK;
/* One more than that, durable. */
bool key_store_rotate(KeyStore *store, const KeyRoots *roots, uint16_t *epoch_out,
                      CairnError *err) MUST_CHECK;

typedef struct {
    uint8_t keys[KEYRING_RECIPIENT_LIMIT][KEY_SIZE];
    size_t count;
} KeyRecipients;
/* Of sealed mode. CORRUPT when the newest list is not genuine: what is sealed to too few is lost.
 */
bool key_store_recipients(KeyStore *store, const KeyRoots *roots, KeyRecipients *recipients_out,
                          CairnError *err) MUST_CHECK;
bool key_store_set_recipients(KeyStore *store, const KeyRoots *roots,
                              const KeyRecipients *recipients, CairnError *err) MUST_CHECK;

/* Would the holder of what opens this slot read everything, data included? */
bool key_slot_opens_all(const KeySlot *slot);

/* Whole slots that would open everything, by their own word, and those of them that are proven to
   (key_slot_prove), or are `in_use`: this host opened the repository with it. */
typedef struct {
    size_t whole;
    size_t proven;
    size_t forged; /* not among the whole ones */
    char unproven_name[KEY_SLOT_NAME_LIMIT + 1];
    char forged_name[KEY_SLOT_NAME_LIMIT + 1];
} KeySlotCount;
/* besides (may be NULL): a slot that is not counted. */
bool key_store_count(KeyStore *store, const uint8_t *meta_root, const char *in_use,
                     const char *besides, KeySlotCount *count_out, CairnError *err) MUST_CHECK;

/* Which slot is to go, and from where it is asked. */
typedef struct {
    const char *name;
    const char *in_use;
    bool force;
    const KeyRoots *roots;
} KeyRemoval;
/*
 * May this slot go? REFUSED when no other whole slot would open everything, and, unless forced,
 * for one that would when none that is proven is left, and for the slot in use.
 */
bool key_store_may_remove(KeyStore *store, const KeyRemoval *removal, CairnError *err) MUST_CHECK;
/* Takes the slot away; in sealed mode its recipient from the list first. REFUSED, and the slot is
   there again, when somebody else removed the others meanwhile. */
bool key_store_remove(KeyStore *store, const KeyRemoval *removal, CairnError *err) MUST_CHECK;
/* Makes a slot; in sealed mode a recipient's also puts it on the list. */
bool key_store_add(KeyStore *store, const KeySlotPlan *plan, const KeyRoots *roots,
                   CairnError *err) MUST_CHECK;

#endif
