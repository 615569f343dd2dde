// One activation applied to the jets of a block of points: forward, transposed (backward), tangent.
#pragma once
#include "rows.hpp"

namespace NTG_NS {
namespace {

// The coefficient of order k along direction d stands in row 1 + (k-1) D + d; a collapsed top coefficient
// in the row of the first direction. It enters linearly, so it may be booked on that direction alone.
struct Shape {
    int order, directions, collapsed;
    long rows() const { return order == 0 ? 1 : 1 + (order - 1L) * directions + (collapsed ? 1 : directions); }
    long rows(int degree) const { return degree == order ? rows() : 1 + long(degree) * directions; }
    NTG_INLINE bool shared(long d) const { return collapsed && d > 0; }
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

// N: the order, or 0 for one known at run time only. M: 1 if the argument is known to be of degree 1.
template <class T, class Row, int N, int M = 0> struct Kernel {
    typedef vec<T> V;
    static constexpr Keep keep = Row::keep;

    static void forward(const Step<T>& a) {
        if constexpr (N > 0 && N < 4) {
            for (long f = 0; f < a.features; f++)
                for (long t = 0; t < a.tiles; t++) {
                    V start[4], rate[4];
                    const V head = a.z[f * a.z_stride + t * a.z_rows] + (a.bias ? a.bias[f] : T(0));
                    Row::start(head, start, rate);
                    jet(a, f, t, head, start, rate);
                }
        } else {
            forward_in_groups(a);
        }
    }

    // The initial states of several jets are found first: their long chains of dependent instructions
    // overlap, which they do not with a long recurrence between them.
    static void forward_in_groups(const Step<T>& a) {
        constexpr int GROUP = 16;
        V arg[GROUP], start[GROUP][4], rate[GROUP][4];
        const long count = long(a.features) * a.tiles;
        for (long first = 0; first < count; first += GROUP) {
            const int size = int(count - first < GROUP ? count - first : GROUP);
            long f = first / a.tiles, t = first % a.tiles;
            for (int i = 0; i < size; i++) {
                arg[i] = a.z[f * a.z_stride + t * a.z_rows] + (a.bias ? a.bias[f] : T(0));
                Row::start(arg[i], start[i], rate[i]);
                if (++t == a.tiles) t = 0, f++;
            }
            f = first / a.tiles, t = first % a.tiles;
            for (int i = 0; i < size; i++) {
                jet(a, f, t, arg[i], start[i], rate[i]);
                if (++t == a.tiles) t = 0, f++;
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
                V slope[cap(N)], in[cap(N)], out[cap(N)];
                V head = V{};
                for (long d = 0; d < D; d++) {
                    fetch_slope(a, f, t, n, d, slope);
                    if (d == 0) head = slope[0] * g[0];
                    gather(a, g, n, d, n, in);
                    if (a.shape.shared(d)) in[n] = g[1 + (n - 1L) * D];
                    NTG_UNROLL
                    for (int k = 1; k <= n; k++) head += slope[k] * in[k];
                    if (N && m == n) {
                        NTG_UNROLL
                        for (int j = 1; j <= n; j++) out[j] = correlate(slope, in, j, n);
                        const int top = a.shape.shared(d) ? n - 1 : n;
                        NTG_UNROLL
                        for (int j = 1; j < n; j++) h[1 + (j - 1L) * D + d] = out[j];
                        if (top == n) h[1 + (n - 1L) * D + d] = out[n];
                    } else {
                        const int top = a.shape.shared(d) && m == n ? n - 1 : m;
                        for (int j = 1; j <= top; j++) h[1 + (j - 1L) * D + d] = correlate(slope, in, j, n);
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
                for (long d = 0; d < D; d++) {
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
    static NTG_INLINE void jet(const Step<T>& a, long f, long t, V head, const V* start, const V* rate) {
        const int n = N ? N : a.shape.order, D = a.shape.directions;
        const V* z = a.z + f * a.z_stride + t * a.z_rows;
        V* y = a.y + f * a.y_stride + t * a.rows;
        V* const keeps = a.y + f * a.y_stride + long(a.capacity) * a.rows;
        V* s = keep == KEEP_SLOPE ? keeps + t * a.rows : keeps + t;
        V arg[cap(N)], value[cap(N)], slope[cap(N)];
        arg[0] = head;
        for (long d = 0; d < D; d++) {
            gather(a, z, n, d, M ? M : a.degree, arg);
            Row::template series<N, M>(n, arg, start, rate, value, slope);
            if (d == 0) y[0] = value[0], s[0] = slope[0];
            scatter(a, y, n, d, value);
            if (keep == KEEP_SLOPE) scatter(a, s, n, d, slope);
        }
    }
    static NTG_INLINE V correlate(const V* s, const V* g, int j, int n) {
        V sum = s[0] * g[j];
        NTG_UNROLL
        for (int k = j + 1; k <= n; k++) sum += s[k - j] * g[k];
        return sum;
    }
    static NTG_INLINE void gather(const Step<T>& a, const V* z, int n, long d, int degree, V* out) {
        const long D = a.shape.directions;
        const V* row = z + 1 + d;
        if (degree >= n) {
            NTG_UNROLL
            for (int k = 1; k < n; k++, row += D) out[k] = *row;
            if (n > 0) out[n] = a.shape.shared(d) ? V{} : *row;
        } else {
            NTG_UNROLL
            for (int k = 1; k <= n; k++, row += D) out[k] = k <= degree ? *row : V{};
        }
    }
    static NTG_INLINE void scatter(const Step<T>& a, V* y, int n, long d, const V* value) {
        const long D = a.shape.directions;
        V* row = y + 1 + d;
        NTG_UNROLL
        for (int k = 1; k < n; k++, row += D) *row = value[k];
        if (n == 0) return;
        if (a.shape.shared(d))
            row[-d] += value[n];
        else
            *row = value[n];
    }
    static NTG_INLINE void fetch_slope(const Step<T>& a, int f, int t, int n, long d, V* slope) {
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
    Function line[MAX_UNROLLED + 1];  // forward, for an argument of degree 1
    Function forward[MAX_UNROLLED + 1], backward[MAX_UNROLLED + 1], tangent[MAX_UNROLLED + 1];
};

template <class T, template <class> class Row, int N> constexpr void fill(Entry<T>& e) {
    typedef Row<T> R;
    constexpr Keep keep = R::keep;
    constexpr int M = R::unrolled ? N : 0;
    e.forward[N] = Kernel<T, R, M>::forward;
    e.line[N] = Kernel<T, R, M, (M > 1 ? 1 : 0)>::forward;
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
    Entry<T> e{Row<T>::signature, Row<T>::keep, {}, {}, {}, {}};
    fill<T, Row, MAX_UNROLLED>(e);
    return e;
}
#define NTG_ENTRY(i) entry<T, Row##i>(),
template <class T> const Entry<T>& row_entry(long i) {
    static const Entry<T> table[] = {NTG_EACH_ROW(NTG_ENTRY)};
    return table[i];
}
inline int unrolled(int order) { return order <= MAX_UNROLLED ? order : 0; }
template <class T> void apply_forward(const Entry<T>& e, const Step<T>& s, int order) {
    const int n = unrolled(order);
    (s.degree == 1 ? e.line : e.forward)[n](s);
}

}  // namespace
}  // namespace NTG_NS
