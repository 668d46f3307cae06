// The same product for a GPU: a work-group of (COLUMNS / ACROSS) x (ROWS / DOWN) work-items sums a tile of
// ROWS x COLUMNS. DEPTH of the inner dimension at a time lies in local memory; each work-item keeps
// DOWN x ACROSS sums in registers. Its rows and columns come in runs of GRAIN, which lie a whole group apart:
// neighbours read and write neighbouring numbers, four at a time where GRAIN is 4. The bits are gemm.cl's: each sum runs from first to last.

// On a GPU whatever has a known index stays in registers; a CPU only takes long to compile that.
#ifdef TAKE_TURNS
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

#define ITEMS_DOWN (ROWS / DOWN)
#define ITEMS_ACROSS (COLUMNS / ACROSS)
#define ITEMS (ITEMS_DOWN * ITEMS_ACROSS)
#define PLACE(item, n, items) (((n) / GRAIN * (items) + (item)) * GRAIN + (n) % GRAIN)

// Number n of a tile (`length` x DEPTH): where it lies. The work-items of a group read along memory.
#if A_ALONG_ROWS
#define A_ROW(n) ((n) % ROWS)
#define A_INNER(n) ((n) / ROWS)
#else
#define A_ROW(n) ((n) / DEPTH)
#define A_INNER(n) ((n) % DEPTH)
#endif
#if B_ALONG_COLUMNS
#define B_COLUMN(n) ((n) % COLUMNS)
#define B_INNER(n) ((n) / COLUMNS)
#else
#define B_COLUMN(n) ((n) / DEPTH)
#define B_INNER(n) ((n) % DEPTH)
#endif

kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1)))
void gemm_local(global const real *a, global const real *b, global real *out,
                global const real *bias, const int has_bias, const int rows, const int columns,
                const int inner, const int a_row, const int a_inner, const int b_inner,
                const int b_column, const real alpha, const real beta)
{
    // longer by GRAIN, so that the numbers of one column do not fall into one bank
    local real left[DEPTH][ROWS + GRAIN] __attribute__((aligned(32)));
    local real right[DEPTH][COLUMNS + GRAIN] __attribute__((aligned(32)));
    const int item = (int)get_local_id(0), x = item % ITEMS_ACROSS, y = item / ITEMS_ACROSS;
    const int down = (rows + ROWS - 1) / ROWS, across = (columns + COLUMNS - 1) / COLUMNS;
    const int group = (int)get_group_id(0), place = group % (down * across);
    const long matrix = group / (down * across);
    const int first = place / across * ROWS, column = place % across * COLUMNS;
    a += matrix * rows * inner + (long)first * a_row;
    b += matrix * inner * columns + (long)column * b_column;
    out += matrix * rows * columns + (long)first * columns + column;

    real sums[DOWN][ACROSS];
    UNROLL
    for (int n = 0; n < DOWN; ++n)
        UNROLL
        for (int m = 0; m < ACROSS; ++m)
            sums[n][m] = 0;

    for (int start = 0; start < inner; start += DEPTH) {
        UNROLL
        for (int n = item; n < ROWS * DEPTH; n += ITEMS) {
            const int row = A_ROW(n), k = A_INNER(n);
            const bool is_in = first + row < rows && start + k < inner;
            left[k][row] = is_in ? a[(long)row * a_row + (long)k * a_inner] : 0;
        }
        UNROLL
        for (int n = item; n < COLUMNS * DEPTH; n += ITEMS) {
            const int own = B_COLUMN(n), k = B_INNER(n);
            const bool is_in = column + own < columns && start + k < inner;
            right[k][own] = is_in ? b[(long)own * b_column + (long)k * b_inner] : 0;
        }
        a += (long)DEPTH * a_inner;
        b += (long)DEPTH * b_inner;
        barrier(CLK_LOCAL_MEM_FENCE);
        UNROLL
        for (int k = 0; k < DEPTH; ++k) {
            real values[DOWN], row[ACROSS];
            UNROLL
            for (int n = 0; n < DOWN; ++n)
                values[n] = left[k][PLACE(y, n, ITEMS_DOWN)];
            UNROLL
            for (int m = 0; m < ACROSS; ++m)
                row[m] = right[k][PLACE(x, m, ITEMS_ACROSS)];
            UNROLL
            for (int n = 0; n < DOWN; ++n)
                UNROLL
                for (int m = 0; m < ACROSS; ++m)
                    sums[n][m] += values[n] * row[m];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    UNROLL
    for (int n = 0; n < DOWN; ++n) {
        const int row = PLACE(y, n, ITEMS_DOWN);
        UNROLL
        for (int m = 0; m < ACROSS; ++m) {
            const int own = PLACE(x, m, ITEMS_ACROSS);
            if (first + row < rows && column + own < columns) {
                global real *to = out + (long)row * columns + own;
                real value = alpha * sums[n][m];
                if (beta != 0)
                    value += beta * *to;
                if (has_bias)
                    value += bias[column + own];
                *to = activation(value);
            }
        }
    }
}
