/* SPDX-License-Identifier: Apache-2.0 */
/*
 * history.h: is what many threads saw of a register explained by some order in which one thing happened after another?
 * Each write must have written a value of its own. For such histories there is an exact test that only sorts (Gibbons and
 * Korach, "Testing shared memories", 1997): a value and its reads span a zone from the earliest response to the latest
 * call among them. A zone whose ends are in that order is forward: all of it, the value was there. The history is
 * linearizable when no read ends before its write begins, no two forward zones overlap, and no other zone lies inside a
 * forward one.
 */
#ifndef PYCOW_HISTORY_H
#define PYCOW_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct history_op {
    uint64_t called, answered; /* ticks of one clock that all threads share */
    uint64_t value;
    uint32_t reg; /* which register */
    bool write;
};

/* Sorts ops. The values that the registers had at tick 0 are initial (initial value of register r: r). True when
 * nothing is wrong; with complain it prints what is. Ends the program when there is no memory. One thread. */
bool history_check(struct history_op *ops, size_t count, bool complain);

#endif
