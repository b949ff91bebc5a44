// Gauss-Newton between two filtered slices; see gauss_newton.py. A filtered slice is kept as the
// coefficients of its cubic B-spline; NaN marks pixels that do not count.

float4 spline(float u) {  // weights of the coefficients at -1-u, -u, 1-u, 2-u
    float v = 1 - u;
    return (float4)(v * v * v, 4 - 3 * u * u * (2 - u), 4 - 3 * v * v * (2 - v), u * u * u) / 6;
}

float4 slope(float u) {
    float v = 1 - u;
    return (float4)(-v * v, u * (3 * u - 4), -v * (3 * v - 4), u * u) / 2;
}

// The normal equations, summed over tiles. The fixed slice is looked at on its pixels, the moving
// one at p + m p; MARGIN pixels at the border do not count. One work group per tile of
// TILE x TILE pixels, a work item per column, where xi is the same: what is multiplied with it is
// so at the end. Sums of a tile: the upper triangle of the 8x8 matrix (36), the right side (8),
// weighted squares of the residual; count, squares of the residual, squares and sum of the fixed
// slice.
kernel __attribute__((reqd_work_group_size(TILE, 1, 1)))
void normal_equations(global const float *fixed, global const float *moving, int width, int height,
                      global const int *tiles, global const double *state, global float *out) {
    local float shared[SUMS * TILE];
    if (state[DONE] != 0) return;
    float8 m = convert_float8(vload8(0, state));
    float gain = state[GAIN], bias = state[BIAS], scale = state[SCALE];
    int lane = get_local_id(0), across = (width + TILE - 1) / TILE, tile = tiles[get_group_id(0)];
    int x = tile % across * TILE + lane, top = tile / across * TILE;
    float xi = (x - 0.5f * (width - 1)) / (0.5f * width);
    int cx = clamp(x, 1, width - 2);
    float xx[3] = {0, 0, 0}, xy[3] = {0, 0, 0}, yy[3] = {0, 0, 0};
    float xs[6] = {0, 0, 0, 0, 0, 0}, ys[6] = {0, 0, 0, 0, 0, 0}, s[6] = {0, 0, 0, 0, 0, 0}, u[4] = {0, 0, 0, 0};
    for (int y = top; y < min(top + TILE, height); y++) {
        float eta = (y - 0.5f * (height - 1)) / (0.5f * height);
        float dx = m.s0 * x + m.s1 * y + m.s2, dy = m.s3 * x + m.s4 * y + m.s5;
        float whole_x = floor(dx), whole_y = floor(dy);
        int qx = x + (int)whole_x, qy = y + (int)whole_y, cy = clamp(y, 1, height - 2);
        bool ok = x >= MARGIN && y >= MARGIN && x < width - MARGIN && y < height - MARGIN
                  && qx >= MARGIN && qy >= MARGIN && qx < width - 1 - MARGIN && qy < height - 1 - MARGIN;
        qx = clamp(qx, 1, width - 3);
        qy = clamp(qy, 1, height - 3);
        global const float *c = fixed + (cy - 1) * width + cx;
        float a0 = c[-1] + 4 * c[0] + c[1], d0 = c[1] - c[-1];
        c += width;
        float a1 = c[-1] + 4 * c[0] + c[1], d1 = c[1] - c[-1];
        c += width;
        float a2 = c[-1] + 4 * c[0] + c[1], d2 = c[1] - c[-1];
        float f = (a0 + 4 * a1 + a2) / 36, fx = (d0 + 4 * d1 + d2) / 12, fy = (a2 - a0) / 12;
        float4 wx = spline(dx - whole_x), wy = spline(dy - whole_y);
        float4 sx = slope(dx - whole_x), sy = slope(dy - whole_y);
        global const float *q = moving + (qy - 1) * width + qx - 1;
        float value = 0, rx = 0, ry = 0;
#define ROW(i)                                                                                  \
    {                                                                                           \
        float along = wx.s0 * q[0] + wx.s1 * q[1] + wx.s2 * q[2] + wx.s3 * q[3];                \
        value += wy.s##i * along;                                                               \
        ry += sy.s##i * along;                                                                  \
        rx += wy.s##i * (sx.s0 * q[0] + sx.s1 * q[1] + sx.s2 * q[2] + sx.s3 * q[3]);            \
        q += width;                                                                             \
    }
        ROW(0) ROW(1) ROW(2) ROW(3)
        float r = f - gain * value - bias;
        float gx = 0.5f * (fx + gain * (rx + m.s0 * rx + m.s3 * ry));
        float gy = 0.5f * (fy + gain * (ry + m.s1 * rx + m.s4 * ry));
        ok = ok && !isnan(r + gx + gy);
        r = ok ? r : 0;
        gx = ok ? gx : 0;
        gy = ok ? gy : 0;
        value = ok ? value : 0;
        f = ok ? f : 0;
        float one = ok ? 1.0f : 0.0f, w = 1 + r * r * scale * scale;
        w = one / (w * w);
        float wx_ = w * gx, wy_ = w * gy, e = wx_ * gx;
        xx[0] += e; xx[1] += e * eta; xx[2] += e * eta * eta;
        e = wx_ * gy;
        xy[0] += e; xy[1] += e * eta; xy[2] += e * eta * eta;
        e = wy_ * gy;
        yy[0] += e; yy[1] += e * eta; yy[2] += e * eta * eta;
        xs[0] += wx_ * value; xs[1] += wx_ * value * eta; xs[2] += wx_; xs[3] += wx_ * eta;
        xs[4] += wx_ * r; xs[5] += wx_ * r * eta;
        ys[0] += wy_ * value; ys[1] += wy_ * value * eta; ys[2] += wy_; ys[3] += wy_ * eta;
        ys[4] += wy_ * r; ys[5] += wy_ * r * eta;
        s[0] += w * value * value; s[1] += w * value; s[2] += w;
        s[3] += w * value * r; s[4] += w * r; s[5] += w * r * r;
        u[0] += one; u[1] += r * r; u[2] += f * f; u[3] += f;
    }
    int n = 0;
#define PUT(sum) shared[TILE * n++ + lane] = (sum);
    PUT(xx[0]) PUT(xi * xx[0]) PUT(xx[1]) PUT(xy[0]) PUT(xi * xy[0]) PUT(xy[1]) PUT(xs[0]) PUT(xs[2])
    PUT(xi * xi * xx[0]) PUT(xi * xx[1])
    PUT(xi * xy[0]) PUT(xi * xi * xy[0]) PUT(xi * xy[1]) PUT(xi * xs[0]) PUT(xi * xs[2])
    PUT(xx[2]) PUT(xy[1]) PUT(xi * xy[1]) PUT(xy[2]) PUT(xs[1]) PUT(xs[3])
    PUT(yy[0]) PUT(xi * yy[0]) PUT(yy[1]) PUT(ys[0]) PUT(ys[2])
    PUT(xi * xi * yy[0]) PUT(xi * yy[1]) PUT(xi * ys[0]) PUT(xi * ys[2])
    PUT(yy[2]) PUT(ys[1]) PUT(ys[3])
    PUT(s[0]) PUT(s[1]) PUT(s[2])
    PUT(xs[4]) PUT(xi * xs[4]) PUT(xs[5]) PUT(ys[4]) PUT(xi * ys[4]) PUT(ys[5]) PUT(s[3]) PUT(s[4]) PUT(s[5])
    for (int i = 0; i < 4; i++) PUT(u[i])
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = lane; i < SUMS; i += TILE) {
        float sum = 0;
        for (int k = 0; k < TILE; k++) sum += shared[TILE * i + (k + lane) % TILE];
        out[get_group_id(0) * SUMS + i] = sum;
    }
}

