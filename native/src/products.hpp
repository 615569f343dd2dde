// The two matrix products of a block: weights times jets, and cotangents times jets summed over points.
#pragma once
#include "vec.hpp"

#if NTG_VBYTES == 64 || defined(__aarch64__)
#define NTG_ROWS 6   // rows of jets in registers
#define NTG_OUTER 3  // features of cotangents in registers
#else
#define NTG_ROWS 3
#define NTG_OUTER 1
#endif

namespace NTG_NS {
namespace {

constexpr int PANEL = 4;  // output features in registers

// Copies a matrix so that four rows of it are read together. `panels` has out*in entries.
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
#define NTG_PRODUCTS(OB) \
    {product_block<T, OB, 1>, product_block<T, OB, 2>, product_block<T, OB, 3>, product_block<T, OB, 4>, \
     product_block<T, OB, 5>, product_block<T, OB, 6>}

// z[o][r] (+)= sum_i w[o][i] y[i][r].
template <class T>
void product(const T* panels, long out, long in, const vec<T>* y, long y_stride, long rows, vec<T>* z,
             long z_stride, bool add = false) {
    static constexpr ProductBlock<T> table[PANEL][6] = {NTG_PRODUCTS(1), NTG_PRODUCTS(2), NTG_PRODUCTS(3),
                                                        NTG_PRODUCTS(4)};
    const long blocks = (rows + NTG_ROWS - 1) / NTG_ROWS;
    for (long b = 0, r = 0; b < blocks; b++) {
        const long width = rows / blocks + (b < rows % blocks);
        for (long o = 0; o < out; o += PANEL) {
            const long height = out - o < PANEL ? out - o : PANEL;
            table[height - 1][width - 1](panels + o * in, in, y + r, y_stride, z + o * z_stride + r, z_stride, add);
        }
        r += width;
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
    for (long i = 0; i < a_count; i += NTG_OUTER) {
        const long height = a_count - i < NTG_OUTER ? a_count - i : NTG_OUTER;
        for (long j = 0; j < b_count; j += 8) {
            const long width = b_count - j < 8 ? b_count - j : 8;
            table[height - 1][width - 1](a + i * a_stride, a_stride, b + j * b_stride, b_stride, rows,
                                         out + i * step_a + j * step_b, step_a, step_b);
        }
    }
}

}  // namespace
}  // namespace NTG_NS
