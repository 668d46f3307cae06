// Convolutions without rows of patches in memory: ROWS places and two vectors of kernels are summed
// in registers. What a window sees of one line of the image is one run of memory, kx * channels
// long, so the sums are those of a product of matrices whose first operand is the image itself.
//
// x: (n, h, w, c); y and err: (n, oh, ow, k); a group has cg channels and kg kernels.

#define PANEL (2 * LANES)
#define GRID                                                                                  \
    const int n, const int h, const int w, const int c, const int ky, const int kx,           \
        const int sy, const int sx, const int left, const int top, const int oh, const int ow, \
        const int k, const int groups, const int wide_h, const int wide_w

#define SUMS vec one[ROWS], two[ROWS]
#define FRESH                                  \
    _Pragma("unroll") for (int m = 0; m < ROWS; ++m) \
    {                                          \
        one[m] = (vec)(0);                     \
        two[m] = (vec)(0);                     \
    }
// Add value(m) * a row of a panel to the sums of each row m.
#define MULTIPLY(value, panel)                             \
    do {                                                   \
        const vec b0 = *(global const vec *)(panel);       \
        const vec b1 = *(global const vec *)((panel) + LANES); \
        _Pragma("unroll") for (int m = 0; m < ROWS; ++m)   \
        {                                                  \
            const vec a = (vec)(value);                    \
            one[m] += a * b0;                              \
            two[m] += a * b1;                              \
        }                                                  \
    } while (0)

// weights (groups * kg, length) -> panels (groups, across, length, PANEL), with zeros past kg
kernel void pack_weights(global const real *weights, global real *panels, const int kg,
                         const int length, const int groups)
{
    const int across = (kg + PANEL - 1) / PANEL;
    EACH(unit, (long)groups * across * length) {
        const long g = unit / length / across, first = unit / length % across * PANEL;
        global const real *from = weights + (g * kg + first) * length + unit % length;
        for (int lane = 0; lane < PANEL; ++lane)
            panels[unit * PANEL + lane] = first + lane < kg ? from[(long)lane * length] : 0;
    }
}

// weights (groups * kg, taps, cg) -> panels (groups, across, taps, kg, PANEL), with zeros past cg
kernel void pack_back(global const real *weights, global real *panels, const int kg,
                      const int taps, const int cg, const int groups)
{
    const int across = (cg + PANEL - 1) / PANEL;
    EACH(unit, (long)groups * across * taps * kg) {
        const long kernel_ = unit % kg, tap = unit / kg % taps;
        const long first = unit / kg / taps % across * PANEL, g = unit / kg / taps / across;
        global const real *from = weights + ((g * kg + kernel_) * taps + tap) * cg + first;
        for (int lane = 0; lane < PANEL; ++lane)
            panels[unit * PANEL + lane] = first + lane < cg ? from[lane] : 0;
    }
}

// Write `count` numbers at `from` to `to`; vectors may be read past the end, not written there.
static void copy_run(global const real *from, global real *to, const int count)
{
    for (int at = 0; at < count; at += LANES)
        STORE(real, to + at, LOAD(real, from + at), count - at);
}

static void clear_run(global real *to, const long count)
{
    for (long at = 0; at < count; at += LANES)
        STORE(real, to + at, (vec)(0), count - at);
}

// One image of the channels [first, first + cg) with zeros around it.
static void widen(global const real *x, global real *wide, const int h, const int w, const int c,
                  const int first, const int cg, const int left, const int top, const int wide_h,
                  const int wide_w)
{
    const int line = wide_w * cg;
    for (int y = 0; y < wide_h; ++y) {
        global real *to = wide + (long)y * line;
        if (y < top || y >= top + h) {
            clear_run(to, line);
            continue;
        }
        global const real *from = x + (long)(y - top) * w * c + first;
        clear_run(to, left * cg);
        if (cg == c)
            copy_run(from, to + left * cg, w * c);
        else
            for (int at = 0; at < w; ++at)
                copy_run(from + (long)at * c, to + (left + at) * cg, cg);
        clear_run(to + (left + w) * cg, line - (left + w) * cg);
    }
}

// The sums with bias and activation, `count` of them; `bias` may be 0 bytes away from anything.
static void write_sums(const vec sums, global real *out, global const real *bias,
                       const int has_bias, const int count)
{
    vec value = sums;
    if (has_bias)
        value += LOAD(real, bias);
    STORE(real, out, activation(value), count);
}

