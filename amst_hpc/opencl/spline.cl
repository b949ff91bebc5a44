// Resampling by cubic B-spline on a processor; see spline.py. A work item takes ROWS rows, and LANES
// pixels of a row at once.

#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#define COUNT (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

// The coefficients of rows -2 to height + 1, with LANES more at both ends, mirrored, so that no lane
// reads past them. `scratch` holds a row for each work item; `in` is at least LANES wide.
#define COEFFICIENTS(T)                                                                         \
    kernel void coefficients_##T(global const T *in, global float *out, global float *scratch,  \
                                 constant float *taps, int width, int height) {                 \
        int item = get_global_id(0), stride = width + 2 * LANES, reach = LANES + RADIUS;        \
        int last = width - 1;                                                                   \
        global float *row = scratch + (size_t)item * (width + 2 * reach) + reach;               \
        for (int r = item * ROWS; r < min(height + 4, (item + 1) * ROWS); r++) {                \
            global const T *above[RADIUS + 1], *below[RADIUS + 1];                              \
            for (int k = 0; k <= RADIUS; k++) {                                                 \
                above[k] = in + (size_t)mirror(r - 2 - k, height) * width;                      \
                below[k] = in + (size_t)mirror(r - 2 + k, height) * width;                      \
            }                                                                                   \
            for (int i = 0; i < width; i += LANES) {                                            \
                int x = min(i, width - LANES);                                                  \
                float16 sum = taps[0] * convert_float16(vload16(0, above[0] + x));              \
                for (int k = 1; k <= RADIUS; k++)                                               \
                    sum += taps[k] * (convert_float16(vload16(0, above[k] + x)) +               \
                                      convert_float16(vload16(0, below[k] + x)));               \
                vstore16(sum, 0, row + x);                                                      \
            }                                                                                   \
            for (int x = 1; x <= reach; x++) {                                                  \
                row[-x] = row[mirror(x, width)];                                                \
                row[last + x] = row[mirror(last + x, width)];                                   \
            }                                                                                   \
            for (int i = 0; i < stride; i += LANES) {                                           \
                int x = min(i, stride - LANES);                                                 \
                global const float *from = row + x - LANES;                                     \
                float16 sum = taps[0] * vload16(0, from);                                       \
                for (int k = 1; k <= RADIUS; k++)                                               \
                    sum += taps[k] * (vload16(0, from - k) + vload16(0, from + k));             \
                vstore16(sum, 0, out + (size_t)r * stride + x);                                 \
            }                                                                                   \
        }                                                                                       \
    }
COEFFICIENTS(uchar)
COEFFICIENTS(ushort)

void spline_weights(float16 t, float16 w[4]) {  // cubic B-spline at -1-t, -t, 1-t, 2-t
    float16 u = 1 - t;
    w[0] = u * u * u / 6;
    w[1] = (4 - 3 * t * t * (2 - t)) / 6;
    w[2] = (4 - 3 * u * u * (2 - u)) / 6;
    w[3] = t * t * t / 6;
}

double row_start(double along, double step, int y) {
    #pragma OPENCL FP_CONTRACT OFF  // the same border pixels as on the host, to the bit
    return along + step * y;
}

double16 positions(double start, double step, int x) {
    #pragma OPENCL FP_CONTRACT OFF
    return start + step * ((double16)COUNT + x);
}

// Lanes whose pixels lie in the same cell, as seen from where they are, read neighbouring
// coefficients: all lanes are computed as if they did, and those for which it is true are taken.
// Mostly that is once, with an angle a few times.
#define RESAMPLE(T)                                                                             \
    kernel void resample_##T(global const float *spline, global T *out, double m0, double m1,   \
                             double m2, double m3, double m4, double m5, int in_width,          \
                             int in_height, int width, int height) {                            \
        int first = get_global_id(0) * ROWS, stride = in_width + 2 * LANES;                     \
        double right = in_width - 1, bottom = in_height - 1;                                    \
        for (int y = first; y < min(height, first + ROWS); y++) {                               \
            double start_x = row_start(m2, m1, y), start_y = row_start(m5, m4, y);              \
            for (int x = 0; x < width; x += LANES) {                                            \
                double16 qx = positions(start_x, m0, x), qy = positions(start_y, m3, x);        \
                int16 open = convert_int16(qx >= 0 && qy >= 0 && qx <= right && qy <= bottom);  \
                double16 floor_x = floor(qx), floor_y = floor(qy);                              \
                int16 dx = convert_int16(floor_x) - (int16)COUNT, row = convert_int16(floor_y); \
                float16 wx[4], wy[4], found = 0;                                                \
                spline_weights(convert_float16(qx - floor_x), wx);                              \
                spline_weights(convert_float16(qy - floor_y), wy);                              \
                int is_open[LANES], first_x[LANES], first_row[LANES];                           \
                vstore16(dx, 0, first_x);                                                       \
                vstore16(row, 0, first_row);                                                    \
                for (int lane = 0; any(open); lane++) {                                         \
                    vstore16(open, 0, is_open);                                                 \
                    if (!is_open[lane]) continue;                                               \
                    int16 same = open && dx == first_x[lane] && row == first_row[lane];         \
                    global const float *from = spline + (size_t)(first_row[lane] + 1) * stride + \
                                               LANES + first_x[lane] - 1;                       \
                    float16 sum = 0;                                                            \
                    for (int j = 0; j < 4; j++) {                                               \
                        float16 part = 0;                                                       \
                        for (int i = 0; i < 4; i++)                                             \
                            part += wx[i] * vload16(0, from + (size_t)j * stride + i);          \
                        sum += wy[j] * part;                                                    \
                    }                                                                           \
                    found = select(found, sum, same);                                           \
                    open = open && !same;                                                       \
                }                                                                               \
                T values[LANES];                                                                \
                vstore16(convert_##T##16_sat_rte(found), 0, values);                            \
                global T *to = out + (size_t)y * width + x;                                     \
                if (x + LANES <= width)                                                         \
                    vstore16(vload16(0, values), 0, to);                                        \
                else                                                                            \
                    for (int lane = 0; lane < width - x; lane++) to[lane] = values[lane];       \
            }                                                                                   \
        }                                                                                       \
    }
RESAMPLE(uchar)
RESAMPLE(ushort)
