// out = activation(alpha * a * b + beta * out + bias): tiles of TALL rows and two vectors of columns
// are summed in registers. `a` is read at any two strides; the rows of `b` are contiguous.

// Write `target` (columns x rows, rows of `stride` elements) as the transpose of `source`, for each
// matrix of a stack.
kernel void transpose(global const real *source, global real *target, const long stack,
                      const long rows, const long columns, const long stride)
{
    EACH(unit, stack * rows) {
        global const real *from = source + unit * columns;
        global real *to = target + unit / rows * columns * stride + unit % rows;
        for (long column = 0; column < columns; ++column)
            to[column * stride] = from[column];
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
                 global const real *bias, const int has_bias, const long stack,
                 const long rows, const long columns, const long inner, const long a_row, const long a_inner,
                 const long b_row, const real alpha, const real beta)
{
    const long down = (rows + TALL - 1) / TALL;
    const long across = (columns + 2 * LANES - 1) / (2 * LANES);
    EACH(unit, stack * down * across) {
        const long matrix = unit / (down * across);
        global const real *left_matrix = a + matrix * rows * inner;
        global const real *right_matrix = b + matrix * inner * b_row;
        global real *into = out + matrix * rows * columns;
        const long column = unit % (down * across) / down * (2 * LANES);
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
            global const real *line = right_matrix + k * b_row + column;
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
