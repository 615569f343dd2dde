// Initial states z(x0) of every family of activations, and where it is more accurate, their slopes p(x0).
#pragma once
#include "functions.hpp"

namespace NTG_NS {
namespace {

#define NTG_START(family) \
    template <class T> NTG_INLINE void start_##family(vec<T> x, vec<T>* z, vec<T>* p, const T* par)
#define NTG_UNUSED (void)z, (void)p, (void)par, (void)x

// e = exp(-|x|), and the logistic function with its slope.
template <class T> NTG_INLINE void logistic(vec<T> x, vec<T>& value, vec<T>& slope) {
    vec<T> e, em1;
    exp_negative<T>(-magnitude<T>(x), e, em1);
    const vec<T> inverse = T(1) / (T(1) + e);
    value = choose<T>(x < T(0), e * inverse, inverse);
    slope = e * inverse * inverse;
}
template <class T> NTG_INLINE vec<T> softplus(vec<T> x) {
    vec<T> e, em1;
    exp_negative<T>(-magnitude<T>(x), e, em1);
    return choose<T>(x < T(0), vec<T>{}, x) + log1p_unit<T>(e);
}
template <class T> NTG_INLINE vec<T> above(vec<T> x, T bound) {
    return choose<T>(x > bound, spread<T>(T(1)), vec<T>{});
}

NTG_START(tanh) {
    NTG_UNUSED;
    vec<T> e, em1;
    exp_negative<T>(T(-2) * magnitude<T>(x), e, em1);
    const vec<T> inverse = T(1) / (T(2) + em1);
    z[0] = copy_sign<T>(em1 * inverse, x);
    p[0] = T(4) * e * (inverse * inverse);
}
NTG_START(tanhshrink) { start_tanh<T>(x, z, p, par); }
NTG_START(sigmoid) {
    NTG_UNUSED;
    logistic<T>(x, z[0], p[0]);
}
NTG_START(silu) { start_sigmoid<T>(x, z, p, par); }
NTG_START(sin) {
    NTG_UNUSED;
    vsincos<T>(x, z[0], z[1]);
}
NTG_START(cos) { start_sin<T>(x, z, p, par); }
NTG_START(tan) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::tan(v); });
}
NTG_START(atan) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::atan(v); });
    z[1] = T(1) / (T(1) + x * x);
}
NTG_START(sinh) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::sinh(v); });
    z[1] = each<T>(x, [](T v) { return std::cosh(v); });
}
NTG_START(cosh) { start_sinh<T>(x, z, p, par); }
NTG_START(asinh) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::asinh(v); });
    z[1] = each<T>(x, [](T v) { return T(1) / std::sqrt(T(1) + v * v); });
}
NTG_START(exp) {
    NTG_UNUSED;
    z[0] = vexp<T>(x);
}
NTG_START(expm1) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::expm1(v); });
    p[0] = vexp<T>(x);
}
NTG_START(log) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::log(v); });
    z[1] = T(1) / x;
}
NTG_START(log1p) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::log1p(v); });
    z[1] = T(1) / (T(1) + x);
}
NTG_START(sqrt) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::sqrt(v); });
    z[1] = T(1) / z[0];
}
NTG_START(rsqrt) {
    NTG_UNUSED;
    z[0] = T(1) / each<T>(x, [](T v) { return std::sqrt(v); });
}
NTG_START(reciprocal) {
    NTG_UNUSED;
    z[0] = T(1) / x;
}
NTG_START(square) { NTG_UNUSED; }
NTG_START(identity) { NTG_UNUSED; }
NTG_START(softplus) {
    NTG_UNUSED;
    z[0] = softplus<T>(x);
    logistic<T>(x, z[1], p[1]);
    p[0] = z[1];
}
NTG_START(logsigmoid) {
    NTG_UNUSED;
    z[0] = -softplus<T>(-x);
    logistic<T>(-x, z[1], p[1]);
    p[0] = z[1];
    p[1] = -p[1];
}
NTG_START(mish) {
    NTG_UNUSED;
    vec<T> t[1], q[1];
    start_tanh<T>(softplus<T>(x), t, q, par);
    z[0] = t[0];
    logistic<T>(x, z[1], q[0]);
}
NTG_START(erf) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::erf(v); });
    z[1] = T(1.12837916709551257390) * vexp<T>(-x * x);
}
NTG_START(erfc) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::erfc(v); });
    z[1] = T(1.12837916709551257390) * vexp<T>(-x * x);
}
NTG_START(gelu) {
    NTG_UNUSED;
    z[0] = T(0.5) * each<T>(x, [](T v) { return std::erfc(v * T(-0.70710678118654752440)); });
    z[1] = T(0.39894228040143267794) * vexp<T>(T(-0.5) * x * x);
}
NTG_START(gaussian) {
    NTG_UNUSED;
    z[0] = vexp<T>(-x * x);
}
NTG_START(gelu_tanh) {
    NTG_UNUSED;
    vec<T> q[1];
    const T c = T(0.79788456080286535588);
    start_tanh<T>(c * (x + T(0.044715) * (x * x * x)), z, q, par);
}
NTG_START(relu) {
    NTG_UNUSED;
    z[0] = above<T>(x, T(0));
}
NTG_START(abs) {
    NTG_UNUSED;
    z[0] = above<T>(x, T(0)) - above<T>(-x, T(0));
}
NTG_START(relu6) {
    NTG_UNUSED;
    const vec<T> six = choose<T>(x >= T(6), spread<T>(T(1)), vec<T>{});
    z[0] = above<T>(x, T(0)) * (T(1) - six);
    z[1] = T(6) * six;
}
NTG_START(elu) {
    NTG_UNUSED;
    z[0] = above<T>(x, T(0));
    z[1] = vexp<T>(choose<T>(x > T(0), vec<T>{}, x));
}
NTG_START(power) {
    NTG_UNUSED;
    const T exponent = par[0];
    z[0] = each<T>(x, [exponent](T v) { return std::pow(v, exponent); });
    z[1] = T(1) / x;
}
NTG_START(asin) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::asin(v); });
    z[1] = T(1) / each<T>((T(1) - x) * (T(1) + x), [](T v) { return std::sqrt(v); });
}
NTG_START(acos) {
    NTG_UNUSED;
    start_asin<T>(x, z, p, par);
    z[0] = each<T>(x, [](T v) { return std::acos(v); });
}
NTG_START(acosh) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::acosh(v); });
    z[1] = T(1) / each<T>((x - T(1)) * (x + T(1)), [](T v) { return std::sqrt(v); });
}
NTG_START(atanh) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return std::atanh(v); });
    z[1] = T(1) / ((T(1) - x) * (T(1) + x));
}
// Winitzki's approximation, then Halley's iteration on the tail 1 - |x|, which keeps its digits near 1.
template <class T> NTG_INLINE T inverse_erf(T x) {
    const T size = std::fabs(x);
    if (!(size < T(1))) return size == T(1) ? std::copysign(std::numeric_limits<T>::infinity(), x) : x * NAN;
    const T a = T(0.147), l = std::log1p(-x * x), t = T(4.33075024300) + T(0.5) * l;
    T y = std::sqrt(std::fmax(std::sqrt(t * t - l / a) - t, T(0)));
    for (int i = 0; i < 3; i++) {
        const T miss = size < T(0.5) ? std::erf(y) - size : (T(1) - size) - std::erfc(y);
        const T step = miss * T(0.88622692545275801365) * std::exp(y * y);
        y -= step / (T(1) + y * step);
    }
    return std::copysign(y, x);
}
NTG_START(erfinv) {
    NTG_UNUSED;
    z[0] = each<T>(x, [](T v) { return inverse_erf<T>(v); });
    z[1] = T(0.88622692545275801365) * each<T>(z[0], [](T v) { return std::exp(v * v); });
}
template <class T> NTG_INLINE vec<T> sign_of(vec<T> x) { return above<T>(x, T(0)) - above<T>(-x, T(0)); }
template <class T> NTG_INLINE vec<T> at_least(vec<T> x, T bound) {
    return choose<T>(x >= bound, spread<T>(T(1)), vec<T>{});
}
template <class T> NTG_INLINE vec<T> between(vec<T> x, T low, T high) {
    return above<T>(x, low) * above<T>(-x, -high);
}
NTG_START(softsign) {
    NTG_UNUSED;
    z[0] = sign_of<T>(x);
    z[1] = T(1) / (T(1) + magnitude<T>(x));
}
NTG_START(hardswish) {
    NTG_UNUSED;
    z[0] = between<T>(x, T(-3), T(3));
    z[1] = at_least<T>(x, T(3));
}
NTG_START(hardsigmoid) {
    NTG_UNUSED;
    const vec<T> inside = between<T>(x, T(-3), T(3));
    z[0] = inside / T(6);
    z[1] = inside / T(2) + at_least<T>(x, T(3));
}
NTG_START(hardtanh) {
    NTG_UNUSED;
    z[0] = between<T>(x, par[0], par[1]);
    z[1] = par[0] * at_least<T>(-x, -par[0]) + par[1] * at_least<T>(x, par[1]);
}
NTG_START(softshrink) {
    NTG_UNUSED;
    z[0] = above<T>(magnitude<T>(x), par[0]);
    z[1] = -par[0] * sign_of<T>(x) * z[0];
}
NTG_START(hardshrink) {
    NTG_UNUSED;
    z[0] = above<T>(magnitude<T>(x), par[0]);
    z[1] = T(0) * x;
}
NTG_START(threshold) {
    NTG_UNUSED;
    z[0] = above<T>(x, par[0]);
    z[1] = par[1] * (T(1) - z[0]);
}
NTG_START(celu) {
    NTG_UNUSED;
    z[0] = above<T>(x, T(0));
    z[1] = vexp<T>(choose<T>(x > T(0), vec<T>{}, x) / par[0]);
}

}  // namespace
}  // namespace NTG_NS
