// Rows of patches: what each place of a window sees, and back. A work-item does one number, so
// neighbours read and write neighbouring memory.
//
// x and dx: (n, h, w, c); rows: (count, oh, ow, ky, kx, c), of the images from `first` on.

#define GRID                                                                               \
    const long first, const long count, const int h, const int w, const int c, const int ky, \
        const int kx, const int sy, const int sx, const int left, const int top, const int oh, \
        const int ow

kernel void unfold(global const real *x, global real *rows, GRID)
{
    const int length = ky * kx * c, places = oh * ow;
    EACH(unit, count * places * length) {
        const int tap = unit % length, place = unit / length % places;
        const int y = place / ow * sy - top + tap / c / kx;
        const int z = place % ow * sx - left + tap / c % kx;
        const long image = first + unit / length / places;
        const bool is_inside = y >= 0 && y < h && z >= 0 && z < w;
        rows[unit] = is_inside ? x[((image * h + y) * w + z) * c + tap % c] : 0;
    }
}

kernel void fold_patches(global const real *rows, global real *dx, GRID)
{
    const long size = (long)h * w * c;
    EACH(unit, count * size) {
        const int channel = unit % c, z = unit / c % w + left, y = unit / c / w % h + top;
        global const real *own = rows + unit / size * oh * ow * ky * kx * c + channel;
        real sum = 0;
        // the taps that can reach this line, and of those the ones that do
        for (int i = y % sy; i < ky && i <= y; i += sy) {
            const int oy = (y - i) / sy;
            for (int j = z % sx; oy < oh && j < kx && j <= z; j += sx) {
                const int ox = (z - j) / sx;
                if (ox < ow)
                    sum += own[((((long)oy * ow + ox) * ky + i) * kx + j) * c];
            }
        }
        dx[first * size + unit] = sum;
    }
}
