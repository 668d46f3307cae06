// out = activation(alpha * a * b + beta * out + bias): tiles of TALL rows and WIDE vectors of columns are
// summed in registers. `a` is read at any two strides. A row of `b` is contiguous, or (packs) each
// work-item writes the columns of a tile into a panel of its own first, and uses it for all rows.
// A sum runs over the inner dimension from first to last, in every variant: all give the same bits.

// Add what the inner dimension gives to the first `vectors` vectors of the sums.
#define SUM(vectors)                                                 \
    for (long k = 0; k < inner; ++k) {                               \
        global const real *line = right + k * b_row;                 \
        vec row[vectors];                                            \
        _Pragma("unroll") for (int v = 0; v < (vectors); ++v)        \
            row[v] = LOAD(real, line + at[v]);                       \
        _Pragma("unroll") for (int n = 0; n < TALL; ++n) {           \
            const vec value = (vec)(from[n][k * a_inner]);           \
            _Pragma("unroll") for (int v = 0; v < (vectors); ++v)    \
                sums[n][v] += value * row[v];                        \
        }                                                            \
    }

kernel void gemm(global const real *a, global const real *b, global real *out,
                 global const real *bias, global real *spare, const int has_bias, const int packs,
                 const long stack, const long rows, const long columns, const long inner,
                 const long a_row, const long a_inner, const long b_inner, const long b_column,
                 const real alpha, const real beta)
{
    const long down = (rows + TALL - 1) / TALL, across = (columns + PANEL - 1) / PANEL;
    global real *panel = spare + get_global_id(0) * inner * PANEL;
    long packed = -1;
    EACH(unit, stack * down * across) {
        const long matrix = unit / (down * across), tile = unit / down % across;
        const long column = tile * PANEL, first = unit % down * TALL;
        global const real *right = b + matrix * inner * columns + column;
        long b_row = b_inner;
        if (packs) {
            if (packed != unit / down) {
                packed = unit / down;
                pack_columns(b + matrix * inner * columns, panel, column, columns, inner, b_inner,
                             b_column);
            }
            right = panel;
            b_row = PANEL;
        }
        // a vector must not begin past the row: it is read again from the first then
        int at[WIDE];
        vec sums[TALL][WIDE];
        global const real *from[TALL];
#pragma unroll
        for (int v = 0; v < WIDE; ++v)
            at[v] = column + v * LANES < columns ? v * LANES : 0;
#pragma unroll
        for (int n = 0; n < TALL; ++n) {
            from[n] = a + matrix * rows * inner + min(first + n, rows - 1) * a_row;
#pragma unroll
            for (int v = 0; v < WIDE; ++v)
                sums[n][v] = (vec)(0);
        }
        if (column + LANES < columns)
            SUM(WIDE)
        else
            SUM(1)
        vec kept[TALL * WIDE];
#pragma unroll // an index that is not known would keep the sums in memory
        for (int n = 0; n < TALL; ++n)
#pragma unroll
            for (int v = 0; v < WIDE; ++v)
                kept[n * WIDE + v] = sums[n][v];
        write_tile(kept, out + matrix * rows * columns, bias, has_bias, alpha, beta, first, column,
                   rows, columns);
    }
}
