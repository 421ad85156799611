#include "repository/pin.h"

#include "common/log.h"
#include "repository/condemned.h"
#include "repository/json.h"
#include "repository/mark.h"
#include "tests/unit/support/collect_fixture.h"
#include "tests/unit/support/hooked_storage.h"
#include "tests/unit/support/memory_storage.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define LAB(name)                                                                                  \
    __attribute__((cleanup(lab_close))) Lab name;                                                  \
    lab_open(&name)
#define FOREIGN "0123456789abcdef"

static Pin *
take_pin(Lab *lab, const BackupId *bid)
{
    CairnError err = {0};
    Pin *pin = pin_take(lab->repository, "main", "restore", bid, 1, &err);
    if (pin == NULL)
        fail_msg("pin: %s", err.message);
    return pin;
}

/* One of another host, or of this one's dead process. */
static void
put_pin(Lab *lab, const BackupId *bid, bool of_this_host)
{
    CairnError err = {0};
    SCOPED_JSON json_t *json =
        json_pack("{s:s, s:s, s:s, s:[s]}", "token", FOREIGN, "purpose", "restore", "at",
                  "2026-11-22 23:31:40+00", "backups", bid->text);
    assert_true(host_put(json));
    if (of_this_host)
        json_object_set_new(json, "process_start", json_string("1"));
    else
        json_object_set_new(json, "host", json_string("elsewhere"));
    assert_true(json_put(lab->repository, "c/main/pin/" FOREIGN, OBJECT_PIN, 0, json, NULL, &err));
}

static size_t
read_count(Lab *lab)
{
    CairnError err = {0};
    SCOPED_PINS pins = {0};
    assert_true(pins_read(lab->repository, "main", &pins, &err));
    return pins.count;
}

static void
test_a_pin_is_there_until_it_is_released(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    const BackupId bids[] = {test_backup_id(1), test_backup_id(2)};
    SCOPED(Pin) pin = pin_take(lab.repository, "main", "verify", bids, 2, &err);
    assert_non_null(pin);
    for (unsigned i = 1; i <= 3; i++) {
        SCOPED_PINS pins = {0};
        assert_true(pins_read(lab.repository, "main", &pins, &err));
        assert_int_equal(pins.count, 1);
        assert_string_equal(pins.pins[0].purpose, "verify");
        assert_int_equal(pins.pins[0].backup_count, 2);
        assert_string_equal(pins.pins[0].backups[1].text, bids[1].text);
        assert_int_equal(pins.pins[0].renewals, i - 1);
        assert_int_equal(lab_count(&lab, "pin"), i == 1 ? 1 : 2);
        assert_true(pin_renew(pin, &err));
    }
    pin_release(take(&pin));
    assert_int_equal(lab_count(&lab, "pin"), 0);
}

static void
test_a_pinned_backup_outlives_its_expiry(void **state)
{
    (void)state;
    LAB(lab);
    const BackupId bid = lab_backup(&lab, 1, &(LabBackup){.packs = 2, .map_packs = 1});
    lab_backup(&lab, 2, &(LabBackup){.packs = 1});
    SCOPED(Pin) pin = take_pin(&lab, &bid);
    lab_expire(&lab, &bid);
    const CollectReport report = lab_collect(&lab, 0);
    assert_int_equal(report.holder_count, 1);
    assert_true(report.holders[0].is_pin);
    assert_true(lab_is_whole(&lab, &bid));
    pin_release(take(&pin));
    lab_collect(&lab, 0);
    assert_int_equal(lab_packs(&lab, &bid, 2), 0);
}