kernel void convolve(global const real *x, global const real *panels, global const real *bias,
                     global real *y, global real *spare, const int has_bias, const long spare_size,
                     GRID)
{
    const int cg = c / groups, kg = k / groups, across = (kg + PANEL - 1) / PANEL;
    const int row = kx * cg, places = oh * ow;
    global real *wide = spare + get_global_id(0) * spare_size;
    EACH(image, n) for (int g = 0; g < groups; ++g) {
        widen(x + image * h * w * c, wide, h, w, c, g * cg, cg, left, top, wide_h, wide_w);
        for (int p = 0; p < across; ++p) {
            const int kernels = kg - p * PANEL, at = g * kg + p * PANEL;
            global const real *own = panels + ((long)g * across + p) * ky * row * PANEL;
            global real *out = y + image * places * k + at;
            for (int first = 0; first < places; first += ROWS) {
                global const real *from[ROWS];
#pragma unroll
                for (int m = 0; m < ROWS; ++m) {
                    const int place = min(first + m, places - 1);
                    from[m] = wide + ((long)(place / ow) * sy * wide_w + place % ow * sx) * cg;
                }
                SUMS;
                FRESH;
                global const real *panel = own;
                for (int i = 0; i < ky; ++i) {
                    const int line = i * wide_w * cg;
                    for (int r = 0; r < row; ++r) {
                        MULTIPLY(from[m][line + r], panel);
                        panel += PANEL;
                    }
                }
#pragma unroll
                for (int m = 0; m < ROWS; ++m)
                    if (first + m < places) {
                        global real *to = out + (long)(first + m) * k;
                        write_sums(one[m], to, bias + at, has_bias, kernels);
                        if (kernels > LANES)
                            write_sums(two[m], to + LANES, bias + at + LANES, has_bias,
                                       kernels - LANES);
                    }
            }
        }
    }
}

// `count` numbers of err * f'(y)
static void copy_delta(global const real *err, global const real *y, global real *to,
                       const int count)
{
    for (int at = 0; at < count; at += LANES)
        STORE(real, to + at, DELTA(LOAD(real, err + at), LOAD(real, y + at)), count - at);
}

// dL/dx of n images. A pixel that lies at the distance f from a multiple of the stride is seen by
// every stride-th tap, so pixels with the same f are summed together.
kernel void convolve_back(global const real *err, global const real *y, global const real *panels,
                          global real *dx, global real *spare, const long spare_size,
                          const int before_y, const int before_x, GRID)
{
    const int cg = c / groups, kg = k / groups, across = (cg + PANEL - 1) / PANEL;
    global real *wide = spare + get_global_id(0) * spare_size;
    clear_run(wide, spare_size);
    EACH(image, n) for (int g = 0; g < groups; ++g) {
        for (int place = 0; place < oh * ow; ++place) {
            const long from = (image * oh * ow + place) * k + g * kg;
            const int at = (before_y + place / ow) * wide_w + before_x + place % ow;
            copy_delta(err + from, y + from, wide + (long)at * kg, kg);
        }
        for (int phase = 0; phase < sy * sx; ++phase) {
            const int fy = phase / sx, fx = phase % sx;
            const int i0 = (fy + top) % sy, j0 = (fx + left) % sx;
            const int down = (h - fy + sy - 1) / sy, beside = (w - fx + sx - 1) / sx;
            const int places = max(down, 0) * max(beside, 0);
            const long origin =
                (long)(before_y + (fy + top) / sy) * wide_w + before_x + (fx + left) / sx;
            for (int p = 0; p < across; ++p) {
                const int channels = cg - p * PANEL;
                global const real *own = panels + ((long)g * across + p) * ky * kx * kg * PANEL;
                for (int first = 0; first < places; first += ROWS) {
                    global const real *from[ROWS];
#pragma unroll
                    for (int m = 0; m < ROWS; ++m) {
                        const int place = min(first + m, places - 1);
                        from[m] = wide + (origin + place / beside * wide_w + place % beside) * kg;
                    }
                    SUMS;
                    FRESH;
                    for (int i = i0; i < ky; i += sy)
                        for (int j = j0; j < kx; j += sx) {
                            const int back = (i / sy * wide_w + j / sx) * kg;
                            global const real *panel = own + (long)(i * kx + j) * kg * PANEL;
                            for (int r = 0; r < kg; ++r) {
                                MULTIPLY(from[m][r - back], panel);
                                panel += PANEL;
                            }
                        }
#pragma unroll
                    for (int m = 0; m < ROWS; ++m)
                        if (first + m < places) {
                            const int py = fy + (first + m) / beside * sy;
                            const int px = fx + (first + m) % beside * sx;
                            global real *to =
                                dx + ((image * h + py) * w + px) * c + g * cg + p * PANEL;
                            STORE(real, to, one[m], channels);
                            if (channels > LANES)
                                STORE(real, to + LANES, two[m], channels - LANES);
                        }
                }
            }
        }
    }
}

