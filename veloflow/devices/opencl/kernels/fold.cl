// The results of pieces, one after another, to one number for each output.

kernel void fold(global const ACCUMULATOR *pieces, global RESULT *out, const long outputs,
                 const long count, const long output_step, const long result_step)
{
    EACH(output, outputs) {
        START(total);
        for (long n = 0; n < count; ++n)
            ADD(total, pieces[output * output_step + n * result_step]);
        out[output] = TO_RESULT(over_lanes(total));
    }
}
