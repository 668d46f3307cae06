// out = activation(a * b + bias), or a * transposed b: a block of DOWN rows of `out` after the other, so
// that whoever computes some rows of `a` may go on with them here. An element's sum has one order,
// whichever block it is in.

static void finish_rows(global real *out, global const real *bias, const int has_bias,
                        const long first, const long last, const long columns)
{
    for (long row = first; row < last; ++row)
        for (long column = 0; column < columns; column += LANES) {
            global real *place = out + row * columns + column;
            vec x = LOAD(real, place);
            if (has_bias)
                x += LOAD(real, bias + column);
            STORE(real, place, activation(x), columns - column);
        }
}

#ifdef TRANSPOSED // dot products of rows: vectors run along both, and are added up at the end
#define DOWN 4
#define ACROSS 3

static real over(const vec sums)
{
    real result = 0;
    OVER_LANES
    return result;
}

static void block(global const real *a, global const real *b, global real *out, const long first,
                  const long last, const long columns, const long inner)
{
    const long whole_vectors = inner / LANES * LANES;
    global const real *from[DOWN];
#pragma unroll
    for (int n = 0; n < DOWN; ++n)
        from[n] = a + min(first + n, last - 1) * inner;
    for (long column = 0; column < columns; column += ACROSS) {
        global const real *line[ACROSS];
        vec sums[DOWN * ACROSS];
#pragma unroll
        for (int m = 0; m < ACROSS; ++m)
            line[m] = b + min(column + m, columns - 1) * inner;
#pragma unroll
        for (int n = 0; n < DOWN * ACROSS; ++n)
            sums[n] = (vec)(0);
        for (long k = 0; k < whole_vectors; k += LANES) {
            vec weights[ACROSS];
#pragma unroll
            for (int m = 0; m < ACROSS; ++m)
                weights[m] = LOAD(real, line[m] + k);
#pragma unroll
            for (int n = 0; n < DOWN; ++n) {
                const vec x = LOAD(real, from[n] + k);
#pragma unroll
                for (int m = 0; m < ACROSS; ++m)
                    sums[n * ACROSS + m] += x * weights[m];
            }
        }
        if (whole_vectors < inner) { // what is read past the rows' end is nothing
            const long rest = inner - whole_vectors;
#pragma unroll
            for (int n = 0; n < DOWN; ++n) {
                const vec x = FIRST(rest, LOAD(real, from[n] + whole_vectors), (vec)(0));
#pragma unroll
                for (int m = 0; m < ACROSS; ++m)
                    sums[n * ACROSS + m] +=
                        x * FIRST(rest, LOAD(real, line[m] + whole_vectors), (vec)(0));
            }
        }
#pragma unroll
        for (int n = 0; n < DOWN; ++n)
#pragma unroll
            for (int m = 0; m < ACROSS; ++m)
                if (first + n < last && column + m < columns)
                    out[(first + n) * columns + column + m] = over(sums[n * ACROSS + m]);
    }
}
#else
#define DOWN 4

static void block(global const real *a, global const real *b, global real *out, const long first,
                  const long last, const long columns, const long inner)
{
    global const real *from[DOWN];
#pragma unroll
    for (int n = 0; n < DOWN; ++n)
        from[n] = a + min(first + n, last - 1) * inner;
    for (long column = 0; column < columns; column += 2 * LANES) {
        // the second vector must not begin past the row: it is read again from the first then
        const long second = column + LANES < columns ? LANES : 0;
        vec left[DOWN], right[DOWN];
#pragma unroll
        for (int n = 0; n < DOWN; ++n) {
            left[n] = (vec)(0);
            right[n] = (vec)(0);
        }
        for (long k = 0; k < inner; ++k) {
            const vec b0 = LOAD(real, b + k * columns + column);
            const vec b1 = LOAD(real, b + k * columns + column + second);
#pragma unroll
            for (int n = 0; n < DOWN; ++n) {
                const vec x = (vec)(from[n][k]);
                left[n] += x * b0;
                right[n] += x * b1;
            }
        }
#pragma unroll
        for (int n = 0; n < DOWN; ++n)
            if (first + n < last) {
                global real *place = out + (first + n) * columns + column;
                STORE(real, place, left[n], columns - column);
                if (second)
                    STORE(real, place + LANES, right[n], columns - column - LANES);
            }
    }
}
#endif

kernel void row_products(global const real *a, global const real *b, global real *out,
                         global const real *bias, const int has_bias, const int is_finished_here,
                         const long rows, const long columns, const long inner)
{
    // as many rows to a work-item as any other kernel that goes by rows gives it
    const long from = get_global_id(0) * PER_ITEM(rows), to = min(rows, from + PER_ITEM(rows));
    for (long first = from; first < to; first += DOWN) {
        const long last = min(first + DOWN, to);
        block(a, b, out, first, last, columns, inner);
        if (is_finished_here)
            finish_rows(out, bias, has_bias, first, last, columns);
    }
}
