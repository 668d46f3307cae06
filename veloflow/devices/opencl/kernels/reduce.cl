// Running totals: START declares one, ADD adds a vector to it, over_lanes brings its lanes together.

#ifdef MAXIMUM
#define IDENTITY ((vec)(-INFINITY))
#define START(total) totals total = (totals)(-INFINITY)
#define ADD(total, value)                                                      \
    do {                                                                       \
        const totals added = TO_TOTALS(value);                                 \
        total = ((added > total) | (added != added)) ? added : total;          \
    } while (0)
#elif defined(COMPENSATED) // Kahan 1965: what rounding lost is added to the next term
#define IDENTITY ((vec)(0))
#define START(total) totals total = (totals)(0), total##_lost = (totals)(0)
#define ADD(total, value)                                                      \
    do {                                                                       \
        const totals added = TO_TOTALS(value) - total##_lost;                  \
        const totals next = total + added;                                     \
        total##_lost = (next - total) - added;                                 \
        total = next;                                                          \
    } while (0)
#else
#define IDENTITY ((vec)(0))
#define START(total) totals total = (totals)(0)
#define ADD(total, value) total += TO_TOTALS(value)
#endif

static ACCUMULATOR over_lanes(totals values)
{
    const ACCUMULATOR *lanes = (const ACCUMULATOR *)&values;
    ACCUMULATOR result = lanes[0];
    for (int lane = 1; lane < LANES; ++lane)
#ifdef MAXIMUM
        result = (lanes[lane] > result || lanes[lane] != lanes[lane]) ? lanes[lane] : result;
#else
        result += lanes[lane];
#endif
    return result;
}
