// Which units of work a work-item does: a contiguous range on a CPU, every n-th elsewhere.

// How many work-items there are for this kernel. Where others share its launch there may be more, which
// do nothing here: a kernel may have memory for each of its own.
#ifndef WORK_ITEMS
#define WORK_ITEMS (long)get_global_size(0)
#endif

#ifdef TAKE_TURNS
#define EACH(unit, total) \
    for (long unit = get_global_id(0); unit < (total); unit += get_global_size(0))
#define EACH_RUN(row, from, to, rows, across)                                     \
    for (long unit = get_global_id(0), row, from, to;                             \
         unit < (rows) * (across) &&                                              \
         (row = unit / (across), from = unit % (across), to = from + 1, true);    \
         unit += get_global_size(0))
#else
#define PER_ITEM(total) (((total) + WORK_ITEMS - 1) / WORK_ITEMS)
#define EACH(unit, total)                                            \
    for (long unit = get_global_id(0) * PER_ITEM(total),             \
              unit##_end = min((long)(total), unit + PER_ITEM(total)); \
         unit < unit##_end; ++unit)
// The range of vectors, `across` to a row, as runs of neighbours [from, to) in one row.
#ifdef BY_ROWS // whole rows: the same ones as in other kernels that go by rows
#define EACH_RUN(row, from, to, rows, across)                                             \
    for (long row = get_global_id(0) * PER_ITEM(rows),                                    \
              row##_end = min((long)(rows), row + PER_ITEM(rows)), from = 0, to = (across); \
         row < row##_end; ++row)
#else
#define EACH_RUN(row, from, to, rows, across)                                      \
    for (long unit = get_global_id(0) * PER_ITEM((rows) * (across)),               \
              unit_end = min((rows) * (across), unit + PER_ITEM((rows) * (across))), \
              row, from, to;                                                       \
         unit < unit_end &&                                                        \
         (row = unit / (across), from = unit % (across),                           \
          to = min((long)(across), from + unit_end - unit), true);                 \
         unit += to - from)
#endif
#endif
