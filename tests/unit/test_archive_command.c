#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/archive_command.h"

static void
expect(const char *command, ArchiveCommandKind kind)
{
    if (archive_command_recognise(command) != kind)
        fail_msg("'%s' is recognised as %d, not %d", command,
                 (int)archive_command_recognise(command), (int)kind);
}

static void
both_programs_are_ours(void **state)
{
    (void)state;
    expect("/usr/bin/pgcairn-wal push %p", ARCHIVE_COMMAND_OURS);
    expect("/usr/bin/pgcairn-wal --config /etc/x.conf push --cluster main %p",
           ARCHIVE_COMMAND_OURS);
    expect("/usr/bin/pgcairn wal push %p", ARCHIVE_COMMAND_OURS);
    expect("/usr/bin/pgcairn wal archive-push %p", ARCHIVE_COMMAND_OURS);
    expect("/usr/bin/pgcairn --stanza=main archive-push %p", ARCHIVE_COMMAND_OURS);
    expect("/usr/bin/pgcairn push %p", ARCHIVE_COMMAND_OTHER);
    expect("PGCAIRN_CONFIG=/x /usr/bin/pgcairn-wal push \"%p\"", ARCHIVE_COMMAND_OURS);
    expect("'/opt/my tools/pgcairn-wal' push '%p'", ARCHIVE_COMMAND_OURS);
    expect("test -f /x && /usr/bin/pgcairn-wal push %p", ARCHIVE_COMMAND_OURS);
    expect("/usr/bin/pgcairn-wal push %p && touch /tmp/seen", ARCHIVE_COMMAND_OURS);
}

static void
other_commands_are_not_ours(void **state)
{
    (void)state;
    expect("cp %p /archive/%f", ARCHIVE_COMMAND_OTHER);
    expect("/bin/true", ARCHIVE_COMMAND_OTHER);
    expect("/usr/bin/pgcairn push %p", ARCHIVE_COMMAND_OTHER);
    expect("/usr/bin/pgcairn-wal get %f %p", ARCHIVE_COMMAND_OTHER);
    expect("pgbackrest archive-push %p", ARCHIVE_COMMAND_OTHER);
    expect("echo pgcairn-walpush %p", ARCHIVE_COMMAND_OTHER);
    expect("/usr/bin/pgcairn-wal version; cp push %p", ARCHIVE_COMMAND_OTHER);
}

static void
an_empty_command_is_none(void **state)
{
    (void)state;
    expect("", ARCHIVE_COMMAND_NONE);
    expect(" \t", ARCHIVE_COMMAND_NONE);
}

static void
a_hidden_failure_is_told(void **state)
{
    (void)state;
    expect("/usr/bin/pgcairn-wal push %p || true", ARCHIVE_COMMAND_MASKED);
    expect("/usr/bin/pgcairn-wal push %p; exit 0", ARCHIVE_COMMAND_MASKED);
    expect("/usr/bin/pgcairn-wal push %p | logger", ARCHIVE_COMMAND_MASKED);
    expect("/usr/bin/pgcairn-wal push %p &", ARCHIVE_COMMAND_MASKED);
    expect("/usr/bin/pgcairn-wal push %p||true", ARCHIVE_COMMAND_MASKED);
}

static void
a_missing_path_and_a_relative_program_are_told(void **state)
{
    (void)state;
    expect("/usr/bin/pgcairn-wal push %f", ARCHIVE_COMMAND_NO_PATH);
    expect("pgcairn-wal push %p", ARCHIVE_COMMAND_RELATIVE);
}

static void
operators_in_quotes_are_text(void **state)
{
    (void)state;
    expect("/usr/bin/pgcairn-wal push --config '/a;b' %p", ARCHIVE_COMMAND_OURS);
    expect("/usr/bin/pgcairn-wal push --config /a\\|b %p", ARCHIVE_COMMAND_OURS);
    expect("/usr/bin/pgcairn-wal push '%p", ARCHIVE_COMMAND_OURS);
}

static void
the_module_and_its_program_are_known_by_their_file_names(void **state)
{
    (void)state;
    assert_true(archive_library_is_ours("pgcairn_archive"));
    assert_true(archive_library_is_ours("$libdir/pgcairn_archive"));
    assert_true(archive_library_is_ours("/opt/lib/pgcairn_archive.so"));
    assert_false(archive_library_is_ours("basic_archive"));
    assert_false(archive_library_is_ours("pgcairn_archive/basic_archive"));
    assert_true(archive_program_is_ours("/usr/bin/pgcairn-wal"));
    assert_false(archive_program_is_ours("/usr/bin/pgcairn"));
    assert_false(archive_program_is_ours("/usr/bin/pgcairn-wal push"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_programs_are_ours),
        cmocka_unit_test(other_commands_are_not_ours),
        cmocka_unit_test(an_empty_command_is_none),
        cmocka_unit_test(a_hidden_failure_is_told),
        cmocka_unit_test(a_missing_path_and_a_relative_program_are_told),
        cmocka_unit_test(operators_in_quotes_are_text),
        cmocka_unit_test(the_module_and_its_program_are_known_by_their_file_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
