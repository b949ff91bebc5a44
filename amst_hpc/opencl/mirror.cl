// Images are (y, x), rows one after another.

int mirror(int i, int n) {  // ... 2 1 | 0 1 2 ... n-2 n-1 | n-2 ...
    int period = n > 1 ? 2 * n - 2 : 1;
    i = abs(i) % period;
    return i < n ? i : period - i;
}
