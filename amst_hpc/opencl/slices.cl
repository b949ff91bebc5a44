// What a GPU does to a slice before its pairs; see gauss_newton.py.

// Blocks averaged down, counted from `mean`.
#define LOAD(T)                                                                                 \
    kernel void load_##T(global const T *in, global float *out, int factor, int in_width,       \
                         int width, int height, float mean) {                                   \
        int x = get_global_id(0), y = get_global_id(1);                                         \
        if (x >= width || y >= height) return;                                                  \
        float sum = 0;                                                                          \
        for (int j = 0; j < factor; j++)                                                        \
            for (int i = 0; i < factor; i++)                                                    \
                sum += in[((size_t)y * factor + j) * in_width + x * factor + i];                \
        out[(size_t)y * width + x] = sum / (factor * factor) - mean;                            \
    }
LOAD(uchar)
LOAD(ushort)
LOAD(float)

// 1 where any pixel of a block of factor x factor is.
kernel void any_of(global const uchar *in, global uchar *out, int factor, int in_width, int width,
                   int height) {
    int x = get_global_id(0), y = get_global_id(1);
    if (x >= width || y >= height) return;
    uchar found = 0;
    for (int j = 0; j < factor; j++)
        for (int i = 0; i < factor; i++)
            found |= in[((size_t)y * factor + j) * in_width + x * factor + i];
    out[(size_t)y * width + x] = found;
}

// 1 where a pixel is not black.
kernel void light(global const float *in, global uchar *out, float black, int width, int height) {
    int x = get_global_id(0), y = get_global_id(1);
    if (x < width && y < height) out[(size_t)y * width + x] = in[(size_t)y * width + x] != black;
}

// 1 where any pixel within `radius` along one axis is, then turned if `turn`.
kernel void spread(global const uchar *in, global uchar *out, int radius, int along_y, int turn,
                   int width, int height) {
    int x = get_global_id(0), y = get_global_id(1);
    if (x >= width || y >= height) return;
    int i = along_y ? y : x, last = (along_y ? height : width) - 1;
    size_t stride = along_y ? width : 1, start = (size_t)y * width + x - i * stride;
    uchar found = 0;
    for (int k = max(i - radius, 0); k <= min(i + radius, last); k++) found |= in[start + k * stride];
    out[(size_t)y * width + x] = turn ? !found : found;
}

kernel void put(global float *image, global const uchar *where, float value, int width, int height) {
    int x = get_global_id(0), y = get_global_id(1);
    if (x < width && y < height && where[(size_t)y * width + x]) image[(size_t)y * width + x] = value;
}

// A symmetric window along x; half of it in `taps`, from its middle.
kernel void rows(global const float *in, global float *out, constant float *taps, int radius,
                 int width, int height) {
    int x = get_global_id(0), y = get_global_id(1);
    if (x >= width || y >= height) return;
    global const float *row = in + (size_t)y * width;
    float sum = taps[0] * row[x];
    if (x >= radius && x + radius < width)
        for (int k = 1; k <= radius; k++) sum += taps[k] * (row[x - k] + row[x + k]);
    else
        for (int k = 1; k <= radius; k++)
            sum += taps[k] * (row[mirror(x - k, width)] + row[mirror(x + k, width)]);
    out[(size_t)y * width + x] = sum;
}

// The same along y, times `factor`, added to what is there if `add`.
kernel void columns(global const float *in, global float *out, constant float *taps, int radius,
                    float factor, int add, int width, int height) {
    int x = get_global_id(0), y = get_global_id(1);
    if (x >= width || y >= height) return;
    global const float *p = in + (size_t)y * width + x;
    float sum = taps[0] * p[0];
    if (y >= radius && y + radius < height)
        for (int k = 1; k <= radius; k++) sum += taps[k] * (p[-(long)k * width] + p[(long)k * width]);
    else
        for (int k = 1; k <= radius; k++)
            sum += taps[k] * (in[(size_t)mirror(y - k, height) * width + x] + in[(size_t)mirror(y + k, height) * width + x]);
    global float *to = out + (size_t)y * width + x;
    *to = (add ? *to : 0) + factor * sum;
}
