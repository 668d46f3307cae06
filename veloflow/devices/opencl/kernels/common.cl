// What every kernel on vectors uses: loads, stores of the first few lanes, sums over lanes.
// A vector may be read past the end of a row or an array (memory is padded for that); what was
// read there is never used. It must not be written there.

#define LOAD(type, pointer) (*(const global type##_lanes *)(pointer))

#if LANES == 1
#define FIRST(count, value, other) (value)
#else
#define FIRST(count, value, other) ((LANE < (whole)(count)) ? (value) : (other))
#endif

// Write the first `count` lanes of `value`, which was converted to `type` lanes.
#if LANES == 1
#define STORE(type, pointer, value, count) (*(pointer) = (value))
#else
#define STORE(type, pointer, value, count)                        \
    do {                                                          \
        const type##_lanes stored = (value);                      \
        if ((count) >= LANES)                                     \
            *(global type##_lanes *)(pointer) = stored;           \
        else                                                      \
            for (int lane = 0; lane < (int)(count); ++lane)       \
                (pointer)[lane] = ((const type *)&stored)[lane];  \
    } while (0)
#endif
