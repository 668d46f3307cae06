// The same product from packed operands: both are first written in the order in which they are read,
// `depth` of the inner dimension at a time, so that no cache is thrashed by rows far apart.
// Sums of one depth go on where those of the one before ended, so the bits are gemm.cl's.

// Write TALL rows of a from `first` on as a panel: (depth, TALL) with zeros past the last row.
static void pack_rows(global const real *a, global real *panel, const long first, const long rows,
                      const long depth, const long a_row, const long a_inner)
{
    const int count = (int)min((long)TALL, rows - first);
    global const real *from = a + first * a_row;
    if (count == TALL) {
        for (long k = 0; k < depth; ++k)
#pragma unroll
            for (int n = 0; n < TALL; ++n)
                panel[k * TALL + n] = from[n * a_row + k * a_inner];
        return;
    }
    for (long k = 0; k < depth; ++k) {
        for (int n = 0; n < count; ++n)
            panel[k * TALL + n] = from[n * a_row + k * a_inner];
        for (int n = count; n < TALL; ++n)
            panel[k * TALL + n] = 0;
    }
}

// Pack `depth` of the inner dimension from `start` on.
kernel void pack(global const real *a, global const real *b, global real *a_panels,
                 global real *b_panels, const long stack, const long rows, const long columns,
                 const long inner, const long start, const long depth, const long a_row,
                 const long a_inner, const long b_inner, const long b_column)
{
    const long down = (rows + TALL - 1) / TALL, across = (columns + PANEL - 1) / PANEL;
    EACH(unit, stack * (down + across)) {
        if (unit < stack * down) {
            pack_rows(a + unit / down * rows * inner + start * a_inner,
                      a_panels + unit * depth * TALL, unit % down * TALL, rows, depth, a_row,
                      a_inner);
        } else {
            const long panel = unit - stack * down;
            pack_columns(b + panel / across * columns * inner + start * b_inner,
                         b_panels + panel * depth * PANEL, panel % across * PANEL, columns, depth,
                         b_inner, b_column);
        }
    }
}

// Add what `depth` gives to the first `vectors` vectors of the sums.
#define SUM_PANELS(vectors)                                               \
    for (long k = 0; k < depth; ++k) {                                    \
        vec row[vectors];                                                 \
        _Pragma("unroll") for (int v = 0; v < (vectors); ++v)             \
            row[v] = *(global const vec *)(right + k * PANEL + v * LANES); \
        _Pragma("unroll") for (int n = 0; n < TALL; ++n) {                \
            const vec value = (vec)(left[k * TALL + n]);                  \
            _Pragma("unroll") for (int v = 0; v < (vectors); ++v)         \
                sums[n][v] += value * row[v];                             \
        }                                                                 \
    }

// `block` rows of tiles are gone through for one panel of b before the next panel.
kernel void gemm_packed(global const real *a_panels, global const real *b_panels, global real *out,
                        global const real *bias, global real *sums_so_far, const int has_bias,
                        const int is_first, const int is_last, const long stack, const long rows,
                        const long columns, const long depth, const long block, const real alpha,
                        const real beta)
{
    const long down = (rows + TALL - 1) / TALL, across = (columns + PANEL - 1) / PANEL;
    EACH(unit, stack * down * across) {
        const long matrix = unit / (down * across), place = unit % (down * across);
        const long top = place / (block * across) * block, high = min(block, down - top);
        const long tile = (place - top * across) / high;
        const long tall = top + (place - top * across) % high;
        global const real *left = a_panels + (matrix * down + tall) * depth * TALL;
        global const real *right = b_panels + (matrix * across + tile) * depth * PANEL;
        global real *kept = sums_so_far + unit * TALL * PANEL;
        vec sums[TALL][WIDE];
#pragma unroll
        for (int n = 0; n < TALL; ++n)
#pragma unroll
            for (int v = 0; v < WIDE; ++v)
                sums[n][v] = is_first ? (vec)(0) : *(global vec *)(kept + n * PANEL + v * LANES);
        if (tile * PANEL + LANES < columns)
            SUM_PANELS(WIDE)
        else
            SUM_PANELS(1)
        vec last[TALL * WIDE];
#pragma unroll // an index that is not known would keep the sums in memory
        for (int n = 0; n < TALL; ++n)
#pragma unroll
            for (int v = 0; v < WIDE; ++v) {
                if (!is_last)
                    *(global vec *)(kept + n * PANEL + v * LANES) = sums[n][v];
                last[n * WIDE + v] = sums[n][v];
            }
        if (is_last)
            write_tile(last, out + matrix * rows * columns, bias, has_bias, alpha, beta,
                       tall * TALL, tile * PANEL, rows, columns);
    }
}
