// out = activation(alpha * a * b + beta * out + bias): tiles of TALL rows and two vectors of columns
// are summed in registers. `a` is read at any two strides; the rows of `b` are contiguous.

// Write `target` (columns x rows, rows of `stride` elements) as the transpose of `source`.
kernel void transpose(global const real *source, global real *target, const long rows,
                      const long columns, const long stride)
{
    EACH(row, rows) {
        global const real *from = source + row * columns;
        for (long column = 0; column < columns; ++column)
            target[column * stride + row] = from[column];
    }
}

#define WRITE(at, value)                                                                 \
    do {                                                                                 \
        const long count = columns - (at);                                               \
        if (count > 0) {                                                                 \
            global real *place = out + row * columns + (at);                             \
            vec x = (vec)(alpha) * (value);                                              \
            if (beta != 0)                                                               \
                x += (vec)(beta) * LOAD(real, place);                                    \
            if (has_bias)                                                                \
                x += LOAD(real, bias + (at));                                            \
            STORE(real, place, activation(x), count);                                    \
        }                                                                                \
    } while (0)

kernel void gemm(global const real *a, global const real *b, global real *out,
                 global const real *bias, const int has_bias, const long rows,
                 const long columns, const long inner, const long a_row, const long a_inner,
                 const long b_row, const real alpha, const real beta)
{
    const long down = (rows + TALL - 1) / TALL;
    const long across = (columns + 2 * LANES - 1) / (2 * LANES);
    EACH(unit, down * across) {
        const long column = unit / down * (2 * LANES);
        const long first = unit % down * TALL;
        vec left[TALL], right[TALL];
        global const real *from[TALL];
#pragma unroll
        for (int n = 0; n < TALL; ++n) {
            left[n] = (vec)(0);
            right[n] = (vec)(0);
            from[n] = a + min(first + n, rows - 1) * a_row;
        }
        // the second vector must not begin past the row: it is read again from the first then
        const long second = column + LANES < columns ? LANES : 0;
        for (long k = 0; k < inner; ++k) {
            global const real *line = b + k * b_row + column;
            const vec b0 = LOAD(real, line);
            const vec b1 = LOAD(real, line + second);
#pragma unroll
            for (int n = 0; n < TALL; ++n) {
                const vec value = (vec)(from[n][k * a_inner]);
                left[n] += value * b0;
                right[n] += value * b1;
            }
        }
        for (int n = 0; n < TALL && first + n < rows; ++n) {
            const long row = first + n;
            WRITE(column, left[n]);
            if (second)
                WRITE(column + LANES, right[n]);
        }
    }
}
