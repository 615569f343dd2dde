// The passes over one block of points: forward, backward, tangent.
#pragma once
#include "network.hpp"

namespace NTG_NS {
namespace {

// Memory of one thread while it works on a block.
template <class T> struct Work {
    vec<T> *x, *z, *g, *h, *saved;
    static size_t size(const Network<T>& n, bool inner) { return 4 * size_t(n.buffer()) + (inner ? n.block_size : 0); }
    Work(const Network<T>& n, vec<T>* memory) {
        x = memory, z = x + n.buffer(), g = z + n.buffer(), h = g + n.buffer(), saved = h + n.buffer();
    }
};

// Copies the argument of a layer without activation, adding the bias and the missing zero rows.
template <class T> void copy_layer(const Network<T>& net, int l, int here, const vec<T>* z, const T* bias, vec<T>* y) {
    const long from = net.layer_rows(l), width = net.widths[l + 1];
    for (long o = 0; o < width; o++)
        for (int t = 0; t < here; t++) {
            const vec<T>* source = z + (o * net.tiles + t) * from;
            vec<T>* target = y + o * net.stride[l] + t * net.rows;
            for (long r = 0; r < net.rows; r++) target[r] = r < from ? source[r] : vec<T>{};
            if (bias) target[0] += bias[o];
        }
}

// The arguments of the first layer for tangents that all points share: their rows are the same everywhere.
template <class T> void first_product(const Network<T>& net, int here, const Work<T>& w) {
    const long out = net.widths[1], count = net.rows_in;
    product<T>(net.panels[0], out, net.widths[0], w.x, net.tiles, here, w.h, net.tiles);
    for (long o = 0; o < out; o++)
        for (int t = 0; t < here; t++) {
            vec<T>* const z = w.z + (o * net.tiles + t) * count;
            z[0] = w.h[o * net.tiles + t];
            for (long j = 0; j < net.lines; j++) z[1 + j] = spread<T>(net.fixed[o * net.lines + j]);
        }
}

// Runs block `b` of the input x (already read into w.x). The outputs of the layers go to `saved`; with
// `alternate` only the two newest are kept there.
template <class T> void forward_block(const Network<T>& net, long b, Work<T>& w, vec<T>* saved, bool alternate, T* out) {
    typedef vec<T> V;
    const int here = net.tiles_of(b), last = net.layers - 1;
    const V* from = w.x;
    long from_stride = long(net.tiles) * net.rows_read();
    for (int l = 0; l <= last; l++) {
        const long count = net.layer_rows(l);
        if (l == 0 && net.tangents)
            first_product<T>(net, here, w);
        else
            product<T>(net.panels[l], net.widths[l + 1], net.widths[l], from, from_stride, here * count, w.z,
                       net.tiles * count);
        V* y = saved + (alternate ? (l % 2) * net.widest_region : net.region[l]);
        const T* bias = net.values[2 * l + 1];
        if (net.kinds[l] >= 0) {
            Step<T> s = net.step(l, here);
            s.z = w.z, s.y = y;
            apply_forward<T>(row_entry<T>(net.kinds[l]), s);
        } else if (l < last) {
            copy_layer<T>(net, l, here, w.z, bias, y);
        } else {
            if (out) net.write(w.z, net.tiles * count, count, b, net.widths[l + 1], count, net.rows, bias, out);
            return;
        }
        from = y, from_stride = net.stride[l];
    }
    if (out) net.write(from, from_stride, net.rows, b, net.widths[last + 1], net.rows, net.rows, nullptr, out);
}

// Row 0 of the cotangent of the first layer's argument, [feature][tile].
template <class T> void values_of(const Network<T>& net, const vec<T>* h, int here, vec<T>* to) {
    for (long o = 0; o < net.widths[1]; o++)
        for (int t = 0; t < here; t++) to[o * net.tiles + t] = h[(o * net.tiles + t) * net.rows_in];
}

// Runs block b backwards; w.x holds its input and w.g the cotangent of the output. `sink(l, h, y, y_stride,
// rows)` receives the cotangent h of every layer's argument and the input y of that layer.
template <class T, class Sink>
void backward_block(const Network<T>& net, long b, Work<T>& w, vec<T>* saved, bool to_input, Sink sink) {
    typedef vec<T> V;
    const int here = net.tiles_of(b);
    V *g = w.g, *h = w.h;
    for (int l = net.layers - 1; l >= 0; l--) {
        const long count = net.layer_rows(l), out = net.widths[l + 1], in = net.widths[l];
        const long h_stride = net.tiles * count, g_stride = net.tiles * net.rows;
        if (net.kinds[l] >= 0) {
            Step<T> s = net.step(l, here);
            s.y = saved + net.region[l], s.g = g, s.g_stride = g_stride, s.h = h, s.h_stride = h_stride;
            apply_backward<T>(row_entry<T>(net.kinds[l]), s);
        } else if (count == net.rows) {
            V* swap = g;
            g = h, h = swap;
        } else {
            for (long o = 0; o < out; o++)
                for (int t = 0; t < here; t++)
                    for (long r = 0; r < count; r++)
                        h[(o * net.tiles + t) * count + r] = g[o * g_stride + t * net.rows + r];
        }
        sink(l, h, l ? saved + net.region[l - 1] : w.x, l ? net.stride[l - 1] : net.tiles * net.rows_read(), here);
        if (l == 0 && net.tangents) {
            if (!to_input) break;
            values_of<T>(net, h, here, w.z);
            product<T>(net.transposed[0], in, out, w.z, net.tiles, here, g, net.tiles);
        } else if (l || to_input) product<T>(net.transposed[l], in, out, h, h_stride, here * count, g, net.tiles * count);
    }
    w.g = g, w.h = h;
}

// Adds the gradients of layer l over a block: cotangent h of its argument times its input y.
template <class T>
void add_gradients(const Network<T>& net, int l, const vec<T>* h, const vec<T>* y, long y_stride, int here, T* weight,
                   T* bias) {
    const long count = net.layer_rows(l), out = net.widths[l + 1], in = net.widths[l], stride = net.tiles * count;
    if (weight && !(l == 0 && net.tangents)) outer<T>(h, out, stride, y, in, y_stride, here * count, weight, in, 1);
    if (!bias) return;
    for (long o = 0; o < out; o += 8) {
        vec<T> sums[8];
        T total[8];
        for (int c = 0; c < 8; c++) {
            sums[c] = vec<T>{};
            for (int t = 0; o + c < out && t < here; t++) sums[c] += h[(o + c) * stride + t * count];
        }
        sum_lanes8<T>(sums, total);
        for (int c = 0; c < 8 && o + c < out; c++) bias[o + c] += total[c];
    }
}

// Adds the gradient of the first weights where the points share their tangents: of the values to `weight`,
// and the sums of the tangents' cotangents over points to `sums`, (widths[1], lines).
template <class T>
void add_first_gradients(const Network<T>& net, const vec<T>* h, const Work<T>& w, int here, T* weight, T* sums) {
    const long out = net.widths[1], in = net.widths[0], count = net.rows_in, lines = net.lines;
    values_of<T>(net, h, here, w.z);
    outer<T>(w.z, out, net.tiles, w.x, in, net.tiles, here, weight, in, 1);
    for (long o = 0; o < out; o++)
        for (long j = 0; j < lines; j += 8) {
            const int width = int(lines - j < 8 ? lines - j : 8);
            vec<T> parts[8];
            T total[8];
            for (int c = 0; c < 8; c++) {
                parts[c] = vec<T>{};
                for (int t = 0; c < width && t < here; t++) parts[c] += h[(o * net.tiles + t) * count + 1 + j + c];
            }
            sum_lanes8<T>(parts, total);
            for (int c = 0; c < width; c++) sums[o * lines + j + c] += total[c];
        }
}

// The rows of the Jacobian that belong to layer l, for the points of a block.
template <class T>
void write_jacobian(const Network<T>& net, long b, int l, const vec<T>* h, const vec<T>* y, long y_stride, int here,
                    T* jacobian) {
    constexpr int L = Vec<T>::lanes;
    const long count = net.layer_rows(l), out = net.widths[l + 1], in = net.widths[l], P = net.parameters;
    for (int t = 0; t < here; t++) {
        const long first = (b * net.tiles + t) * L, valid = net.points - first < L ? net.points - first : L;
        for (long o = 0; o < out; o++) {
            const vec<T>* left = h + (o * net.tiles + t) * count;
            for (long i = 0; i < in; i += L) {
                const int width = int(in - i < L ? in - i : L);
                alignas(64) T block[L][L];
                for (int c = 0; c < width; c++) {
                    const bool shared = l == 0 && net.tangents;
                    const vec<T>* right = y + (i + c) * y_stride + t * (shared ? 1 : count);
                    vec<T> sum = left[0] * right[0];
                    for (long r = 1; r < count; r++)
                        sum += left[r] * (shared ? spread<T>(net.tangents[(r - 1) * in + i + c]) : right[r]);
                    store<T>(block[c], sum);
                }
                for (long p = 0; p < valid; p++) {
                    T* to = jacobian + (first + p) * P + net.column[2 * l] + o * in + i;
                    for (int c = 0; c < width; c++) to[c] = block[c][p];
                }
            }
            if (net.values[2 * l + 1])
                for (long p = 0; p < valid; p++) jacobian[(first + p) * P + net.column[2 * l + 1] + o] = left[0][p];
        }
    }
}

// Tangent of the output after forward_block: panels `moves` of the weights' tangents (null: none), biases'
// tangents, and w.g, the tangent of the input (with `moving`). The result is written to `out`.
template <class T>
void tangent_block(const Network<T>& net, long b, Work<T>& w, vec<T>* saved, T* const* moves, const T* const* tangents,
                   bool moving, T* out) {
    typedef vec<T> V;
    const int here = net.tiles_of(b), last = net.layers - 1;
    V *dy = w.g, *dz = w.h;
    for (int l = 0; l <= last; l++) {
        const long count = net.layer_rows(l), width = net.widths[l + 1], in = net.widths[l];
        const long stride = net.tiles * count, dy_stride = net.tiles * count;
        const V* y = l ? saved + net.region[l - 1] : w.x;
        const long y_stride = l ? net.stride[l - 1] : net.tiles * net.rows_in;
        if (moving)
            product<T>(net.panels[l], width, in, dy, dy_stride, here * count, dz, stride);
        else
            for (long i = 0; i < width * stride; i++) dz[i] = V{};
        if (moves[l]) product<T>(moves[l], width, in, y, y_stride, here * count, dz, stride, true);
        if (tangents && tangents[2 * l + 1])
            for (long o = 0; o < width; o++)
                for (int t = 0; t < here; t++) dz[o * stride + t * count] += tangents[2 * l + 1][o];
        moving = true;
        if (net.kinds[l] >= 0) {
            Step<T> s = net.step(l, here);
            s.y = saved + net.region[l], s.g = dz, s.g_stride = stride, s.h = dy, s.h_stride = net.tiles * net.rows;
            apply_tangent<T>(row_entry<T>(net.kinds[l]), s);
        } else {
            for (long o = 0; o < width; o++)
                for (int t = 0; t < here; t++)
                    for (long r = 0; r < net.rows; r++)
                        dy[(o * net.tiles + t) * net.rows + r] = r < count ? dz[o * stride + t * count + r] : V{};
        }
    }
    net.write(dy, net.tiles * net.rows, net.rows, b, net.widths[last + 1], net.rows, net.rows, nullptr, out);
}

}  // namespace
}  // namespace NTG_NS
