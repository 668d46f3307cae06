// out = exp(x - max(x)) / sum of the same, row by row; winners = the first column with the maximum.
// x and out may be one array.

static real largest(vec values)
{
    real result = ((const real *)&values)[0];
    for (int lane = 1; lane < LANES; ++lane) {
        const real value = ((const real *)&values)[lane];
        result = (value > result || value != value) ? value : result;
    }
    return result;
}

static real total(vec values)
{
    real result = 0;
    for (int lane = 0; lane < LANES; ++lane)
        result += ((const real *)&values)[lane];
    return result;
}

kernel void softmax(global const real *x, global real *out, global int *winners,
                    const int has_winners, const long rows, const long columns)
{
    EACH(row, rows) {
        global const real *from = x + row * columns;
        global real *to = out + row * columns;
        vec most = (vec)(-INFINITY);
        for (long column = 0; column < columns; column += LANES) {
            const vec value = FIRST(columns - column, LOAD(real, from + column), (vec)(-INFINITY));
            most = ((value > most) | (value != value)) ? value : most;
        }
        const real maximum = largest(most);
        if (has_winners) {
            long winner = 0;
            while (winner < columns - 1 && from[winner] != maximum
                   && from[winner] == from[winner])
                ++winner;
            winners[row] = (int)winner;
        }
        vec sums = (vec)(0);
        for (long column = 0; column < columns; column += LANES) {
            const long count = columns - column;
            const vec value = exp(LOAD(real, from + column) - (vec)(maximum));
            sums += FIRST(count, value, (vec)(0));
            STORE(real, to + column, value, count);
        }
        const vec sum = (vec)(total(sums));
        for (long column = 0; column < columns; column += LANES)
            STORE(real, to + column, LOAD(real, to + column) / sum, columns - column);
    }
}
