// Philox 4x64-10 (Salmon, Moraes, Dror, Shaw 2011): four numbers for each counter.

static void philox(ulong4 *counter, ulong key0, ulong key1)
{
    for (int round = 0; round < 10; ++round) {
        const ulong a = 0xD2E7470EE14C6C93UL, b = 0xCA5A826395121157UL;
        const ulong4 c = *counter;
        *counter = (ulong4)(mul_hi(b, c.z) ^ c.y ^ key0, b * c.z,
                            mul_hi(a, c.x) ^ c.w ^ key1, a * c.x);
        key0 += 0x9E3779B97F4A7C15UL;
        key1 += 0xBB67AE8584CAA73BUL;
    }
}

kernel void uniform(global real *out, const long rows, const long columns, const ulong key0,
                    const ulong key1, const ulong stream, const ulong first)
{
    const long blocks = (columns + 3) / 4;
    EACH(unit, rows * blocks) {
        const long row = unit / blocks;
        const long column = unit % blocks * 4;
        ulong4 words = (ulong4)(first * (ulong)blocks + (ulong)unit, stream, 0, 0);
        philox(&words, key0, key1);
        global real *target = out + row * columns + column;
        const long count = columns - column;
        const real scale = (real)1 / (real)(1UL << BITS);
        target[0] = (real)(words.x >> (64 - BITS)) * scale;
        if (count > 1)
            target[1] = (real)(words.y >> (64 - BITS)) * scale;
        if (count > 2)
            target[2] = (real)(words.z >> (64 - BITS)) * scale;
        if (count > 3)
            target[3] = (real)(words.w >> (64 - BITS)) * scale;
    }
}
