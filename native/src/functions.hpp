// Elementary functions on vectors: a few ulp, exact about NaN and infinity (no fast-math assumptions).
#pragma once
#include <cmath>
#include "vec.hpp"

namespace NTG_NS {
namespace {

template <class T> struct Constants;
template <> struct Constants<double> {
    static constexpr double magic = 6755399441055744.0, ln2_hi = 6.93147180369123816490e-01,
                            ln2_lo = 1.90821492927058770002e-10, exp_low = -708.0, exp_high = 709.0;
    static constexpr int mantissa = 52;
    static constexpr int64_t bias = 1023;
};
template <> struct Constants<float> {
    static constexpr float magic = 12582912.0f, ln2_hi = 6.9314575195e-01f, ln2_lo = 1.4286067653e-06f,
                           exp_low = -87.0f, exp_high = 88.0f;
    static constexpr int mantissa = 23;
    static constexpr int32_t bias = 127;
};

template <class T> NTG_INLINE ivec<T> sign_bit() {
    typedef decltype(ivec<T>{}[0] + ivec<T>{}[0]) S;
    return ivec<T>{} + (S(1) << (8 * sizeof(T) - 1));
}
template <class T> NTG_INLINE vec<T> magnitude(vec<T> x) { return (vec<T>)((ivec<T>)x & ~sign_bit<T>()); }
template <class T> NTG_INLINE vec<T> copy_sign(vec<T> value, vec<T> sign) {
    const ivec<T> mask = sign_bit<T>();
    return (vec<T>)(((ivec<T>)value & ~mask) | ((ivec<T>)sign & mask));
}
template <class T> NTG_INLINE vec<T> choose(ivec<T> mask, vec<T> yes, vec<T> no) { return mask ? yes : no; }

template <class T, class F> NTG_INLINE vec<T> each(vec<T> x, F f) {
    constexpr int L = Vec<T>::lanes;
    alignas(64) T in[L], out[L];
    store<T>(in, x);
    for (int i = 0; i < L; i++) out[i] = f(in[i]);
    return load<T>(out);
}

// expm1(r) on |r| <= ln(2)/2.
NTG_INLINE vec<double> small_expm1(vec<double> r) {
    const vec<double> r2 = r * r, r4 = r2 * r2;
    const vec<double> c0 = 1.0 / 2 + r * (1.0 / 6), c1 = 1.0 / 24 + r * (1.0 / 120);
    const vec<double> c2 = 1.0 / 720 + r * (1.0 / 5040), c3 = 1.0 / 40320 + r * (1.0 / 362880);
    const vec<double> c4 = 1.0 / 3628800 + r * (1.0 / 39916800);
    const vec<double> c5 = 1.0 / 479001600 + r * (1.0 / 6227020800.0);
    const vec<double> low = c0 + r2 * c1, middle = c2 + r2 * c3, high = c4 + r2 * c5;
    return r + r2 * (low + r4 * (middle + r4 * high));
}
NTG_INLINE vec<float> small_expm1(vec<float> r) {
    const vec<float> r2 = r * r;
    const vec<float> c0 = 1.0f / 2 + r * (1.0f / 6), c1 = 1.0f / 24 + r * (1.0f / 120);
    const vec<float> c2 = 1.0f / 720 + r * (1.0f / 5040);
    return r + r2 * (c0 + r2 * (c1 + r2 * c2));
}

// x = k ln 2 + r: gives expm1(r) and 2^k. Valid for exp_low <= x <= exp_high; NaN stays NaN.
template <class T> NTG_INLINE void exp_parts(vec<T> x, vec<T>& fraction, vec<T>& scale) {
    typedef Constants<T> C;
    const vec<T> shifted = x * T(1.44269504088896340736) + C::magic, k = shifted - C::magic;
    fraction = small_expm1((x - k * C::ln2_hi) - k * C::ln2_lo);
    scale = (vec<T>)(((ivec<T>)shifted + C::bias) << C::mantissa);
}

template <class T> NTG_INLINE vec<T> vexp(vec<T> x) {
    typedef Constants<T> C;
    const vec<T> infinity = spread<T>(T(INFINITY)), two = spread<T>(T(2));
    // Below exp_low shift the argument and scale twice: results may be subnormal.
    const vec<T> shift = T(sizeof(T) == 8 ? 40 : 20) * spread<T>(T(0.69314718055994530942));
    const ivec<T> low = x < C::exp_low, high = x > C::exp_high;
    const T deep = sizeof(T) == 8 ? T(-746) : T(-105), top = sizeof(T) == 8 ? T(709.79) : T(88.73);
    vec<T> inner = choose<T>(low, x + shift, x);
    inner = choose<T>(high, x - T(1), inner);
    inner = choose<T>(x < deep, spread<T>(T(0)), inner);
    inner = choose<T>(x > top, spread<T>(T(0)), inner);
    vec<T> fraction, scale;
    exp_parts<T>(inner, fraction, scale);
    vec<T> value = scale + scale * fraction;
    value = choose<T>(low, value * T(sizeof(T) == 8 ? 1.0 / 1099511627776.0 : 1.0 / 1048576.0), value);
    value = choose<T>(high, value * T(2.71828182845904523536), value);
    value = choose<T>(x < deep, spread<T>(T(0)), value);
    (void)two;
    return choose<T>(x > top, infinity, value);
}

// For x <= 0: e = exp(x) and expm1(x); exactly 0 and -1 far out.
template <class T> NTG_INLINE void exp_negative(vec<T> x, vec<T>& e, vec<T>& em1) {
    typedef Constants<T> C;
    const ivec<T> far = x < C::exp_low;
    vec<T> fraction, scale;
    exp_parts<T>(choose<T>(far, spread<T>(C::exp_low), x), fraction, scale);
    e = choose<T>(far, vec<T>{}, scale + scale * fraction);
    em1 = (scale - T(1)) + scale * fraction;
}

// log(1 + u) on 0 <= u <= 1, by the series of 2 artanh(u / (2 + u)).
template <class T> NTG_INLINE vec<T> log1p_unit(vec<T> u) {
    const vec<T> t = u / (u + T(2)), w = t * t;
    constexpr int top = sizeof(T) == 8 ? 16 : 8;
    vec<T> sum = spread<T>(T(1) / T(2 * top + 1));
    NTG_UNROLL
    for (int k = top - 1; k >= 1; k--) sum = sum * w + T(1) / T(2 * k + 1);
    return (t + t) + (t + t) * (w * sum);
}

template <class T> NTG_INLINE void vsincos(vec<T> x, vec<T>& sine, vec<T>& cosine) {
    constexpr bool wide = sizeof(T) == 8;
    const T limit = wide ? T(1e5) : T(8e3);
    const vec<T> size = magnitude<T>(x);
    const ivec<T> inside = size <= limit;
    bool all = true;
    for (int i = 0; i < Vec<T>::lanes; i++) all = all && inside[i];
    if (__builtin_expect(!all, 0)) {
        sine = each<T>(x, [](T v) { return std::sin(v); });
        cosine = each<T>(x, [](T v) { return std::cos(v); });
        return;
    }
    const vec<T> shifted = x * T(0.63661977236758134308) + Constants<T>::magic;
    const vec<T> k = shifted - Constants<T>::magic;
    vec<T> r;
    if (wide)
        r = ((x - k * T(1.57079632673412561417e+00)) - k * T(6.07710050630396597660e-11)) -
            k * T(2.02226624879595063154e-21);
    else
        r = (((x - k * T(1.5703125)) - k * T(4.837512969970703125e-4)) - k * T(7.549533247947692871e-8)) -
            k * T(2.5633440682e-12);
    const vec<T> w = r * r;
    vec<T> s, c;
    if (wide) {
        s = T(1.58969099521155010221e-10) * w + T(-2.50507602534068634195e-08);
        s = ((s * w + T(2.75573137070700676789e-06)) * w + T(-1.98412698298579493134e-04)) * w;
        s = ((s + T(8.33333333332248946124e-03)) * w + T(-1.66666666666666324348e-01));
        c = T(-1.13596475577881948265e-11) * w + T(2.08757232129817482790e-09);
        c = ((c * w + T(-2.75573143513906633035e-07)) * w + T(2.48015872894767294178e-05)) * w;
        c = ((c + T(-1.38888888888741095749e-03)) * w + T(4.16666666666666019037e-02));
    } else {
        s = (T(-1.9515295891e-4) * w + T(8.3321608736e-3)) * w + T(-1.6666654611e-1);
        c = (T(2.443315711809948e-5) * w + T(-1.388731625493765e-3)) * w + T(4.166664568298827e-2);
    }
    s = r + r * (w * s);
    const vec<T> half = T(0.5) * w, base = T(1) - half;
    c = base + (((T(1) - base) - half) + w * w * c);
    const ivec<T> quadrant = (ivec<T>)shifted & 3;
    const ivec<T> odd = (quadrant & 1) != 0;
    const vec<T> first = choose<T>(odd, c, s), second = choose<T>(odd, s, c);
    sine = choose<T>((quadrant & 2) != 0, -first, first);
    cosine = choose<T>(((quadrant + 1) & 2) != 0, -second, second);
}

}  // namespace
}  // namespace NTG_NS
