// out = activation(alpha * a * b + beta * out + bias): tiles of TALL rows and two vectors of columns
// are summed in registers. `a` is read at any two strides; the rows of `b` are contiguous, or `b` is in
// panels: a row of a tile is b_row after the other, a tile b_tile, a matrix b_matrix.

// Write `source` (columns x inner), each matrix of a stack, as panels of two vectors of columns: (panels,
// inner, 2 * LANES) with zeros past the last column. Rows are read along, panels written along.
kernel void transpose(global const real *source, global real *target, const long stack,
                      const long columns, const long inner)
{
    const long panels = (columns + 2 * LANES - 1) / (2 * LANES);
    EACH(unit, stack * panels) {
        const long first = unit % panels * (2 * LANES);
        global const real *from = source + (unit / panels * columns + first) * inner;
        global real *to = target + unit * inner * (2 * LANES);
        const int count = (int)min((long)(2 * LANES), columns - first);
        for (long k = 0; k < inner; ++k) {
            for (int lane = 0; lane < count; ++lane)
                to[lane] = from[lane * inner + k];
            for (int lane = count; lane < 2 * LANES; ++lane)
                to[lane] = 0;
            to += 2 * LANES;
        }
    }
}

#define WRITE(at, value)                                                                 \
    do {                                                                                 \
        const long count = columns - (at);                                               \
        if (count > 0) {                                                                 \
            global real *place = into + row * columns + (at);                             \
            vec x = (vec)(alpha) * (value);                                              \
            if (beta != 0)                                                               \
                x += (vec)(beta) * LOAD(real, place);                                    \
            if (has_bias)                                                                \
                x += LOAD(real, bias + (at));                                            \
            STORE(real, place, activation(x), count);                                    \
        }                                                                                \
    } while (0)

kernel void gemm(global const real *a, global const real *b, global real *out,
                 global const real *bias, const int has_bias, const long stack, const long rows,
                 const long columns, const long inner, const long a_row, const long a_inner,
                 const long b_row, const long b_tile, const long b_matrix, const real alpha,
                 const real beta)
{
    const long down = (rows + TALL - 1) / TALL;
    const long across = (columns + 2 * LANES - 1) / (2 * LANES);
    EACH(unit, stack * down * across) {
        const long matrix = unit / (down * across);
        global const real *left_matrix = a + matrix * rows * inner;
        global real *into = out + matrix * rows * columns;
        const long tile = unit % (down * across) / down, column = tile * (2 * LANES);
        global const real *right_tile = b + matrix * b_matrix + tile * b_tile;
        const long first = unit % down * TALL;
        vec left[TALL], right[TALL];
        global const real *from[TALL];
#pragma unroll
        for (int n = 0; n < TALL; ++n) {
            left[n] = (vec)(0);
            right[n] = (vec)(0);
            from[n] = left_matrix + min(first + n, rows - 1) * a_row;
        }
        // the second vector must not begin past the row: it is read again from the first then
        const long second = column + LANES < columns ? LANES : 0;
        for (long k = 0; k < inner; ++k) {
            global const real *line = right_tile + k * b_row;
            const vec b0 = LOAD(real, line);
            const vec b1 = LOAD(real, line + second);
#pragma unroll
            for (int n = 0; n < TALL; ++n) {
                const vec value = (vec)(from[n][k * a_inner]);
                left[n] += value * b0;
                right[n] += value * b1;
            }
        }
#pragma unroll // an index that is not known would keep the sums in memory
        for (int n = 0; n < TALL; ++n)
            if (first + n < rows) {
                const long row = first + n;
                WRITE(column, left[n]);
                if (second)
                    WRITE(column + LANES, right[n]);
            }
    }
}
