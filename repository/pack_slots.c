#include "repository/pack_slots.h"

#include "common/digest.h"

#include <pthread.h>

enum { PACKS_KNOWN = 16384 };

typedef struct {
    BackupId creator;
    uint32_t pack;
    uint32_t slot_count;
} Known;

struct PackSlots {
    pthread_mutex_t mutex;
    Known known[PACKS_KNOWN];
};

PackSlots *
pack_slots_new(CairnError *err)
{
    PackSlots *slots = calloc(1, sizeof *slots);
    if (slots == NULL)
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
    else
        pthread_mutex_init(&slots->mutex, NULL);
    return slots;
}

void
pack_slots_free(PackSlots *slots)
{
    if (slots == NULL)
        return;
    pthread_mutex_destroy(&slots->mutex);
    free(slots);
}

static Known *
place_of(PackSlots *slots, const BackupId *creator, uint32_t pack)
{
    const uint32_t hash = crc32c(0, creator->text, BACKUP_ID_LENGTH) ^ (pack * 0x9e3779b1u);
    return &slots->known[hash % PACKS_KNOWN];
}

void
pack_slots_put(PackSlots *slots, const BackupId *creator, uint32_t pack, uint32_t slot_count)
{
    pthread_mutex_lock(&slots->mutex);
    *place_of(slots, creator, pack) = (Known){*creator, pack, slot_count};
    pthread_mutex_unlock(&slots->mutex);
}

bool
pack_slots_find(PackSlots *slots, const BackupId *creator, uint32_t pack, uint32_t *slot_count_out)
{
    pthread_mutex_lock(&slots->mutex);
    const Known *known = place_of(slots, creator, pack);
    const bool found = known->pack == pack && backup_id_equal(&known->creator, creator);
    if (found)
        *slot_count_out = known->slot_count;
    pthread_mutex_unlock(&slots->mutex);
    return found;
}
