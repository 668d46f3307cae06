// Steps of time that wait for each other: rows do not, so a work-item takes some rows through all steps.
// A step is the product of what is there before it with the weights, and then a unit's own kernel, which
// is in PROGRAM. An element's sum has one order, whichever tile and work-item it is in.

kernel void pack_weights(global const real *weights, global real *panels, const long columns,
                         const long inner, const long b_inner, const long b_column)
{
    EACH(panel, (columns + PANEL - 1) / PANEL)
        pack_columns(weights, panels + panel * inner * PANEL, panel * PANEL, columns, inner,
                     b_inner, b_column);
}

// Rows from..to of out = a * weights.
static void multiply(global const real *a, global const real *panels, global real *out,
                     const long from, const long to, const long columns, const long inner)
{
    for (long column = 0; column < columns; column += PANEL) {
        global const real *right = panels + column * inner;
        for (long first = from; first < to; first += TALL) {
            global const real *line[TALL];
            vec sums[TALL][WIDE];
#pragma unroll
            for (int n = 0; n < TALL; ++n) {
                line[n] = a + min(first + n, to - 1) * inner;
#pragma unroll
                for (int v = 0; v < WIDE; ++v)
                    sums[n][v] = (vec)(0);
            }
            for (long k = 0; k < inner; ++k) {
                vec row[WIDE];
#pragma unroll
                for (int v = 0; v < WIDE; ++v)
                    row[v] = *(global const vec *)(right + k * PANEL + v * LANES);
#pragma unroll
                for (int n = 0; n < TALL; ++n) {
                    const vec value = (vec)(line[n][k]);
#pragma unroll
                    for (int v = 0; v < WIDE; ++v)
                        sums[n][v] += value * row[v];
                }
            }
#pragma unroll
            for (int n = 0; n < TALL; ++n)
                if (first + n < to)
#pragma unroll
                    for (int v = 0; v < WIDE; ++v)
                        if (column + v * LANES < columns)
                            STORE(real, out + (first + n) * columns + column + v * LANES,
                                  sums[n][v], columns - column - v * LANES);
        }
    }
}

// What enters a step is multiplied there too, into `entering`, so that no cache has lost it when it is
// read. A line of `steps` has the place of the factor and the scalars of the program.
kernel void recurrence(global const real *panels, global const int *steps, global const real *factor,
                       global real *product, global const real *input_panels,
                       global const real *inputs, global real *entering, const long count,
                       const long rows, const long columns, const long inner, const long width,
                       const long entering_columns, const int across ARRAYS)
{
    const long tiles = (rows + TALL - 1) / TALL;
    const long from = get_global_id(0) * PER_ITEM(tiles) * TALL;
    const long to = min(rows, from + PER_ITEM(tiles) * TALL);
    for (long n = 0; n < count; ++n) {
        global const int *step = steps + n * NUMBERS;
        if (entering_columns)
            multiply(inputs + n * rows * width, input_panels,
                     entering + n * rows * entering_columns, from, to, entering_columns, width);
        if (n)
            multiply(factor + step[0] * rows * inner, panels, product, from, to, columns, inner);
        for (int row = from; row < to; ++row)
            for (int column = 0; column < across; ++column)
                PROGRAM;
    }
}
