// Convolutions by Cook and Toom: tiles of OUT x OUT sums with TAPS x TAPS weights from POINTS products,
// each a product of matrices over all tiles. Some images at a time, so that what is between the
// transforms stays in the cache. The gradients are the exact adjoint of the forward pass.
//
// c and k are rounded up to whole panels, cp and kp. Tiles come in blocks of ROWS: what belongs to a
// point of a block is (ROWS, channels), contiguous.

#define EDGE (OUT + TAPS - 1)
#define POINTS (EDGE * EDGE)
#define SIZES                                                                                  \
    const int n, const int h, const int w, const int c, const int left, const int top,         \
        const int oh, const int ow, const int k, const int down, const int across, const int cp, \
        const int kp, const int together

// Where tile t of the images at hand has its vectors, `channels` of them a row.
#define TILE(t, channels) (((long)((t) / ROWS) * POINTS * ROWS + (t) % ROWS) * (channels))

// weights (k, TAPS * TAPS, c) -> by point: (kp / PANEL, cp, PANEL) forwards, (cp / PANEL, kp, PANEL)
// backwards
kernel void transform_weights(global const real *weights, global real *panels, const int c,
                              const int k, const int cp, const int kp, const int backwards)
{
    EACH(unit, (long)kp * (cp / LANES)) {
        const int own = unit / (cp / LANES), first = unit % (cp / LANES) * LANES;
        const int count = own < k ? c - first : 0;
        vec columns[EDGE * TAPS];
        for (int j = 0; j < TAPS; ++j) {
            vec in[TAPS], out[EDGE];
            for (int i = 0; i < TAPS; ++i) {
                in[i] = (vec)(0);
                if (count > 0) {
                    const vec value =
                        LOAD(real, weights + ((long)own * TAPS * TAPS + i * TAPS + j) * c + first);
                    in[i] = FIRST(count, value, (vec)(0));
                }
            }
            times_g(in, out);
            for (int i = 0; i < EDGE; ++i)
                columns[i * TAPS + j] = out[i];
        }
        for (int i = 0; i < EDGE; ++i) {
            vec out[EDGE];
            times_g(columns + i * TAPS, out);
            for (int j = 0; j < EDGE; ++j) {
                global real *matrix = panels + (long)(i * EDGE + j) * cp * kp;
                if (backwards) {
                    global real *to =
                        matrix + ((long)(first / PANEL) * kp + own) * PANEL + first % PANEL;
                    *(global vec *)to = out[j];
                } else {
                    global real *to =
                        matrix + ((long)(own / PANEL) * cp + first) * PANEL + own % PANEL;
                    for (int lane = 0; lane < LANES; ++lane)
                        to[lane * PANEL] = ((const real *)&out[j])[lane];
                }
            }
        }
    }
}

// One image with zeros around it and c rounded up to cp.
static void widen_image(global const real *x, global real *wide, const int h, const int w,
                        const int c, const int cp, const int left, const int top, const int wide_h,
                        const int wide_w)
{
    if (c == cp) {
        widen(x, wide, h, w, c, 0, c, left, top, wide_h, wide_w);
        return;
    }
    clear_run(wide, (long)wide_h * wide_w * cp);
    for (int y = 0; y < h; ++y)
        for (int at = 0; at < w; ++at)
            copy_run(x + ((long)y * w + at) * c, wide + ((long)(top + y) * wide_w + left + at) * cp,
                     c);
}

// B^T x B of all tiles of an image, the first of which is tile `tile` of those at hand
static void transform_image(global const real *wide, global real *into, const int tile,
                            const int down, const int across, const int cp, const int wide_w)
{
    for (int t = 0; t < down * across; ++t)
        for (int first = 0; first < cp; first += LANES) {
            global const real *from =
                wide + ((long)(t / across) * OUT * wide_w + t % across * OUT) * cp + first;
            global real *to = into + TILE(tile + t, cp) + first;
            vec columns[POINTS];
            for (int j = 0; j < EDGE; ++j) {
                vec in[EDGE], out[EDGE];
#pragma unroll
                for (int i = 0; i < EDGE; ++i)
                    in[i] = *(global const vec *)(from + ((long)i * wide_w + j) * cp);
                times_bt(in, out);
#pragma unroll
                for (int i = 0; i < EDGE; ++i)
                    columns[i * EDGE + j] = out[i];
            }
            for (int i = 0; i < EDGE; ++i) {
                vec out[EDGE];
                times_bt(columns + i * EDGE, out);
#pragma unroll
                for (int j = 0; j < EDGE; ++j)
                    *(global vec *)(to + (long)(i * EDGE + j) * ROWS * cp) = out[j];
            }
        }
}

