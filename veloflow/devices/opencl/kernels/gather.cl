// out[i] = source[indices[i]], rows of `width` elements; `fill` where there is no such row.

kernel void gather(global const SOURCE *source, global const INDEX *indices, global OUT *out,
                   const long rows, const long width, const long height, const OUT fill)
{
#ifdef TAKE_TURNS // a work-item an element: neighbours read and write neighbouring memory
    EACH(unit, rows * width) {
        const long from = indices[unit / width];
        const bool known = from >= 0 && from < height;
        STORE(OUT, out + unit, known ? CONVERT(source[from * width + unit % width]) : fill, 1);
    }
#else
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
#endif
}
