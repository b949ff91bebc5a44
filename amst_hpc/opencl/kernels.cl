// What a rank computes on its OpenCL device; see kernels.py.

#define CONVOLVE(T)                                                                            \
    kernel void convolve_rows_##T(global const T *in, global float *out, constant float *taps, \
                                  int radius, int width, int height) {                         \
        int x = get_global_id(0), y = get_global_id(1);                                        \
        if (x >= width || y >= height) return;                                                 \
        global const T *row = in + (size_t)y * width;                                          \
        bool within = x >= radius && x + radius < width;                                       \
        float sum = 0;                                                                         \
        for (int k = -radius; k <= radius; k++)                                                \
            sum += taps[abs(k)] * (float)row[within ? x + k : mirror(x + k, width)];           \
        out[(size_t)y * width + x] = sum;                                                      \
    }
CONVOLVE(uchar)
CONVOLVE(ushort)

kernel void convolve_columns(global const float *in, global float *out, constant float *taps,
                             int radius, int width, int height) {
    int x = get_global_id(0), y = get_global_id(1);
    if (x >= width || y >= height) return;
    float sum = 0;
    for (int k = -radius; k <= radius; k++)
        sum += taps[abs(k)] * in[(size_t)mirror(y + k, height) * width + x];
    out[(size_t)y * width + x] = sum;
}

// What a smoothed image is where only a part of it has content.
kernel void share(global const float *image, global const float *weight, global const uchar *mask,
                  global float *out, int width, int height) {
    int x = get_global_id(0), y = get_global_id(1);
    if (x >= width || y >= height) return;
    size_t p = (size_t)y * width + x;
    out[p] = mask[p] ? image[p] / fmax(weight[p], 1e-3f) : NAN;
}

kernel void average_down(global const float *in, global float *out, int factor, int in_width,
                         int width, int height) {
    int x = get_global_id(0), y = get_global_id(1);
    if (x >= width || y >= height) return;
    float sum = 0;
    for (int j = 0; j < factor; j++)
        for (int i = 0; i < factor; i++)
            sum += in[((size_t)y * factor + j) * in_width + x * factor + i];
    out[(size_t)y * width + x] = sum / (factor * factor);
}

// Sums for the correlation of fixed(p) and moving(M p) on a grid of points, for several M at once:
// count, a, b, aa, bb, ab per work group, values counted from `centre`.
kernel void compare(global const float *fixed, global const float *moving, global const float *matrices,
                    int width, int height, int step_x, int step_y, int masked, float centre,
                    global float *out, local float *scratch) {
    int lane = get_local_id(0), lanes = get_local_size(0);
    global const float *m = matrices + 6 * get_global_id(1);
    int across = (width + step_x - 1) / step_x, down = (height + step_y - 1) / step_y;
    float sums[6] = {0, 0, 0, 0, 0, 0};
    for (int i = get_global_id(0); i < across * down; i += get_global_size(0)) {
        int x = (i % across) * step_x, y = (i / across) * step_y;
        float qx = m[0] * x + m[1] * y + m[2], qy = m[3] * x + m[4] * y + m[5];
        if (qx < 0 || qy < 0 || qx > width - 1 || qy > height - 1) continue;
        float a = fixed[(size_t)y * width + x];
        if (masked && (a <= 0 || moving[(size_t)rint(qy) * width + (int)rint(qx)] <= 0)) continue;
        int x0 = (int)qx, y0 = (int)qy, x1 = min(x0 + 1, width - 1), y1 = min(y0 + 1, height - 1);
        float fx = qx - x0, fy = qy - y0;
        global const float *upper = moving + (size_t)y0 * width, *lower = moving + (size_t)y1 * width;
        float b = (1 - fy) * ((1 - fx) * upper[x0] + fx * upper[x1]) +
                  fy * ((1 - fx) * lower[x0] + fx * lower[x1]);
        if (isnan(a) || isnan(b)) continue;
        a -= centre;
        b -= centre;
        sums[0] += 1;
        sums[1] += a;
        sums[2] += b;
        sums[3] += a * a;
        sums[4] += b * b;
        sums[5] += a * b;
    }
    for (int j = 0; j < 6; j++) {
        scratch[lane] = sums[j];
        for (int half_lanes = lanes / 2; half_lanes > 0; half_lanes /= 2) {
            barrier(CLK_LOCAL_MEM_FENCE);
            if (lane < half_lanes) scratch[lane] += scratch[lane + half_lanes];
        }
        if (lane == 0)
            out[((size_t)get_global_id(1) * get_num_groups(0) + get_group_id(0)) * 6 + j] = scratch[0];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

#ifdef cl_khr_fp64
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#pragma OPENCL FP_CONTRACT OFF  // the same border pixels as on the host, to the bit

void spline_weights(double t, float w[4]) {  // cubic B-spline at -1-t, -t, 1-t, 2-t
    float f = (float)t, g = 1 - f;
    w[0] = g * g * g / 6;
    w[1] = (4 - 6 * f * f + 3 * f * f * f) / 6;
    w[2] = (4 - 6 * g * g + 3 * g * g * g) / 6;
    w[3] = f * f * f / 6;
}

#define RESAMPLE(T)                                                                             \
    kernel void resample_##T(global const float *spline, global T *out, double m0, double m1,   \
                             double m2, double m3, double m4, double m5, int in_width,          \
                             int in_height, int width, int height) {                            \
        int x = get_global_id(0), y = get_global_id(1);                                         \
        if (x >= width || y >= height) return;                                                  \
        double qx = (m2 + m1 * y) + m0 * x, qy = (m5 + m4 * y) + m3 * x;                            \
        float sum = 0;                                                                          \
        if (qx >= 0 && qy >= 0 && qx <= in_width - 1 && qy <= in_height - 1) {                  \
            int x0 = (int)floor(qx), y0 = (int)floor(qy);                                       \
            float wx[4], wy[4];                                                                 \
            spline_weights(qx - x0, wx);                                                        \
            spline_weights(qy - y0, wy);                                                        \
            for (int j = 0; j < 4; j++) {                                                       \
                global const float *row = spline + (size_t)mirror(y0 + j - 1, in_height) * in_width; \
                float part = 0;                                                                 \
                for (int i = 0; i < 4; i++) part += wx[i] * row[mirror(x0 + i - 1, in_width)];  \
                sum += wy[j] * part;                                                            \
            }                                                                                   \
        }                                                                                       \
        out[(size_t)y * width + x] = convert_##T##_sat_rte(sum);                                \
    }
RESAMPLE(uchar)
RESAMPLE(ushort)
#endif