// out (blocks, points, ROWS, columns) = from (blocks, points, ROWS, inner) x panels of each point
static void multiply_points(global const real *from, global const real *panels, global real *out,
                            const int blocks, const int inner, const int columns)
{
    for (int point = 0; point < POINTS; ++point)
        for (int p = 0; p < columns / PANEL; ++p) {
            global const real *own =
                panels + ((long)point * columns + (long)p * PANEL) * inner;
            for (int block = 0; block < blocks; ++block) {
                const long at = ((long)block * POINTS + point) * ROWS;
                global const real *left_ = from + at * inner;
                global real *to = out + at * columns + p * PANEL;
                global const real *panel = own;
                SUMS;
                FRESH;
                for (int r = 0; r < inner; ++r) {
                    MULTIPLY(left_[m * inner + r], panel);
                    panel += PANEL;
                }
#pragma unroll
                for (int m = 0; m < ROWS; ++m) {
                    *(global vec *)(to + m * columns) = one[m];
                    *(global vec *)(to + m * columns + LANES) = two[m];
                }
            }
        }
}

kernel void convolve_tiles(global const real *x, global const real *panels,
                           global const real *bias, global real *y, global real *spare,
                           const int has_bias, const long spare_size, SIZES)
{
    const int wide_h = down * OUT + TAPS - 1, wide_w = across * OUT + TAPS - 1;
    const int tiles = down * across;
    const long rows = (long)(together * tiles + ROWS - 1) / ROWS * ROWS * POINTS;
    global real *wide = spare + get_global_id(0) * spare_size;
    global real *images = wide + (long)wide_h * wide_w * cp;
    global real *sums = images + rows * cp;
    const long runs = (n + together - 1) / together;
    EACH(run, runs) {
        const int count = min((long)together, n - run * together);
        for (int s = 0; s < count; ++s) {
            widen_image(x + (run * together + s) * h * w * c, wide, h, w, c, cp, left, top, wide_h,
                        wide_w);
            transform_image(wide, images, s * tiles, down, across, cp, wide_w);
        }
        multiply_points(images, panels, sums, (count * tiles + ROWS - 1) / ROWS, cp, kp);
        for (int t = 0; t < count * tiles; ++t) {
            const long image = run * together + t / tiles;
            const int oy = t % tiles / across * OUT, ox = t % across * OUT;
            for (int first = 0; first < k; first += LANES) {
                global const real *from = sums + TILE(t, kp) + first;
                vec columns[OUT * EDGE];
                for (int j = 0; j < EDGE; ++j) {
                    vec in[EDGE], out[OUT];
#pragma unroll
                    for (int i = 0; i < EDGE; ++i)
                        in[i] = *(global const vec *)(from + (long)(i * EDGE + j) * ROWS * kp);
                    times_at(in, out);
#pragma unroll
                    for (int i = 0; i < OUT; ++i)
                        columns[i * EDGE + j] = out[i];
                }
                for (int i = 0; i < OUT && oy + i < oh; ++i) {
                    vec out[OUT];
                    times_at(columns + i * EDGE, out);
                    global real *to = y + ((image * oh + oy + i) * ow + ox) * k + first;
                    for (int j = 0; j < OUT && ox + j < ow; ++j)
                        write_sums(out[j], to + j * k, bias + first, has_bias, k - first);
                }
            }
        }
    }
}

