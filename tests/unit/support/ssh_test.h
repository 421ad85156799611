/*
 * What the tests of ssh's driver and server share: one SshFixture a test, and objects whose content
 * follows from a number. Failures are cmocka's.
 */
#ifndef PGCAIRN_TESTS_SSH_TEST_H
#define PGCAIRN_TESTS_SSH_TEST_H

#include "tests/unit/support/ssh_fixture.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SSH_TEST_LARGE = 3000001 }; /* bytes: more than is sent in one piece */

/* The running test's. */
extern SshFixture ssh_test;

int ssh_test_setup(void **state);
int ssh_test_teardown(void **state);

#define SSH_TEST(test) cmocka_unit_test_setup_teardown(test, ssh_test_setup, ssh_test_teardown)

/* Returned owned. */
Storage *ssh_test_connect(void);

/* Content that nobody mistakes for another place or object. */
void ssh_test_fill(uint8_t *data, size_t size, uint32_t seed);
bool ssh_test_put(Storage *storage, const char *name, size_t size, uint32_t seed,
                  CairnError *err) MUST_CHECK;
/* Reads it in pieces of step bytes, and compares. */
void ssh_test_read_back(Storage *storage, const char *name, size_t size, uint32_t seed,
                        size_t step);

/* Behind the server's back. */
bool ssh_test_has(const char *name, size_t size, uint32_t seed);
/* Names in a directory, not those below it. */
unsigned ssh_test_count(const char *directory);

#endif
