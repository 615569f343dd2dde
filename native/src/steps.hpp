// One activation applied to the jets of a block of points: forward, transposed (backward), tangent.
#pragma once
#include "rows.hpp"

namespace NTG_NS {
namespace {

// Where the coefficient of order k along direction d stands among the rows of a jet.
struct Shape {
    int order, directions, collapsed;
    NTG_INLINE int at(int k, int d) const {
        if (k == 0) return 0;
        return 1 + (k - 1) * directions + (collapsed && k == order ? 0 : d);
    }
    int rows() const { return order == 0 ? 1 : 1 + (order - 1) * directions + (collapsed ? 1 : directions); }
    int rows(int degree) const { return degree == order ? rows() : 1 + degree * directions; }
    // The collapsed top coefficient enters linearly, so it may be booked on the first direction alone.
    NTG_INLINE bool elsewhere(int k, int d) const { return collapsed && k == order && d > 0; }
};

// Features x tiles of jets. A feature of `y` holds tiles*rows coefficients, then (see Keep) what the
// backward pass needs of the slope. Strides count vectors.
template <class T> struct Step {
    typedef vec<T> V;
    Shape shape;
    int rows, features, tiles, capacity;  // capacity: tiles that a full block has
    const V* z;                           // arguments of `degree`, tile stride `z_rows`
    long z_stride;
    int z_rows, degree;
    V* y;
    long y_stride;
    const T* bias;
    const V* g;  // cotangent (backward), or tangent of the argument
    long g_stride;
    V* h;  // cotangent of the argument (tile stride z_rows, degree), or tangent of the output
    long h_stride;
};

template <class T, class Row, int N> struct Kernel {
    typedef vec<T> V;
    static constexpr Keep keep = Row::keep;

    static void forward(const Step<T>& a) {
        const int n = N ? N : a.shape.order, D = a.shape.directions;
        for (int f = 0; f < a.features; f++) {
            const T bias = a.bias ? a.bias[f] : T(0);
            V* const keeps = a.y + f * a.y_stride + long(a.capacity) * a.rows;
            for (int t = 0; t < a.tiles; t++) {
                const V* z = a.z + f * a.z_stride + long(t) * a.z_rows;
                V* y = a.y + f * a.y_stride + long(t) * a.rows;
                V* s = keep == KEEP_SLOPE ? keeps + long(t) * a.rows : keeps + t;
                V arg[cap(N)], value[cap(N)], slope[cap(N)], start[4], rate[4];
                arg[0] = z[0] + bias;
                Row::start(arg[0], start, rate, nullptr);
                for (int d = 0; d < D; d++) {
                    gather(a, z, n, d, a.degree, arg);
                    Row::template series<N>(n, arg, start, rate, value, slope, nullptr);
                    if (d == 0) y[0] = value[0], s[0] = slope[0];
                    scatter(a, y, n, d, value);
                    if (keep == KEEP_SLOPE) scatter(a, s, n, d, slope);
                }
            }
        }
    }

    // h_j = sum over k >= j of s_{k-j} g_k.
    static void backward(const Step<T>& a) {
        const int n = N ? N : a.shape.order, D = a.shape.directions, m = a.degree < n ? a.degree : n;
        for (int f = 0; f < a.features; f++)
            for (int t = 0; t < a.tiles; t++) {
                const V* g = a.g + f * a.g_stride + long(t) * a.rows;
                V* h = a.h + f * a.h_stride + long(t) * a.z_rows;
                V slope[cap(N)], in[cap(N)];
                V head = V{};
                for (int d = 0; d < D; d++) {
                    fetch_slope(a, f, t, n, d, slope);
                    if (d == 0) head = slope[0] * g[0];
                    NTG_UNROLL
                    for (int k = 1; k <= n; k++) in[k] = g[a.shape.at(k, d)];
                    NTG_UNROLL
                    for (int k = 1; k <= n; k++) head += slope[k] * in[k];
                    if (N && m == n) {
                        NTG_UNROLL
                        for (int j = 1; j <= n; j++) h[a.shape.at(j, d)] = correlate(slope, in, j, n);
                    } else {
                        for (int j = 1; j <= m; j++) h[a.shape.at(j, d)] = correlate(slope, in, j, n);
                    }
                }
                h[0] = head;
            }
    }

    // h = s * g, truncated.
    static void tangent(const Step<T>& a) {
        const int n = N ? N : a.shape.order, D = a.shape.directions;
        for (int f = 0; f < a.features; f++)
            for (int t = 0; t < a.tiles; t++) {
                const V* g = a.g + f * a.g_stride + long(t) * a.z_rows;
                V* h = a.h + f * a.h_stride + long(t) * a.rows;
                V slope[cap(N)], in[cap(N)], out[cap(N)];
                in[0] = g[0];
                for (int d = 0; d < D; d++) {
                    fetch_slope(a, f, t, n, d, slope);
                    gather(a, g, n, d, a.degree, in);
                    NTG_UNROLL
                    for (int k = 0; k <= n; k++) out[k] = convolve(slope, in, k);
                    scatter(a, h, n, d, out);
                }
                h[0] = out[0];
            }
    }

  private:
    static NTG_INLINE V correlate(const V* s, const V* g, int j, int n) {
        V sum = s[0] * g[j];
        NTG_UNROLL
        for (int k = j + 1; k <= n; k++) sum += s[k - j] * g[k];
        return sum;
    }
    static NTG_INLINE void gather(const Step<T>& a, const V* z, int n, int d, int degree, V* out) {
        if (degree >= n) {
            NTG_UNROLL
            for (int k = 1; k <= n; k++) out[k] = a.shape.elsewhere(k, d) ? V{} : z[a.shape.at(k, d)];
        } else {
            NTG_UNROLL
            for (int k = 1; k <= n; k++) out[k] = k <= degree ? z[a.shape.at(k, d)] : V{};
        }
    }
    static NTG_INLINE void scatter(const Step<T>& a, V* y, int n, int d, const V* value) {
        NTG_UNROLL
        for (int k = 1; k <= n; k++) {
            V* const to = y + a.shape.at(k, d);
            *to = a.shape.elsewhere(k, d) ? *to + value[k] : value[k];
        }
    }
    static NTG_INLINE void fetch_slope(const Step<T>& a, int f, int t, int n, int d, V* slope) {
        const V* y = a.y + f * a.y_stride + long(t) * a.rows;
        const V* keeps = a.y + f * a.y_stride + long(a.capacity) * a.rows;
        if (keep == KEEP_SLOPE) {
            const V* s = keeps + long(t) * a.rows;
            slope[0] = s[0];
            gather(a, s, n, d, n, slope);
        } else if (keep == KEEP_OUTPUT) {
            V value[cap(N)];
            value[0] = y[0];
            gather(a, y, n, d, n, value);
            Row::template rebuild<N>(n, value, keeps[t], slope);
        } else {
            slope[0] = keeps[t];
            NTG_UNROLL
            for (int k = 1; k <= n; k++) slope[k] = V{};
        }
    }
};

// Rows that keep the slope share one backward pass.
template <class T, Keep K> struct Stored {
    static constexpr Keep keep = K;
    template <int N> static NTG_INLINE void rebuild(int, const vec<T>*, vec<T>, vec<T>*) {}
};

template <class T> struct Entry {
    typedef void (*Function)(const Step<T>&);
    const char* signature;
    Keep keep;
    Function forward[MAX_UNROLLED + 1], backward[MAX_UNROLLED + 1], tangent[MAX_UNROLLED + 1];
};

template <class T, template <class> class Row, int N> constexpr void fill(Entry<T>& e) {
    typedef Row<T> R;
    constexpr Keep keep = R::keep;
    constexpr int M = R::unrolled ? N : 0;
    e.forward[N] = Kernel<T, R, M>::forward;
    if constexpr (keep == KEEP_OUTPUT) {
        e.backward[N] = Kernel<T, R, M>::backward;
        e.tangent[N] = Kernel<T, R, M>::tangent;
    } else {
        constexpr int S = keep == KEEP_SLOPE ? N : 0;
        e.backward[N] = Kernel<T, Stored<T, keep>, S>::backward;
        e.tangent[N] = Kernel<T, Stored<T, keep>, S>::tangent;
    }
    if constexpr (N > 0) fill<T, Row, N - 1>(e);
}
template <class T, template <class> class Row> constexpr Entry<T> entry() {
    Entry<T> e{Row<T>::signature, Row<T>::keep, {}, {}, {}};
    fill<T, Row, MAX_UNROLLED>(e);
    return e;
}
#define NTG_ENTRY(i) entry<T, Row##i>(),
template <class T> const Entry<T>& row_entry(long i) {
    static const Entry<T> table[] = {NTG_EACH_ROW(NTG_ENTRY)};
    return table[i];
}
inline int unrolled(int order) { return order <= MAX_UNROLLED ? order : 0; }

}  // namespace
}  // namespace NTG_NS
