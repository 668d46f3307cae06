// Products of one matrix, transposed, with several others, and the sums of its columns: out = transposed a
// * [b0 b1 ... 1], cut into parts when it is written. So `a` is read once. A sum runs over the inner
// dimension from first to last, as in gemm.cl, so the bits are those of products of their own.

// Write `width` numbers (null: ones) as row k, from column `first` on, of panels (inner, PANEL); return
// the next column.
static long join(global const real *line, global real *panels, const long k, const long inner,
                 const long first, const long width)
{
    for (long done = 0; done < width;) {
        const long column = first + done;
        const int lane = column % PANEL, count = (int)min((long)PANEL - lane, width - done);
        global real *to = panels + (column / PANEL * inner + k) * PANEL + lane;
        if (line && count == PANEL)
#pragma unroll
            for (int v = 0; v < WIDE; ++v)
                *(global vec *)(to + v * LANES) = LOAD(real, line + done + v * LANES);
        else
            for (int n = 0; n < count; ++n)
                to[n] = line ? line[done + n] : (real)1;
        done += count;
    }
    return first + width;
}

kernel void join_factors(global real *panels, const long inner FACTORS)
{
    EACH(k, inner) {
        long column = 0;
        JOIN_ALL
        for (; column % PANEL; ++column)
            panels[(column / PANEL * inner + k) * PANEL + column % PANEL] = 0;
    }
}

// Write rows start .. start + depth of columns [from, to) * TALL as tiles (depth, TALL) with zeros past
// the last column.
static void pack_tiles(global const real *a, global real *tiles, const long start, const long depth,
                       const long rows, const long from, const long to)
{
    for (long k = 0; k < depth; ++k) {
        global const real *line = a + (start + k) * rows;
        for (long tile = from; tile < to; ++tile) {
            global real *target = tiles + ((tile - from) * depth + k) * TALL;
            const long left = rows - tile * TALL;
            if (left >= TALL)
#pragma unroll
                for (int n = 0; n < TALL; ++n)
                    target[n] = line[tile * TALL + n];
            else
                for (int n = 0; n < TALL; ++n)
                    target[n] = n < left ? line[tile * TALL + n] : 0;
        }
    }
}

// Add what `depth` gives to the sums of a tile (TALL, PANEL), or begin them.
static void add_tile(global const real *left, global const real *right, global real *kept,
                     const long depth, const bool is_first)
{
    vec sums[TALL][WIDE];
#pragma unroll
    for (int n = 0; n < TALL; ++n)
#pragma unroll
        for (int v = 0; v < WIDE; ++v)
            sums[n][v] = is_first ? (vec)(0) : *(global vec *)(kept + n * PANEL + v * LANES);
    for (long k = 0; k < depth; ++k) {
        vec row[WIDE];
#pragma unroll
        for (int v = 0; v < WIDE; ++v)
            row[v] = *(global const vec *)(right + k * PANEL + v * LANES);
#pragma unroll
        for (int n = 0; n < TALL; ++n) {
            const vec value = (vec)(left[k * TALL + n]);
#pragma unroll
            for (int v = 0; v < WIDE; ++v)
                sums[n][v] += value * row[v];
        }
    }
#pragma unroll
    for (int n = 0; n < TALL; ++n)
#pragma unroll
        for (int v = 0; v < WIDE; ++v)
            *(global vec *)(kept + n * PANEL + v * LANES) = sums[n][v];
}

// Copy `width` sums of row n of a tile, from column `first` on; return the next column.
static long part(global const real *kept, global real *out, const int n, const long first,
                 const long width)
{
    for (long done = 0; done < width;) {
        const long column = first + done;
        const int lane = column % PANEL, count = (int)min((long)PANEL - lane, width - done);
        global const real *from = kept + (column / PANEL * TALL + n) * PANEL + lane;
        for (int m = 0; m < count; ++m)
            out[done + m] = from[m];
        done += count;
    }
    return first + width;
}

// A work-item has some columns of `a`, which nobody else reads: it packs `depth` rows of them and goes
// on with these while its cache has them.
kernel void joint_products(global const real *a, global const real *panels, global real *tiles,
                           global real *sums, const long inner, const long rows, const long across,
                           const long depth RESULTS)
{
    const long down = (rows + TALL - 1) / TALL, each = PER_ITEM(down);
    const long from = get_global_id(0) * each, to = min(down, from + each);
    global real *own = tiles + from * depth * TALL;
    for (long start = 0; start < inner; start += depth) {
        const long now = min(depth, inner - start);
        pack_tiles(a, own, start, now, rows, from, to);
        for (long panel = 0; panel < across; ++panel)
            for (long tile = from; tile < to; ++tile)
                add_tile(own + (tile - from) * now * TALL, panels + (panel * inner + start) * PANEL,
                         sums + (tile * across + panel) * TALL * PANEL, now, !start);
    }
    for (long row = from * TALL; row < min(rows, to * TALL); ++row) {
        global const real *kept = sums + row / TALL * across * TALL * PANEL;
        const int n = row % TALL;
        long column = 0;
        PART_ALL
    }
}
