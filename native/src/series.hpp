// Truncated products of Taylor series, one coefficient at a time. Sums run from the oldest operands to
// the newest, so that only the last multiply-add waits for the coefficient found just before.
#pragma once
#include "vec.hpp"

namespace NTG_NS {
namespace {

constexpr int MAX_ORDER = 64;       // of the loop at run time
constexpr int MAX_UNROLLED = 12;    // orders compiled one by one
constexpr int cap(int N) { return (N ? N : MAX_ORDER) + 1; }

// What backward needs beside the output: the slope's order 0 (its series is a polynomial of the
// output's), the slope's order 0 (it has no more), or the whole series.
enum Keep { KEEP_OUTPUT = 0, KEEP_STATIC = 1, KEEP_SLOPE = 2 };

// Series along a line, of order N (0: known at run time only); M: 1 if the argument is known to be of
// degree 1. A ring says how coefficients are combined; the recurrences of the rows are written in one.
template <int N, int M = 0> struct Line {
    static constexpr int capacity = cap(N);
    int order;

    NTG_INLINE int top() const { return N ? N : order; }
    // Whether a coefficient of the slope is needed by those of the output.
    NTG_INLINE bool inner(int k) const { return k < top(); }
    template <class Body> NTG_INLINE void each(Body body) const {
        const int n = top();
        NTG_UNROLL
        for (int k = 1; k <= n; k++) body(k);
    }

    template <class V> NTG_INLINE V convolve(const V* u, const V* v, int k) const {
        if (k == 0) return u[0] * v[0];
        V sum = u[k / 2] * v[k - k / 2];
        NTG_UNROLL
        for (int i = k / 2 - 1; i >= 1; i--) sum += u[i] * v[k - i] + u[k - i] * v[i];
        if (k % 2 && k > 1) sum += u[k - k / 2] * v[k / 2];
        if (k == 1) return sum + u[1] * v[0];
        sum += u[0] * v[k];
        return sum + u[k] * v[0];
    }

    template <class V> NTG_INLINE V square(const V* u, int k) const {
        if (k == 0) return u[0] * u[0];
        if (k == 1) return (u[0] + u[0]) * u[1];
        V sum = k > 2 ? u[(k - 1) / 2] * u[k - (k - 1) / 2] : V{};
        NTG_UNROLL
        for (int i = (k - 1) / 2 - 1; i >= 1; i--) sum += u[i] * u[k - i];
        sum = k > 2 ? sum + sum : sum;
        if (k % 2 == 0) sum += u[k / 2] * u[k / 2];
        return sum + (u[0] + u[0]) * u[k];
    }

    template <class V> NTG_INLINE void scale(const V* a, V* b) const {
        typedef decltype(a[0][0] + a[0][0]) T;
        const int n = top();
        b[0] = V{};
        NTG_UNROLL
        for (int j = 1; j <= n; j++) b[j] = a[j] * T(j);
    }

    // z_k of z' = p a', where b_j = j a_j vanishes past the degree. Only one multiply-add waits for p_{k-1}.
    template <class V> NTG_INLINE V advance(const V* b, const V* p, int k) const {
        typedef decltype(b[0][0] + b[0][0]) T;
        const T inverse = T(1) / T(k);
        const int last = M && M < k ? M : k;
        const V newest = b[1] * inverse;
        if (last == 1) return newest * p[k - 1];
        V sum = b[last] * p[k - last];
        NTG_UNROLL
        for (int j = last - 1; j >= 2; j--) sum += b[j] * p[k - j];
        return sum * inverse + newest * p[k - 1];
    }
};

}  // namespace
}  // namespace NTG_NS
