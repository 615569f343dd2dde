// One activation applied to the jets of a block of points: forward, transposed (backward), tangent.
#pragma once
#include "algebra.hpp"
#include "rows.hpp"

namespace NTG_NS {
namespace {

// The coefficient of order k along direction d stands in row 1 + (k-1) D + d; a collapsed top coefficient
// in the row of the first direction. It enters linearly, so it may be booked on that direction alone.
// With a table the rows are those of an algebra.
struct Shape {
    int order, directions, collapsed;
    const int64_t* table;
    long rows() const {
        if (table) return table[0];
        return order == 0 ? 1 : 1 + (order - 1L) * directions + (collapsed ? 1 : directions);
    }
    // Of the argument of a network: the table knows its number of rows.
    long rows(int degree) const {
        return degree == order ? rows() : table ? table[1] : 1 + long(degree) * directions;
    }
    NTG_INLINE bool shared(long d) const { return collapsed && d > 0; }
};

inline const int64_t* table_at(int64_t address) { return reinterpret_cast<const int64_t*>(address); }

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
            if (a.shape.directions == 1 && a.degree >= (M ? M : N)) return forward_along_one(a);
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

    // A single line, its argument stored to the full: what short series cost beside their arithmetic is left out.
    static void forward_along_one(const Step<T>& a) {
        constexpr int degree = M ? M : N;
        const long z_rows = a.z_rows, rows = N + 1;
        for (long f = 0; f < a.features; f++) {
            const V* z = a.z + f * a.z_stride;
            V* y = a.y + f * a.y_stride;
            V* s = y + a.capacity * rows;
            const V shift = spread<T>(a.bias ? a.bias[f] : T(0));
            for (const V* const end = z + a.tiles * z_rows; z < end; z += z_rows, y += rows) {
                V arg[cap(N)], start[4], rate[4], value[cap(N)], slope[cap(N)];
                arg[0] = z[0] + shift;
                NTG_UNROLL
                for (int k = 1; k <= N; k++) arg[k] = k <= degree ? z[k] : V{};
                Row::start(arg[0], start, rate);
                Row::template series<V>(Line<N, M>{N}, arg, start, rate, value, slope);
                NTG_UNROLL
                for (int k = 0; k <= N; k++) y[k] = value[k];
                *s++ = slope[0];
                if (keep == KEEP_SLOPE) {
                    NTG_UNROLL
                    for (int k = 1; k <= N; k++) *s++ = slope[k];
                }
            }
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
        if constexpr (N > 0 && N < 4) {
            if (D == 1 && m == n) return backward_along_one(a);
        }
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

    static void backward_along_one(const Step<T>& a) {
        constexpr int rows = N + 1;
        for (long f = 0; f < a.features; f++) {
            const V *g = a.g + f * a.g_stride, *y = a.y + f * a.y_stride, *s = y + long(a.capacity) * rows;
            V* h = a.h + f * a.h_stride;
            for (const V* const end = g + long(a.tiles) * rows; g < end; g += rows, h += rows, y += rows) {
                V value[rows], slope[cap(N)], in[rows], out[rows];
                NTG_UNROLL
                for (int k = 0; k <= N; k++) in[k] = g[k], slope[k] = V{};
                slope[0] = *s++;
                if (keep == KEEP_SLOPE) {
                    NTG_UNROLL
                    for (int k = 1; k <= N; k++) slope[k] = *s++;
                } else if (keep == KEEP_OUTPUT) {
                    NTG_UNROLL
                    for (int k = 0; k <= N; k++) value[k] = y[k];
                    Row::template rebuild<V>(Line<N>{N}, value, slope[0], slope);
                }
                NTG_UNROLL
                for (int j = 0; j <= N; j++) out[j] = correlate(slope, in, j, N);
                NTG_UNROLL
                for (int j = 0; j <= N; j++) h[j] = out[j];
            }
        }
    }

    // h = s * g, truncated.
    static void tangent(const Step<T>& a) {
        const int n = N ? N : a.shape.order, D = a.shape.directions;
        for (int f = 0; f < a.features; f++)
            for (int t = 0; t < a.tiles; t++) {
                const V* g = a.g + f * a.g_stride + long(t) * a.z_rows;
                V* h = a.h + f * a.h_stride + long(t) * a.rows;
                V slope[cap(N)], in[cap(N)], out[cap(N)], sum = V{};
                in[0] = g[0];
                for (long d = 0; d < D; d++) {
                    fetch_slope(a, f, t, n, d, slope);
                    gather(a, g, n, d, a.degree, in);
                    NTG_UNROLL
                    for (int k = 0; k <= n; k++) out[k] = Line<N>{n}.convolve(slope, in, k);
                    scatter(a, h, n, d, out, sum);
                }
                finish(a, h, n, sum);
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
        V arg[cap(N)], value[cap(N)], slope[cap(N)], sum = V{}, slopes = V{};
        arg[0] = head;
        for (long d = 0; d < D; d++) {
            gather(a, z, n, d, M ? M : a.degree, arg);
            Row::template series<V>(Line<N, M>{n}, arg, start, rate, value, slope);
            if (d == 0) y[0] = value[0], s[0] = slope[0];
            scatter(a, y, n, d, value, sum);
            if (keep == KEEP_SLOPE) scatter(a, s, n, d, slope, slopes);
        }
        finish(a, y, n, sum);
        if (keep == KEEP_SLOPE) finish(a, s, n, slopes);
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
    // A collapsed top coefficient is summed in a register, and written by finish().
    static NTG_INLINE void scatter(const Step<T>& a, V* y, int n, long d, const V* value, V& sum) {
        const long D = a.shape.directions;
        V* row = y + 1 + d;
        NTG_UNROLL
        for (int k = 1; k < n; k++, row += D) *row = value[k];
        if (n == 0) return;
        if (a.shape.collapsed)
            sum += value[n];
        else
            *row = value[n];
    }
    static NTG_INLINE void finish(const Step<T>& a, V* y, int n, V sum) {
        if (n && a.shape.collapsed) y[1 + (n - 1L) * a.shape.directions] = sum;
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
            Row::template rebuild<V>(Line<N>{n}, value, keeps[t], slope);
        } else {
            slope[0] = keeps[t];
            NTG_UNROLL
            for (int k = 1; k <= n; k++) slope[k] = V{};
        }
    }
};

// The same for the rows of an algebra: a few jets side by side, so that every entry of the table is read
// once for all of them.
template <class T, class Row> struct TableKernel {
    typedef vec<T> V;
    typedef Pack<T> P;
    static constexpr Keep keep = Row::keep;

    static void forward(const Step<T>& a) {
        const Table<T> ring(a.shape.table, a.z_rows);
        P arg[MAX_ROWS], value[MAX_ROWS], slope[MAX_ROWS], start[4], rate[4];
        for (int r = a.z_rows; r < a.rows; r++) arg[r] = P{};
        for_packs(a, [&](const long* f, const long* t, int size) NTG_LAMBDA {
            for (int i = 0; i < PACK; i++) {
                get(a.z + f[i] * a.z_stride + t[i] * a.z_rows, a.z_rows, i, arg);
                arg[0].v[i] += a.bias ? a.bias[f[i]] : T(0);
            }
            for (int i = 0; i < PACK; i++) {
                V states[4], rates[4];
                Row::start(arg[0].v[i], states, rates);
                for (int j = 0; j < Row::states; j++) start[j].v[i] = states[j], rate[j].v[i] = rates[j];
            }
            Row::template series<P>(ring, arg, start, rate, value, slope);
            for (int i = 0; i < size; i++) {
                V* const y = a.y + f[i] * a.y_stride;
                put(value, a.rows, i, y + t[i] * a.rows);
                put(slope, keep == KEEP_SLOPE ? a.rows : 1, i, kept(a, y, t[i]));
            }
        });
    }

    static void backward(const Step<T>& a) {
        const Table<T> ring(a.shape.table, a.z_rows);
        P in[MAX_ROWS], slope[MAX_ROWS], out[MAX_ROWS];
        for_packs(a, [&](const long* f, const long* t, int size) NTG_LAMBDA {
            fetch_slope(a, ring, f, t, slope);
            for (int i = 0; i < PACK; i++) get(a.g + f[i] * a.g_stride + t[i] * a.rows, a.rows, i, in);
            for (int r = 0; r < a.z_rows; r++) out[r] = keep == KEEP_STATIC ? slope[0] * in[r] : ring.correlate(slope, in, r);
            for (int i = 0; i < size; i++) put(out, a.z_rows, i, a.h + f[i] * a.h_stride + t[i] * a.z_rows);
        });
    }

    static void tangent(const Step<T>& a) {
        const Table<T> ring(a.shape.table, a.z_rows);
        P in[MAX_ROWS], slope[MAX_ROWS], out[MAX_ROWS];
        for (int r = a.z_rows; r < a.rows; r++) in[r] = P{};
        for_packs(a, [&](const long* f, const long* t, int size) NTG_LAMBDA {
            fetch_slope(a, ring, f, t, slope);
            for (int i = 0; i < PACK; i++) get(a.g + f[i] * a.g_stride + t[i] * a.z_rows, a.z_rows, i, in);
            for (int r = 0; r < a.rows; r++) out[r] = keep == KEEP_STATIC ? slope[0] * in[r] : ring.convolve(slope, in, r);
            for (int i = 0; i < size; i++) put(out, a.rows, i, a.h + f[i] * a.h_stride + t[i] * a.rows);
        });
    }

  private:
    // Calls body(features, tiles, size) for every PACK jets; the last pack repeats its last jet.
    template <class Body> static NTG_INLINE void for_packs(const Step<T>& a, Body body) {
        long f[PACK], t[PACK], feature = 0, tile = 0;
        while (feature < a.features) {
            int size = 0;
            for (; size < PACK && feature < a.features; size++) {
                f[size] = feature, t[size] = tile;
                if (++tile == a.tiles) tile = 0, feature++;
            }
            for (int i = size; i < PACK; i++) f[i] = f[size - 1], t[i] = t[size - 1];
            body(f, t, size);
        }
    }
    static NTG_INLINE void get(const V* from, int rows, int i, P* to) {
        for (int r = 0; r < rows; r++) to[r].v[i] = from[r];
    }
    static NTG_INLINE void put(const P* from, int rows, int i, V* to) {
        for (int r = 0; r < rows; r++) to[r] = from[r].v[i];
    }
    static NTG_INLINE V* kept(const Step<T>& a, V* y, long t) {
        return y + long(a.capacity) * a.rows + (keep == KEEP_SLOPE ? t * a.rows : t);
    }
    static NTG_INLINE void fetch_slope(const Step<T>& a, const Table<T>& ring, const long* f, const long* t, P* slope) {
        P value[MAX_ROWS];
        for (int i = 0; i < PACK; i++) {
            V* const y = a.y + f[i] * a.y_stride;
            if (keep == KEEP_OUTPUT) get(y + t[i] * a.rows, a.rows, i, value);
            get(kept(a, y, t[i]), keep == KEEP_SLOPE ? a.rows : 1, i, slope);
        }
        if constexpr (keep == KEEP_OUTPUT) Row::template rebuild<P>(ring, value, slope[0], slope);
    }
};

// Rows that keep the slope share one backward pass.
template <class T, Keep K> struct Stored {
    static constexpr Keep keep = K;
    template <class W, class Ring> static NTG_INLINE void rebuild(const Ring&, const W*, W, W*) {}
};

template <class T> struct Entry {
    typedef void (*Function)(const Step<T>&);
    const char* signature;
    Keep keep;
    Function line[MAX_UNROLLED + 1];  // forward, for an argument of degree 1
    Function forward[MAX_UNROLLED + 1], backward[MAX_UNROLLED + 1], tangent[MAX_UNROLLED + 1];
    Function table_forward, table_backward, table_tangent;
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
    Entry<T> e{Row<T>::signature, Row<T>::keep, {}, {}, {}, {}, TableKernel<T, Row<T>>::forward, nullptr, nullptr};
    fill<T, Row, MAX_UNROLLED>(e);
    if constexpr (Row<T>::keep == KEEP_OUTPUT) {
        e.table_backward = TableKernel<T, Row<T>>::backward, e.table_tangent = TableKernel<T, Row<T>>::tangent;
    } else {
        typedef TableKernel<T, Stored<T, Row<T>::keep>> Shared;
        e.table_backward = Shared::backward, e.table_tangent = Shared::tangent;
    }
    return e;
}
#define NTG_ENTRY(i) entry<T, Row##i>(),
template <class T> const Entry<T>& row_entry(long i) {
    static const Entry<T> table[] = {NTG_EACH_ROW(NTG_ENTRY)};
    return table[i];
}
inline int unrolled(int order) { return order <= MAX_UNROLLED ? order : 0; }
template <class T> void apply_forward(const Entry<T>& e, const Step<T>& s) {
    if (s.shape.table) return e.table_forward(s);
    (s.degree == 1 ? e.line : e.forward)[unrolled(s.shape.order)](s);
}
template <class T> void apply_backward(const Entry<T>& e, const Step<T>& s) {
    (s.shape.table ? e.table_backward : e.backward[unrolled(s.shape.order)])(s);
}
template <class T> void apply_tangent(const Entry<T>& e, const Step<T>& s) {
    (s.shape.table ? e.table_tangent : e.tangent[unrolled(s.shape.order)])(s);
}

}  // namespace
}  // namespace NTG_NS