// Each group adds every so many tiles' sums, with what is lost (Kahan); a work item per sum.
kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void total(global const float *tiles, global float *out, int count, global const double *state) {
    int part = get_group_id(0), i = get_local_id(0);
    if (i >= SUMS || state[DONE] != 0) return;
    float sum = 0, lost = 0;
    for (int tile = part; tile < count; tile += get_num_groups(0)) {
        float value = tiles[tile * SUMS + i] - lost, next = sum + value;
        lost = (next - sum) - value;
        sum = next;
    }
    out[part * SUMS + i] = sum;
}

// A x = b by Cholesky's decomposition, in place; b becomes x. False where A is all but singular.
bool solve(double a[8][8], double *b) {
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j <= i; j++) {
            double rest = a[j][i];
            for (int k = 0; k < j; k++) rest -= a[i][k] * a[j][k];
            if (i == j && !(rest > PIVOT * PIVOT)) return false;
            a[i][j] = i == j ? sqrt(rest) : rest / a[j][j];
        }
        for (int k = 0; k < i; k++) b[i] -= a[i][k] * b[k];
        b[i] /= a[i][i];
    }
    for (int i = 7; i >= 0; i--) {
        for (int k = i + 1; k < 8; k++) b[i] -= a[k][i] * b[k];
        b[i] /= a[i][i];
    }
    return true;
}

// One step: `state` from the sums of all tiles. share : tiles of the slice to those looked at.
kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void advance(global const float *sums, int count, global double *state, int width, int height,
          double share, double enough) {
    local double total[SUMS];
    int lane = get_local_id(0);
    if (state[DONE] != 0) return;
    if (lane < SUMS) {
        double sum = 0;
        for (int k = 0; k < count; k++) sum += sums[k * SUMS + lane];
        total[lane] = sum;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lane) return;
    double a[8][8], b[8], size[8], found = total[45], largest = 0;
    int n = 0;
    for (int i = 0; i < 8; i++)
        for (int j = i; j < 8; j++) a[i][j] = total[n++];
    for (int i = 0; i < 8; i++) size[i] = sqrt(a[i][i]);
    for (int i = 0; i < 8; i++) {
        b[i] = total[36 + i] / size[i];
        for (int j = i; j < 8; j++) a[i][j] /= size[i] * size[j];
    }
    bool tells = found >= FEWEST && solve(a, b);
    for (int i = 0; i < 8; i++) {
        b[i] /= size[i];
        tells = tells && isfinite(b[i]);
        if (i < 6) largest = fmax(largest, fabs(b[i]));
    }
    state[POINTS] = tells ? found * share : 0;
    if (!tells) {
        state[DONE] = 1;
        return;
    }
    state[CORRELATION] = 1 - total[46] / fmax(total[47] - total[48] / found * total[48], 1e-30);
    double cx = 0.5 * (width - 1), cy = 0.5 * (height - 1), moved[2][3], old[6];
    for (int i = 0; i < 6; i++) old[i] = state[i];
    for (int i = 0; i < 2; i++) {
        moved[i][0] = b[3 * i + 1] * 2 / width;
        moved[i][1] = b[3 * i + 2] * 2 / height;
        moved[i][2] = b[3 * i] - moved[i][0] * cx - moved[i][1] * cy;
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++)
            state[3 * i + j] += moved[i][j] + old[3 * i] * moved[0][j] + old[3 * i + 1] * moved[1][j];
    state[GAIN] += b[6];
    state[BIAS] += b[7];
    state[SCALE] = 1 / (RESIDUALS * fmax(sqrt(total[46] / found), 1e-12));
    state[STEP] += 1;
    state[DONE] = state[STEP] > 1 && largest < enough;
}