// A d A^T of all tiles of an image, and the sums of d over its places
static void transform_errors(global const real *err, global const real *y, global real *into,
                             global real *totals, const int tile, const int down, const int across,
                             const int oh, const int ow, const int k, const int kp)
{
    for (int first = 0; first < kp; first += LANES) {
        vec total = (vec)(0);
        for (int t = 0; t < down * across; ++t) {
            const int oy = t / across * OUT, ox = t % across * OUT;
            global real *to = into + TILE(tile + t, kp) + first;
            vec columns[EDGE * OUT];
            for (int j = 0; j < OUT; ++j) {
                vec in[OUT], out[EDGE];
                for (int i = 0; i < OUT; ++i) {
                    in[i] = (vec)(0);
                    if (oy + i < oh && ox + j < ow && first < k) {
                        const long at = ((long)(oy + i) * ow + ox + j) * k + first;
                        const vec d = DELTA(LOAD(real, err + at), LOAD(real, y + at));
                        in[i] = FIRST(k - first, d, (vec)(0));
                    }
                    total += in[i];
                }
                times_a(in, out);
#pragma unroll
                for (int i = 0; i < EDGE; ++i)
                    columns[i * OUT + j] = out[i];
            }
            for (int i = 0; i < EDGE; ++i) {
                vec out[EDGE];
                times_a(columns + i * OUT, out);
#pragma unroll
                for (int j = 0; j < EDGE; ++j)
                    *(global vec *)(to + (long)(i * EDGE + j) * ROWS * kp) = out[j];
            }
        }
        if (first < k)
            STORE(real, totals + first, total, k - first);
    }
}

// Add B v B^T of all tiles of an image up where they overlap.
static void add_tiles(global const real *from, global real *wide, const int tile, const int down,
                      const int across, const int cp, const int wide_w)
{
    for (int t = 0; t < down * across; ++t)
        for (int first = 0; first < cp; first += LANES) {
            global real *to =
                wide + ((long)(t / across) * OUT * wide_w + t % across * OUT) * cp + first;
            global const real *own = from + TILE(tile + t, cp) + first;
            vec columns[POINTS];
            for (int j = 0; j < EDGE; ++j) {
                vec in[EDGE], out[EDGE];
#pragma unroll
                for (int i = 0; i < EDGE; ++i)
                    in[i] = *(global const vec *)(own + (long)(i * EDGE + j) * ROWS * cp);
                times_b(in, out);
#pragma unroll
                for (int i = 0; i < EDGE; ++i)
                    columns[i * EDGE + j] = out[i];
            }
            for (int i = 0; i < EDGE; ++i) {
                vec out[EDGE];
                times_b(columns + i * EDGE, out);
#pragma unroll
                for (int j = 0; j < EDGE; ++j)
                    *(global vec *)(to + ((long)i * wide_w + j) * cp) += out[j];
            }
        }
}

// sums (points, cp / PANEL, kp, PANEL) += errors^T x images
static void add_products(global const real *errors, global const real *images, global real *sums,
                         const int blocks, const int cp, const int kp)
{
    for (int point = 0; point < POINTS; ++point)
        for (int p = 0; p < cp / PANEL; ++p)
            for (int first = 0; first < kp; first += ROWS) {
                SUMS;
                FRESH;
                for (int block = 0; block < blocks; ++block) {
                    const long at = ((long)block * POINTS + point) * ROWS;
                    global const real *d = errors + at * kp + first;
                    global const real *image = images + at * cp + p * PANEL;
                    for (int row = 0; row < ROWS; ++row) {
                        MULTIPLY(d[m], image);
                        d += kp;
                        image += cp;
                    }
                }
                global real *to = sums + (((long)point * (cp / PANEL) + p) * kp + first) * PANEL;
#pragma unroll
                for (int m = 0; m < ROWS; ++m)
                    if (first + m < kp) {
                        *(global vec *)(to + m * PANEL) += one[m];
                        *(global vec *)(to + m * PANEL + LANES) += two[m];
                    }
            }
}

