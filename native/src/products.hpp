// The two matrix products of a block: weights times jets, and cotangents times jets summed over points.
#pragma once
#include "vec.hpp"

// In registers: PANEL output features times the rows of jets of a product; features of cotangents of an outer one.
#if NTG_VBYTES == 64 || defined(__aarch64__)
#define NTG_REGISTERS 24
#define NTG_PANEL 8
#define NTG_OUTER 3
#else
#define NTG_REGISTERS 12
#define NTG_PANEL 4
#define NTG_OUTER 1
#endif

namespace NTG_NS {
namespace {

constexpr int PANEL = NTG_PANEL, MOST_ROWS = 12;
// Few features leave registers to more rows: independent sums hide the latency of a multiply-add.
constexpr int rows_beside(int height) {
    return NTG_REGISTERS / height < MOST_ROWS ? NTG_REGISTERS / height : MOST_ROWS;
}

// Copies a matrix so that PANEL rows of it are read together. `panels` has out*in entries.
template <class T> void pack(const T* w, long out, long in, long row_step, long column_step, T* panels) {
    for (long o = 0; o < out; o += PANEL) {
        const long width = out - o < PANEL ? out - o : PANEL;
        for (long i = 0; i < in; i++)
            for (long p = 0; p < width; p++) *panels++ = w[(o + p) * row_step + i * column_step];
    }
}

template <class T, int OB, int KB>
void product_block(const T* panel, long in, const vec<T>* y, long y_stride, vec<T>* z, long z_stride, bool add) {
    typedef vec<T> V;
    V acc[OB][KB];
    NTG_UNROLL
    for (int p = 0; p < OB; p++) NTG_UNROLL
        for (int q = 0; q < KB; q++) acc[p][q] = add ? z[p * z_stride + q] : V{};
    for (long i = 0; i < in; i++, y += y_stride, panel += OB) {
        V row[KB];
        NTG_UNROLL
        for (int q = 0; q < KB; q++) row[q] = y[q];
        NTG_UNROLL
        for (int p = 0; p < OB; p++) {
            const V w = spread<T>(panel[p]);
            NTG_UNROLL
            for (int q = 0; q < KB; q++) acc[p][q] += w * row[q];
        }
    }
    NTG_UNROLL
    for (int p = 0; p < OB; p++) NTG_UNROLL
        for (int q = 0; q < KB; q++) z[p * z_stride + q] = acc[p][q];
}

template <class T> using ProductBlock = void (*)(const T*, long, const vec<T>*, long, vec<T>*, long, bool);
template <class T> struct ProductTable {
    ProductBlock<T> of[PANEL][MOST_ROWS];
    constexpr ProductTable() : of{} { fill<1, 1>(); }
    template <int OB, int KB> constexpr void fill() {
        of[OB - 1][KB - 1] = product_block<T, OB, KB>;
        if constexpr (KB < rows_beside(OB)) fill<OB, KB + 1>();
        else if constexpr (OB < PANEL) fill<OB + 1, 1>();
    }
};

// z[o][r] (+)= sum_i w[o][i] y[i][r].
template <class T>
void product(const T* panels, long out, long in, const vec<T>* y, long y_stride, long rows, vec<T>* z,
             long z_stride, bool add = false) {
    static constexpr ProductTable<T> table;
    const long whole = out - out % PANEL;
    // Full panels share the rows read; what is left has a partition of its own.
    for (long start = 0, end = whole; start < out; start = end, end = out) {
        const long height = end <= whole ? PANEL : out - whole, most = rows_beside(int(height));
        if (start == end) continue;
        const long blocks = (rows + most - 1) / most;
        for (long b = 0, r = 0; b < blocks; b++) {
            const long width = rows / blocks + (b < rows % blocks);
            const ProductBlock<T> block = table.of[height - 1][width - 1];
            for (long o = start; o < end; o += height)
                block(panels + o * in, in, y + r, y_stride, z + o * z_stride + r, z_stride, add);
            r += width;
        }
    }
}

// out[p*step_a + c*step_b] += sum over rows and lanes of a[p] b[c].
template <class T, int A, int B>
void outer_block(const vec<T>* a, long a_stride, const vec<T>* b, long b_stride, long rows, T* out, long step_a,
                 long step_b) {
    typedef vec<T> V;
    V acc[A][8];
    NTG_UNROLL
    for (int p = 0; p < A; p++) NTG_UNROLL
        for (int c = 0; c < 8; c++) acc[p][c] = V{};
    for (long r = 0; r < rows; r++) {
        V left[A];
        NTG_UNROLL
        for (int p = 0; p < A; p++) left[p] = a[p * a_stride + r];
        NTG_UNROLL
        for (int c = 0; c < B; c++) {
            const V right = b[c * b_stride + r];
            NTG_UNROLL
            for (int p = 0; p < A; p++) acc[p][c] += left[p] * right;
        }
    }
    NTG_UNROLL
    for (int p = 0; p < A; p++) {
        T sums[8];
        sum_lanes8<T>(acc[p], sums);
        if (step_b == 1 && B == 8) {
            for (int c = 0; c < 8; c++) out[p * step_a + c] += sums[c];
        } else {
            for (int c = 0; c < B; c++) out[p * step_a + c * step_b] += sums[c];
        }
    }
}

template <class T> using OuterBlock = void (*)(const vec<T>*, long, const vec<T>*, long, long, T*, long, long);
#define NTG_OUTERS(A) \
    {outer_block<T, A, 1>, outer_block<T, A, 2>, outer_block<T, A, 3>, outer_block<T, A, 4>, \
     outer_block<T, A, 5>, outer_block<T, A, 6>, outer_block<T, A, 7>, outer_block<T, A, 8>}

// out[i*step_a + j*step_b] += sum over rows and lanes of a[i] b[j].
template <class T>
void outer(const vec<T>* a, long a_count, long a_stride, const vec<T>* b, long b_count, long b_stride, long rows,
           T* out, long step_a, long step_b) {
    static constexpr OuterBlock<T> table[3][8] = {NTG_OUTERS(1), NTG_OUTERS(2), NTG_OUTERS(3)};
    if (b_count < a_count && b_count < 8)  // the longer side takes the eight registers
        return outer<T>(b, b_count, b_stride, a, a_count, a_stride, rows, out, step_b, step_a);
    // Eight features of b and a chunk of rows stay in the innermost cache while a passes by.
    const long chunks = (rows + 63) / 64;
    for (long c = 0; c < chunks; c++) {
        const long first = rows * c / chunks, count = rows * (c + 1) / chunks - first;
        for (long j = 0; j < b_count; j += 8) {
            const long width = b_count - j < 8 ? b_count - j : 8;
            for (long i = 0; i < a_count; i += NTG_OUTER) {
                const long height = a_count - i < NTG_OUTER ? a_count - i : NTG_OUTER;
                table[height - 1][width - 1](a + i * a_stride + first, a_stride, b + j * b_stride + first, b_stride,
                                             count, out + i * step_a + j * step_b, step_a, step_b);
            }
        }
    }
}

}  // namespace
}  // namespace NTG_NS
