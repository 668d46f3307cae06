// Panels: columns of a matrix in the order in which products in vectors read them.

#define PANEL (WIDE * LANES)

#if LANES > 1
// Transpose a square of numbers in registers: each of log2(LANES) rounds interleaves the vectors of
// the first half with those of the second.
static void transpose_square(vec *square)
{
#pragma unroll
    for (int done = 1; done < LANES; done *= 2) {
        vec mixed[LANES];
#pragma unroll
        for (int n = 0; n < LANES / 2; ++n) {
            mixed[2 * n].even = square[n].lo;
            mixed[2 * n].odd = square[n + LANES / 2].lo;
            mixed[2 * n + 1].even = square[n].hi;
            mixed[2 * n + 1].odd = square[n + LANES / 2].hi;
        }
#pragma unroll
        for (int n = 0; n < LANES; ++n)
            square[n] = mixed[n];
    }
}
#endif

// Write columns [first, first + PANEL) of b as a panel: (inner, PANEL) with zeros past the last.
// `panel` begins where a vector may.
static void pack_columns(global const real *b, global real *panel, const long first,
                         const long columns, const long inner, const long b_inner,
                         const long b_column)
{
    const int count = (int)min((long)PANEL, columns - first);
    global const real *from = b + first * b_column;
    long k = 0;
    if (b_column == 1 && count == PANEL) {
        for (; k < inner; ++k)
#pragma unroll
            for (int v = 0; v < WIDE; ++v)
                *(global vec *)(panel + k * PANEL + v * LANES) =
                    LOAD(real, from + k * b_inner + v * LANES);
        return;
    }
#if LANES > 1
    if (b_inner == 1)
        for (; k + LANES <= inner; k += LANES)
            for (int v = 0; v < WIDE; ++v) {
                vec square[LANES];
#pragma unroll
                for (int n = 0; n < LANES; ++n) {
                    const bool is_in = v * LANES + n < count;
                    square[n] = LOAD(real, from + (is_in ? v * LANES + n : 0) * b_column + k);
                    if (!is_in)
                        square[n] = (vec)(0);
                }
                transpose_square(square);
#pragma unroll
                for (int n = 0; n < LANES; ++n)
                    *(global vec *)(panel + (k + n) * PANEL + v * LANES) = square[n];
            }
#endif
    for (; k < inner; ++k) {
        for (int lane = 0; lane < count; ++lane)
            panel[k * PANEL + lane] = from[lane * b_column + k * b_inner];
        for (int lane = count; lane < PANEL; ++lane)
            panel[k * PANEL + lane] = 0;
    }
}