// dL/dx of each image; and for each of `parts` parts of the minibatch the gradient by the transformed
// weights, partial (parts, points, cp / PANEL, kp, PANEL), and totals (n, k) as in weights_back.
kernel void tiles_back(global const real *err, global const real *y, global const real *x,
                       global const real *panels, global real *dx, global real *partial,
                       global real *totals, global real *spare, const long spare_size,
                       const int parts, const int has_dx, const int has_dw, SIZES)
{
    const int wide_h = down * OUT + TAPS - 1, wide_w = across * OUT + TAPS - 1;
    const int tiles = down * across;
    const long blocks_at_most = (together * tiles + ROWS - 1) / ROWS;
    const long rows = blocks_at_most * ROWS * POINTS;
    global real *wide = spare + get_global_id(0) * spare_size;
    global real *images = wide + (long)wide_h * wide_w * cp;
    global real *errors = images + rows * cp;
    EACH(part, parts) {
        global real *sums = partial + part * POINTS * cp * kp;
        if (has_dw)
            clear_run(sums, (long)POINTS * cp * kp);
        const int end = (part + 1) * n / parts;
        for (int start = part * n / parts; start < end; start += together) {
            const int count = min(together, end - start);
            const int blocks = (count * tiles + ROWS - 1) / ROWS;
            // of the last block what belongs to no tile must add nothing
            clear_run(images + (blocks - 1) * POINTS * ROWS * cp, (long)POINTS * ROWS * cp);
            clear_run(errors + (blocks - 1) * POINTS * ROWS * kp, (long)POINTS * ROWS * kp);
            for (int s = 0; s < count; ++s) {
                const long image = start + s, at = image * oh * ow * k;
                transform_errors(err + at, y + at, errors, totals + image * k, s * tiles, down,
                                 across, oh, ow, k, kp);
            }
            if (has_dw) {
                for (int s = 0; s < count; ++s) {
                    const long image = start + s;
                    widen_image(x + image * h * w * c, wide, h, w, c, cp, left, top, wide_h,
                                wide_w);
                    transform_image(wide, images, s * tiles, down, across, cp, wide_w);
                }
                add_products(errors, images, sums, blocks, cp, kp);
            }
            if (has_dx) {
                multiply_points(errors, panels, images, blocks, kp, cp);
                for (int s = 0; s < count; ++s) {
                    clear_run(wide, (long)wide_h * wide_w * cp);
                    add_tiles(images, wide, s * tiles, down, across, cp, wide_w);
                    global real *to = dx + (start + s) * (long)h * w * c;
                    for (int py = 0; py < h; ++py)
                        for (int px = 0; px < w; ++px) {
                            const long at = (long)(top + py) * wide_w + left + px;
                            copy_run(wide + at * cp, to + ((long)py * w + px) * c, c);
                        }
                }
            }
        }
    }
}

// dL/dw from what tiles_back gave, by G^T
kernel void finish_tiles(global const real *partial, global const real *totals,
                         global real *weights, global real *bias, const int n, const int parts,
                         const int c, const int k, const int cp, const int kp, const int has_bias)
{
    EACH(unit, (long)k * (cp / LANES)) {
        const int own = unit / (cp / LANES), first = unit % (cp / LANES) * LANES;
        if (first >= c)
            continue;
        global const real *from =
            partial + ((long)(first / PANEL) * kp + own) * PANEL + first % PANEL;
        vec columns[TAPS * EDGE];
        for (int j = 0; j < EDGE; ++j) {
            vec in[EDGE], out[TAPS];
            for (int i = 0; i < EDGE; ++i) {
                in[i] = (vec)(0);
                for (int part = 0; part < parts; ++part)
                    in[i] += *(global const vec *)(from + ((long)part * POINTS + i * EDGE + j) * cp
                                                              * kp);
            }
            times_gt(in, out);
            for (int i = 0; i < TAPS; ++i)
                columns[i * EDGE + j] = out[i];
        }
        for (int i = 0; i < TAPS; ++i) {
            vec out[TAPS];
            times_gt(columns + i * EDGE, out);
            for (int j = 0; j < TAPS; ++j)
                STORE(real, weights + ((long)own * TAPS * TAPS + i * TAPS + j) * c + first, out[j],
                      c - first);
        }
    }
    if (has_bias && get_global_id(0) == 0)
        add_totals(totals, bias, n, k);
}