static void
test_what_is_being_deleted_cannot_be_pinned(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    const BackupId bid = lab_backup(&lab, 1, &(LabBackup){.packs = 2});
    assert_true(doomed_put(lab.repository, "main", &bid, FOREIGN, &err));
    /* Alive: what is there was left by a collector that gave way. */
    pin_release(take_pin(&lab, &bid));
    lab_expire(&lab, &bid);
    assert_null(pin_take(lab.repository, "main", "restore", &bid, 1, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    assert_int_equal(lab_count(&lab, "pin"), 0);
}

static void
test_an_expired_backup_can_be_pinned_before_it_is_doomed(void **state)
{
    (void)state;
    LAB(lab);
    const BackupId bid = lab_backup(&lab, 1, &(LabBackup){.packs = 2});
    lab_backup(&lab, 2, &(LabBackup){.packs = 1});
    lab_expire(&lab, &bid);
    lab_collect(&lab, 3600);
    SCOPED(Pin) pin = take_pin(&lab, &bid);
    lab_pass(&lab, 3600);
    lab_collect(&lab, 3600);
    assert_true(lab_is_whole(&lab, &bid));
}

static void
test_pins_of_dead_processes_of_this_host_hold_nothing(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    put_pin(&lab, &bid, true);
    assert_int_equal(read_count(&lab), 0);
    memory_storage_replace(repository_storage(lab.repository), "c/main/pin/" FOREIGN ".7", "", 0);
    assert_true(pins_remove_dead(lab.repository, "main", &err));
    assert_int_equal(lab_count(&lab, "pin"), 1);
    /* The sign of life without a pin goes the next time. */
    assert_true(pins_remove_dead(lab.repository, "main", &err));
    assert_int_equal(lab_count(&lab, "pin"), 0);
}

static void
test_foreign_pins_hold_and_are_left_alone(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    const BackupId bid = lab_backup(&lab, 1, &(LabBackup){.packs = 2});
    lab_backup(&lab, 2, &(LabBackup){.packs = 1});
    lab_expire(&lab, &bid);
    put_pin(&lab, &bid, false);
    lab_pass(&lab, 1000 * 86400);
    lab_collect(&lab, 0);
    assert_true(pins_remove_dead(lab.repository, "main", &err));
    assert_true(lab_is_whole(&lab, &bid));
    assert_int_equal(lab_count(&lab, "pin"), 1);
}

static void
test_a_pin_that_shows_no_life_is_dropped_when_asked_for(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    put_pin(&lab, &bid, false);
    const int64_t before = lab.monotonic_ns;
    assert_true(pin_judge(lab.repository, "main", FOREIGN, &err));
    assert_true(lab.monotonic_ns - before >= (int64_t)PIN_STALE_S * 1000000000);
    assert_int_equal(lab_count(&lab, "pin"), 0);
    assert_false(pin_judge(lab.repository, "main", FOREIGN, &err));
    assert_int_equal(err.kind, CAIRN_NOT_FOUND);
}

typedef struct {
    Lab *lab;
    Pin *pin;
} Living;

static void
renew_second(void *context, unsigned call)
{
    CairnError err = {0};
    Living *living = context;
    if (call == 2)
        assert_true(pin_renew(living->pin, &err));
}

static void
test_a_pin_that_lives_is_not_dropped(void **state)
{
    (void)state;
    __attribute__((cleanup(lab_close))) Lab lab;
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    HookedStorage *hooks = hooked_storage_new(memory_storage_new());
    lab_open_storage(&lab, &hooks->base);
    SCOPED(Pin) pin = take_pin(&lab, &bid);
    SCOPED_PINS pins = {0};
    assert_true(pins_read(lab.repository, "main", &pins, &err));
    hooked_storage_reset(hooks);
    Living living = {.lab = &lab, .pin = pin};
    hooks->hook = renew_second;
    hooks->context = &living;
    assert_false(pin_judge(lab.repository, "main", pins.pins[0].token, &err));
    assert_int_equal(err.kind, CAIRN_REFUSED);
    hooked_storage_reset(hooks);
    assert_int_equal(read_count(&lab), 1);
}

static void
test_a_repository_that_cannot_be_written_is_read_without_a_pin(void **state)
{
    (void)state;
    static const CairnErrorKind kinds[] = {CAIRN_DENIED, CAIRN_NO_SPACE};
    log_set_level(LOG_LEVEL_ERROR);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        __attribute__((cleanup(lab_close))) Lab lab;
        CairnError err = {0};
        const BackupId bid = test_backup_id(1);
        HookedStorage *hooks = hooked_storage_new(memory_storage_new());
        lab_open_storage(&lab, &hooks->base);
        hooked_storage_reset(hooks);
        hooks->fail_at = 1;
        hooks->fail_kind = kinds[i];
        Pin *pin = (Pin *)(uintptr_t)1;
        assert_true(pin_take_or_warn(lab.repository, "main", "restore", &bid, 1, &pin, &err));
        assert_null(pin);
        hooked_storage_reset(hooks);
        hooks->fail_at = 1;
        hooks->fail_kind = CAIRN_UNAVAILABLE;
        assert_false(pin_take_or_warn(lab.repository, "main", "restore", &bid, 1, &pin, &err));
    }
    log_set_level(LOG_LEVEL_INFO);
}

static void
test_a_pin_that_keeps_itself_alive_ends_with_its_release(void **state)
{
    (void)state;
    LAB(lab);
    CairnError err = {0};
    const BackupId bid = test_backup_id(1);
    Pin *pin = NULL;
    assert_true(pin_take_or_warn(lab.repository, "main", "restore", &bid, 1, &pin, &err));
    assert_non_null(pin);
    assert_int_equal(read_count(&lab), 1);
    pin_release(pin);
    assert_int_equal(lab_count(&lab, "pin"), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pin_is_there_until_it_is_released),
        cmocka_unit_test(test_a_pinned_backup_outlives_its_expiry),
        cmocka_unit_test(test_what_is_being_deleted_cannot_be_pinned),
        cmocka_unit_test(test_an_expired_backup_can_be_pinned_before_it_is_doomed),
        cmocka_unit_test(test_pins_of_dead_processes_of_this_host_hold_nothing),
        cmocka_unit_test(test_foreign_pins_hold_and_are_left_alone),
        cmocka_unit_test(test_a_pin_that_shows_no_life_is_dropped_when_asked_for),
        cmocka_unit_test(test_a_pin_that_lives_is_not_dropped),
        cmocka_unit_test(test_a_repository_that_cannot_be_written_is_read_without_a_pin),
        cmocka_unit_test(test_a_pin_that_keeps_itself_alive_ends_with_its_release),
    };
    return cmocka_run_group_tests_name("pin", tests, NULL, NULL);
}
