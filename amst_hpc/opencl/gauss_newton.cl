// Normal equations of the affine + gain + bias registration of two images, summed over tiles.
//
// Both images are cubic B-spline coefficients; NaN marks pixels that do not count. The fixed image
// is looked at on its pixels, the moving one at M p; `margin` pixels at the border do not count. One work group per tile of TILE x TILE pixels,
// a work item per column. Sums of a tile: the upper triangle of the 8x8 matrix (36), the right side
// (8), weighted squares, count, squares of the residual, squares of the fixed image.

#define TILE 64
#define SUMS 48

float4 spline(float u) {
    float v = 1 - u;
    return (float4)(v * v * v / 6, 2.0f / 3 - u * u * (2 - u) / 2, 2.0f / 3 - v * v * (2 - v) / 2, u * u * u / 6);
}

float4 slope(float u) {
    float v = 1 - u;
    return (float4)(-v * v / 2, u * (1.5f * u - 2), -v * (1.5f * v - 2), u * u / 2);
}

kernel __attribute__((reqd_work_group_size(TILE, 1, 1)))
void normal_equations(global const float *fixed, global const float *moving, int width, int height,
                      int margin, global const int *tiles, float8 m, float4 photometry,
                      global float *out) {
    int lane = get_local_id(0), across = (width + TILE - 1) / TILE, tile = tiles[get_group_id(0)];
    int x = tile % across * TILE + lane, top = tile / across * TILE;
    float gain = photometry.x, bias = photometry.y, scale = photometry.z;
    local float shared[SUMS * TILE];
    float sums[SUMS];
    #pragma unroll
    for (int i = 0; i < SUMS; i++) sums[i] = 0;
    if (x >= margin && x < width - margin) {
        float xi = (x - 0.5f * (width - 1)) / (0.5f * width);
        for (int y = max(top, margin); y < min(top + TILE, height - margin); y++) {
            global const float *c = fixed + y * width + x;
            float f = (4 * (4 * c[0] + c[1] + c[-1] + c[width] + c[-width])
                       + c[1 + width] + c[1 - width] + c[-1 + width] + c[-1 - width]) / 36;
            float fx = (4 * (c[1] - c[-1]) + c[1 + width] - c[-1 + width] + c[1 - width] - c[-1 - width]) / 12;
            float fy = (4 * (c[width] - c[-width]) + c[width + 1] - c[1 - width] + c[width - 1] - c[-1 - width]) / 12;
            float qx = m.s0 * x + m.s1 * y + m.s2, qy = m.s3 * x + m.s4 * y + m.s5;
            int ix = (int)floor(qx), iy = (int)floor(qy);
            if (ix < margin || iy < margin || ix >= width - 1 - margin || iy >= height - 1 - margin) continue;
            float4 wx = spline(qx - ix), wy = spline(qy - iy), dx = slope(qx - ix), dy = slope(qy - iy);
            global const float *r = moving + (iy - 1) * width + ix - 1;
            float4 r0 = vload4(0, r), r1 = vload4(0, r + width), r2 = vload4(0, r + 2 * width), r3 = vload4(0, r + 3 * width);
            float4 rows = (float4)(dot(wx, r0), dot(wx, r1), dot(wx, r2), dot(wx, r3));
            float4 slopes = (float4)(dot(dx, r0), dot(dx, r1), dot(dx, r2), dot(dx, r3));
            float value = dot(wy, rows), rx = dot(wy, slopes), ry = dot(dy, rows);
            float rest = f - (gain * value + bias);
            if (isnan(rest)) continue;
            float gx = 0.5f * (gain * (m.s0 * rx + m.s3 * ry) + fx);
            float gy = 0.5f * (gain * (m.s1 * rx + m.s4 * ry) + fy);
            if (isnan(gx + gy)) continue;
            float eta = (y - 0.5f * (height - 1)) / (0.5f * height);
            float j[8] = {gx, gx * xi, gx * eta, gy, gy * xi, gy * eta, value, 1};
            float q = rest * scale, weight = 1 / (1 + q * q);
            weight *= weight;
            int n = 0;
            #pragma unroll
            for (int a = 0; a < 8; a++)
                #pragma unroll
                for (int b = a; b < 8; b++) sums[n++] += weight * j[a] * j[b];
            #pragma unroll
            for (int a = 0; a < 8; a++) sums[36 + a] += weight * j[a] * rest;
            sums[44] += weight * rest * rest;
            sums[45] += 1;
            sums[46] += rest * rest;
            sums[47] += f * f;
        }
    }
    #pragma unroll
    for (int i = 0; i < SUMS; i++) shared[i * TILE + lane] = sums[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lane < SUMS) {
        float sum = 0;
        for (int i = 0; i < TILE; i++) sum += shared[lane * TILE + (i + lane) % TILE];
        out[get_group_id(0) * SUMS + lane] = sum;
    }
}

kernel void add_scaled(global float *sum, global const float *term, float factor, int first, uint size) {
    uint p = get_global_id(0);
    if (p < size) sum[p] = (first ? 0 : sum[p]) + factor * term[p];
}
