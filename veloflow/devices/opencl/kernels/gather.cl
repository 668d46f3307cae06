// out[i] = source[indices[i]], rows of `width` elements; `fill` where there is no such row.

kernel void gather(global const SOURCE *source, global const INDEX *indices, global OUT *out,
                   const long rows, const long width, const long height, const OUT fill)
{
    EACH(row, rows) {
        const long from = indices[row];
        const bool known = from >= 0 && from < height;
        global const SOURCE *values = source + (known ? from : 0) * width;
        global OUT *target = out + row * width;
        for (long column = 0; column < width; column += LANES) {
            const int count = (int)min((long)LANES, width - column);
            if (known)
                STORE(OUT, target + column, CONVERT(LOAD(SOURCE, values + column)), count);
            else
                STORE(OUT, target + column, ALL(fill), count);
        }
    }
}
