/* SPDX-License-Identifier: Apache-2.0 */
#include "history.h"

#include <stdio.h>
#include <stdlib.h>

struct zone {
    uint64_t value, low, high; /* earliest answer, latest call */
};

static int by_register_and_value(const void *left, const void *right)
{
    const struct history_op *a = left, *b = right;
    if (a->reg != b->reg) return a->reg < b->reg ? -1 : 1;
    if (a->value != b->value) return a->value < b->value ? -1 : 1;
    return b->write - a->write; /* the write first */
}

/* Forward zones first. */
static int by_kind_and_low(const void *left, const void *right)
{
    const struct zone *a = left, *b = right;
    bool a_forward = a->low < a->high, b_forward = b->low < b->high;
    if (a_forward != b_forward) return a_forward ? -1 : 1;
    return a->low < b->low ? -1 : a->low > b->low;
}

static bool complaining;

static bool wrong(uint32_t reg, uint64_t value, const char *what)
{
    if (complaining) fprintf(stderr, "register %u, value %llx: %s\n", reg, (unsigned long long)value, what);
    return false;
}

/* One value: its write, if it is not the initial one, and its reads. */
static bool make_zone(const struct history_op *ops, size_t count, struct zone *zone_out)
{
    bool initial = ops[0].value == ops[0].reg;
    struct zone zone = {.value = ops[0].value, .low = UINT64_MAX, .high = 0};
    if (initial) zone.low = 0;
    else if (!ops[0].write) return wrong(ops[0].reg, ops[0].value, "read, but never written");
    for (size_t i = 0; i < count; i++) {
        if (ops[i].write && i > 0) return wrong(ops[0].reg, ops[0].value, "written twice");
        if (!initial && ops[i].answered < ops[0].called) return wrong(ops[0].reg, ops[0].value, "read before it was written");
        if (ops[i].answered < zone.low) zone.low = ops[i].answered;
        if (ops[i].called > zone.high) zone.high = ops[i].called;
    }
    *zone_out = zone;
    return true;
}

static bool is_forward(const struct zone *zone) { return zone->low < zone->high; }

/* Forward zones come first, by low; none may overlap the next. Each other zone lies between its high and its low; it may
 * not lie inside the last forward one that begins before it. */
static bool check_zones(uint32_t reg, const struct zone *zones, size_t count)
{
    size_t forward = 0;
    while (forward < count && is_forward(&zones[forward])) forward++;
    for (size_t i = 1; i < forward; i++)
        if (zones[i].low < zones[i - 1].high) return wrong(reg, zones[i].value, "two values at one time");
    for (size_t i = forward; i < count; i++) {
        size_t from = 0, to = forward; /* the first forward zone that does not begin before this one is in [from, to] */
        while (from < to) {
            size_t middle = (from + to) / 2;
            if (zones[middle].low < zones[i].high) from = middle + 1;
            else to = middle;
        }
        if (from > 0 && zones[i].low < zones[from - 1].high)
            return wrong(reg, zones[i].value, "seen or written while another value was there all the time");
    }
    return true;
}

bool history_check(struct history_op *ops, size_t count, bool complain)
{
    complaining = complain;
    struct zone *zones = malloc((count + 1) * sizeof *zones);
    if (!zones) {
        fprintf(stderr, "no memory for %zu operations\n", count);
        exit(1);
    }
    bool well = true;
    qsort(ops, count, sizeof *ops, by_register_and_value);
    for (size_t i = 0; i < count && well;) {
        uint32_t reg = ops[i].reg;
        size_t zone_count = 0;
        while (i < count && ops[i].reg == reg && well) {
            size_t same = 1;
            while (i + same < count && ops[i + same].reg == reg && ops[i + same].value == ops[i].value) same++;
            well = make_zone(ops + i, same, &zones[zone_count++]);
            i += same;
        }
        qsort(zones, zone_count, sizeof *zones, by_kind_and_low);
        if (well) well = check_zones(reg, zones, zone_count);
    }
    free(zones);
    return well;
}