// The gradient by weights of some parts of the minibatch, each summed for itself so that the result
// does not depend on how many work-items there are: partial (parts, groups, across, length, PANEL);
// and the sums of d over the places of each image: totals (n, k).
kernel void weights_back(global const real *err, global const real *y, global const real *x,
                         global real *partial, global real *totals, global real *spare,
                         const long spare_size, const int parts, const int together, GRID)
{
    const int cg = c / groups, kg = k / groups, across = (kg + PANEL - 1) / PANEL;
    const int row = kx * cg, places = oh * ow;
    const long image_size = (long)wide_h * wide_w * cg;
    const long panel_size = (long)together * places * PANEL;
    global real *wide = spare + get_global_id(0) * spare_size;
    global real *delta = wide + (together * image_size + ROWS + 63) / 64 * 64;
    EACH(part, parts) {
        const long size = (long)groups * across * ky * row * PANEL;
        global real *sums = partial + part * size;
        clear_run(sums, size);
        const int end = (part + 1) * n / parts;
        for (int start = part * n / parts; start < end; start += together) {
            const int count = min(together, end - start);
            for (int g = 0; g < groups; ++g) {
                for (int s = 0; s < count; ++s) {
                    const long image = start + s;
                    widen(x + image * h * w * c, wide + s * image_size, h, w, c, g * cg, cg, left,
                          top, wide_h, wide_w);
                    for (int p = 0; p < across; ++p) {
                        const int kernels = min(PANEL, kg - p * PANEL);
                        vec a = (vec)(0), b = (vec)(0);
                        for (int place = 0; place < places; ++place) {
                            const long from = (image * places + place) * k + g * kg + p * PANEL;
                            global real *to =
                                delta + p * panel_size + ((long)s * places + place) * PANEL;
                            if (kernels < PANEL)
                                clear_run(to, PANEL);
                            copy_delta(err + from, y + from, to, kernels);
                            a += *(global const vec *)to;
                            b += *(global const vec *)(to + LANES);
                        }
                        global real *total = totals + image * k + g * kg + p * PANEL;
                        STORE(real, total, a, kernels);
                        if (kernels > LANES)
                            STORE(real, total + LANES, b, kernels - LANES);
                    }
                }
                for (int p = 0; p < across; ++p)
                    for (int i = 0; i < ky; ++i)
                        for (int first = 0; first < row; first += ROWS) {
                            SUMS;
                            FRESH;
                            global const real *d = delta + p * panel_size;
                            for (int s = 0; s < count; ++s)
                                for (int oy = 0; oy < oh; ++oy) {
                                    global const real *from = wide + s * image_size +
                                        (long)(oy * sy + i) * wide_w * cg + first;
                                    for (int ox = 0; ox < ow; ++ox) {
                                        MULTIPLY(from[m], d);
                                        from += sx * cg;
                                        d += PANEL;
                                    }
                                }
                            global real *to = sums +
                                ((((long)g * across + p) * ky + i) * row + first) * PANEL;
#pragma unroll
                            for (int m = 0; m < ROWS; ++m)
                                if (first + m < row) {
                                    *(global vec *)(to + m * PANEL) += one[m];
                                    *(global vec *)(to + m * PANEL + LANES) += two[m];
                                }
                        }
            }
        }
    }
}

// bias (k) = the sums of totals (n, k) over its rows
static void add_totals(global const real *totals, global real *bias, const int n, const int k)
{
    for (int at = 0; at < k; at += LANES) {
        vec sum = (vec)(0), lost = (vec)(0); // Kahan 1965
        for (long image = 0; image < n; ++image) {
            const vec added = LOAD(real, totals + image * k + at) - lost;
            const vec next = sum + added;
            lost = (next - sum) - added;
            sum = next;
        }
        STORE(real, bias + at, sum, k - at);
    }
}

// dL/dw (groups * kg, length) and dL/db (groups * kg) from what weights_back gave
kernel void finish_back(global const real *partial, global const real *totals,
                        global real *weights, global real *bias, const int n, const int parts,
                        const int kg, const int length, const int groups, const int has_bias)
{
    const int across = (kg + PANEL - 1) / PANEL;
    const long size = (long)groups * across * length * PANEL;
    EACH(unit, (long)groups * across * length) {
        const long g = unit / length / across, first = unit / length % across * PANEL;
        vec a = (vec)(0), b = (vec)(0);
        for (int part = 0; part < parts; ++part) {
            a += *(global const vec *)(partial + part * size + unit * PANEL);
            b += *(global const vec *)(partial + part * size + unit * PANEL + LANES);
        }
        global real *to = weights + (g * kg + first) * length + unit % length;
        for (int lane = 0; lane < PANEL && first + lane < kg; ++lane)
            to[(long)lane * length] =
                lane < LANES ? ((real *)&a)[lane] : ((real *)&b)[lane - LANES];
    }
    if (has_bias && get_global_id(0) == 0)
        add_totals(totals, bias, n, kg * groups);
}
