#include "repository/collect.h"

#include "repository/claim.h"
#include "repository/condemned.h"
#include "repository/fate.h"
#include "repository/mark.h"
#include "repository/pin.h"
#include "tests/unit/support/collect_fixture.h"
#include "tests/unit/support/repository_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { HOUR = 3600 };

#define LAB(name)                                                                                  \
    __attribute__((cleanup(lab_close))) Lab name;                                                  \
    lab_open(&name)

static void
test_an_expired_backup_goes_after_the_grace_and_leaves_a_grave(void **state)
{
    (void)state;
    LAB(lab);
    const BackupId old = lab_backup(&lab, 1, &(LabBackup){.packs = 3, .map_packs = 1});
    const BackupId new = lab_backup(&lab, 2, &(LabBackup){.packs = 2, .map_packs = 1});
    lab_expire(&lab, &old);

    CollectReport report = lab_collect(&lab, HOUR);
    assert_true(report.waiting);
    assert_int_equal(report.waiting_packs, 4);
    assert_int_equal(report.waiting_backups, 1);
    assert_int_equal(report.packs + report.map_packs + report.backups_swept, 0);
    assert_int_equal(lab_packs(&lab, &old, 3), 4);

    lab_pass(&lab, HOUR - 1);
    report = lab_collect(&lab, HOUR);
    assert_true(report.waiting);
    assert_int_equal(lab_packs(&lab, &old, 3), 4);

    lab_pass(&lab, 1);
    report = lab_collect(&lab, HOUR);
    assert_false(report.waiting);
    assert_int_equal(report.packs, 3);
    assert_int_equal(report.map_packs, 1);
    assert_int_equal(report.bytes, 3 * 4 + 3);
    assert_int_equal(report.backups_swept, 1);
    assert_int_equal(lab_packs(&lab, &old, 3), 0);
    assert_false(lab_has_object(&lab, &old, "refs"));
    assert_true(lab_has_object(&lab, &old, "fate"));
    assert_true(lab_has_object(&lab, &old, "mark.0"));
    char below[64];
    snprintf(below, sizeof below, "b/%s", old.text);
    assert_int_equal(lab_count(&lab, below), 2);
    assert_int_equal(lab_count(&lab, "gc"), 0);
    assert_true(lab_is_whole(&lab, &new));

    report = lab_collect(&lab, HOUR);
    assert_false(report.waiting);
    assert_int_equal(report.packs + report.backups_swept, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_expired_backup_goes_after_the_grace_and_leaves_a_grave),
    };
    return cmocka_run_group_tests_name("collect", tests, NULL, NULL);
}
