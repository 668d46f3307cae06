// How sums are written out by products in vectors, with all that happens to them there.

// Write a tile of sums (TALL, WIDE vectors) with factors, bias and activation. One loop over a copy in
// memory: unrolled, the activation would be compiled once for every vector.
static void write_tile(const vec *sums, global real *out, global const real *bias,
                       const int has_bias, const real alpha, const real beta, const long first,
                       const long column, const long rows, const long columns)
{
    const int tall = (int)min((long)TALL, rows - first);
    for (int n = 0; n < tall; ++n)
        for (int v = 0; v < WIDE && column + v * LANES < columns; ++v) {
            const long at = column + v * LANES;
            global real *place = out + (first + n) * columns + at;
            vec x = (vec)(alpha) * sums[n * WIDE + v];
            if (beta != 0)
                x += (vec)(beta) * LOAD(real, place);
            if (has_bias)
                x += LOAD(real, bias + at);
            STORE(real, place, activation(x), (int)min((long)LANES, columns - at));
        }
}
