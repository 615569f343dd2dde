// Products in an algebra of Taylor coefficients that is given by a table: row b of u v is the sum of
// w u_c v_d over entries (c, d, w). The interpreter works on a few jets at once.
#pragma once
#include "vec.hpp"

namespace NTG_NS {
namespace {

constexpr int MAX_ROWS = 128;  // of an algebra
constexpr int PACK = 4;        // vectors for which an entry of the table is read once

template <class T> struct Pack {
    vec<T> v[PACK];
};
#define NTG_PACK_EACH \
    NTG_UNROLL \
    for (int i = 0; i < PACK; i++)
template <class T> NTG_INLINE Pack<T> operator+(Pack<T> a, const Pack<T>& b) {
    NTG_PACK_EACH a.v[i] += b.v[i];
    return a;
}
template <class T> NTG_INLINE Pack<T> operator*(Pack<T> a, const Pack<T>& b) {
    NTG_PACK_EACH a.v[i] *= b.v[i];
    return a;
}
template <class T> NTG_INLINE Pack<T> operator*(T a, Pack<T> b) {
    NTG_PACK_EACH b.v[i] *= a;
    return b;
}
template <class T> NTG_INLINE Pack<T> operator+(Pack<T> a, T b) {
    NTG_PACK_EACH a.v[i] += b;
    return a;
}
template <class T> NTG_INLINE Pack<T> operator+(T b, const Pack<T>& a) { return a + b; }

// The numbers that describe an algebra, as ntangent.jet.backends.tables writes them:
//   rows, rows of the network's argument, where six programs begin, where the grades begin, where the marks
//   of rows that the recurrences read of a slope begin.
// A program starts with the places of its rows' parts. A part is a count of runs; a run is a weight (the
// bits of a double), a count, and so many pairs c + 2^32 d.
enum { ADVANCE = 2, ADVANCE_FIRST, PRODUCT, SQUARE, ADJOINT, ADJOINT_FIRST, GRADES, MARKS };

template <class T> struct Table {
    typedef vec<T> V;
    static constexpr int capacity = MAX_ROWS;
    const int64_t *numbers, *advances, *adjoints;
    int rows;

    Table(const int64_t* n, long argument) : numbers(n), rows(int(n[0])) {
        const bool first = argument < rows;
        advances = n + n[first ? ADVANCE_FIRST : ADVANCE];
        adjoints = n + n[first ? ADJOINT_FIRST : ADJOINT];
    }
    NTG_INLINE bool inner(int k) const { return numbers[numbers[MARKS] + k] != 0; }
    template <class Body> NTG_INLINE void each(Body body) const {
        for (int k = 1; k < rows; k++) body(k);
    }
    Pack<T> convolve(const Pack<T>* u, const Pack<T>* v, int k) const { return sum(numbers + numbers[PRODUCT], u, v, k); }
    Pack<T> square(const Pack<T>* u, int k) const { return sum(numbers + numbers[SQUARE], u, u, k); }
    Pack<T> advance(const Pack<T>* b, const Pack<T>* p, int k) const { return sum(advances, b, p, k); }
    // Row k of the transpose of multiplication by s, applied to g.
    Pack<T> correlate(const Pack<T>* s, const Pack<T>* g, int k) const { return sum(adjoints, s, g, k); }
    void scale(const Pack<T>* a, Pack<T>* b) const {
        const int64_t* const grades = numbers + numbers[GRADES];
        for (int r = 0; r < rows; r++) b[r] = T(grades[r]) * a[r];
    }

  private:
    __attribute__((noinline)) Pack<T> sum(const int64_t* program, const Pack<T>* u, const Pack<T>* v, int k) const {
        const int64_t* at = numbers + program[k];
        Pack<T> total{};
        for (long runs = *at++; runs > 0; runs--) {
            double weight;
            std::memcpy(&weight, at++, sizeof weight);
            Pack<T> part{};
            for (long left = *at++; left > 0; left--, at++) {
                const Pack<T>&left_factor = u[uint32_t(*at)], &right_factor = v[*at >> 32];
                NTG_PACK_EACH part.v[i] += left_factor.v[i] * right_factor.v[i];
            }
            NTG_PACK_EACH total.v[i] += T(weight) * part.v[i];
        }
        return total;
    }
};

}  // namespace
}  // namespace NTG_NS
