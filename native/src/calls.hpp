// Whole calls: blocks of points shared out over threads, results reduced in a fixed order.
#pragma once
#ifdef _OPENMP
#include <omp.h>
#endif
#include "passes.hpp"

namespace NTG_NS {
namespace {

// Calls body(thread, first, last) for contiguous shares of `count` items.
template <class Body> void share_out(long count, int threads, Body body) {
    if (threads > count) threads = int(count);
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        {
            // The team may be smaller than asked for: the shares, and so the sums, must not depend on it.
            for (int i = omp_get_thread_num(); i < threads; i += omp_get_num_threads())
                body(i, count * i / threads, count * (i + 1) / threads);
        }
        return;
    }
#endif
    for (int i = 0; i < threads; i++) body(i, count * i / threads, count * (i + 1) / threads);
}

template <class T> long saved_size(const int64_t* plan, long points) {
    const Network<T> net(plan, nullptr, points);
    return net.blocks * net.block_size * Vec<T>::lanes;
}

template <class T>
void run_forward(const int64_t* plan, const void* const* values, long points, const void* x,
                 const void* tangents, void* out, void* saved, int threads) {
    typedef vec<T> V;
    Network<T> net(plan, reinterpret_cast<const T* const*>(values), points, tangents);
    T* const memory = call_arena().take<T>(net.weights() + net.fixed_size());
    net.pack_weights(memory, false);
    net.fix(memory + net.weights());
    share_out(net.blocks, threads, [&](int, long first, long last) {
        Work<T> w(net, thread_arena().take<V>(4 * net.buffer() + 2 * net.widest_region));
        for (long b = first; b < last; b++) {
            net.read(static_cast<const T*>(x), b, net.widths[0], net.rows_read(), w.x, false);
            V* keep = saved ? static_cast<V*>(saved) + b * net.block_size : w.saved;
            forward_block<T>(net, b, w, keep, !saved, static_cast<T*>(out));
        }
    });
}

template <class T>
void run_backward(const int64_t* plan, const void* const* values, long points, const void* x,
                  const void* tangents, const void* saved, const void* cotangent, void* gx, void* const* gradients,
                  int threads) {
    typedef vec<T> V;
    Network<T> net(plan, reinterpret_cast<const T* const*>(values), points, tangents);
    const long weights = 2 * net.weights(), fixed = net.fixed_size();
    const int teams = threads < net.blocks ? threads : int(net.blocks);
    T* const memory = call_arena().take<T>(weights + fixed + (net.parameters + fixed) * teams + 64);
    net.pack_weights(memory, true);
    net.fix(memory + weights);
    T* const sums = memory + weights + fixed;
    T* const line_sums = sums + net.parameters * teams;
    share_out(net.blocks, threads, [&](int team, long first, long last) {
        Work<T> w(net, thread_arena().take<V>(Work<T>::size(net, !saved)));
        T* const mine = sums + team * net.parameters;
        T* const of_lines = line_sums + team * fixed;
        for (long i = 0; i < net.parameters; i++) mine[i] = T(0);
        for (long i = 0; i < fixed; i++) of_lines[i] = T(0);
        for (long b = first; b < last; b++) {
            net.read(static_cast<const T*>(x), b, net.widths[0], net.rows_read(), w.x, false);
            V* keep = saved ? static_cast<V*>(const_cast<void*>(saved)) + b * net.block_size : w.saved;
            if (!saved) forward_block<T>(net, b, w, keep, false, nullptr);
            net.read(static_cast<const T*>(cotangent), b, net.widths[net.layers], net.rows, w.g, true);
            backward_block<T>(net, b, w, keep, gx != nullptr, [&](int l, const V* h, const V* y, long y_stride, int here) {
                add_gradients<T>(net, l, h, y, y_stride, here, gradients[2 * l] ? mine + net.column[2 * l] : nullptr,
                                 gradients[2 * l + 1] ? mine + net.column[2 * l + 1] : nullptr);
                if (l == 0 && tangents && gradients[0]) add_first_gradients<T>(net, h, w, here, mine, of_lines);
            });
            const long count = net.rows_read();
            if (gx)
                net.write(w.g, net.tiles * count, count, b, net.widths[0], count, count, nullptr, static_cast<T*>(gx));
        }
        const long in = net.widths[0];
        for (long i = 0; i < fixed; i++)  // the tangents' part of the first weights' gradient
            for (long c = 0; c < in; c++) mine[i / net.lines * in + c] += of_lines[i] * net.tangents[i % net.lines * in + c];
    });
    for (int i = 0; i < 2 * net.layers; i++) {
        T* const target = static_cast<T*>(gradients[i]);
        const long size = net.widths[i / 2 + 1] * (i % 2 ? 1 : net.widths[i / 2]);
        for (long j = 0; target && j < size; j++) {
            T total = T(0);
            for (int team = 0; team < teams; team++) total += sums[team * net.parameters + net.column[i] + j];
            target[j] = total;
        }
    }
}

template <class T>
void run_jacobian(const int64_t* plan, const void* const* values, long points, const void* x,
                  const void* tangents, const void* cotangent, void* jacobian, int threads) {
    typedef vec<T> V;
    Network<T> net(plan, reinterpret_cast<const T* const*>(values), points, tangents);
    T* const memory = call_arena().take<T>(2 * net.weights() + net.fixed_size());
    net.pack_weights(memory, true);
    net.fix(memory + 2 * net.weights());
    share_out(net.blocks, threads, [&](int, long first, long last) {
        Work<T> w(net, thread_arena().take<V>(Work<T>::size(net, true)));
        for (long b = first; b < last; b++) {
            net.read(static_cast<const T*>(x), b, net.widths[0], net.rows_read(), w.x, false);
            forward_block<T>(net, b, w, w.saved, false, nullptr);
            net.read(static_cast<const T*>(cotangent), b, net.widths[net.layers], net.rows, w.g, true);
            backward_block<T>(net, b, w, w.saved, false, [&](int l, const V* h, const V* y, long y_stride, int here) {
                write_jacobian<T>(net, b, l, h, y, y_stride, here, static_cast<T*>(jacobian));
            });
        }
    });
}

template <class T>
void run_tangent(const int64_t* plan, const void* const* values, long points, const void* x, const void* dx,
                 const void* const* tangents, void* out, void* dout, int threads) {
    typedef vec<T> V;
    Network<T> net(plan, reinterpret_cast<const T* const*>(values), points);
    const T* const* moves = reinterpret_cast<const T* const*>(tangents);
    T* memory = call_arena().take<T>(2 * net.weights());
    net.pack_weights(memory, false);
    memory += net.weights();
    T* panels[MAX_LAYERS];
    for (int l = 0; l < net.layers; l++) {
        const long in = net.widths[l], width = net.widths[l + 1];
        panels[l] = moves && moves[2 * l] ? memory : nullptr;
        if (panels[l]) pack<T>(moves[2 * l], width, in, in, 1, memory);
        memory += in * width;
    }
    share_out(net.blocks, threads, [&](int, long first, long last) {
        Work<T> w(net, thread_arena().take<V>(Work<T>::size(net, true)));
        for (long b = first; b < last; b++) {
            net.read(static_cast<const T*>(x), b, net.widths[0], net.rows_read(), w.x, false);
            forward_block<T>(net, b, w, w.saved, false, static_cast<T*>(out));
            if (dx) net.read(static_cast<const T*>(dx), b, net.widths[0], net.rows_in, w.g, false);
            tangent_block<T>(net, b, w, w.saved, panels, moves, dx != nullptr, static_cast<T*>(dout));
        }
    });
}

// --- one activation on jets in memory: rows of `size` numbers ----------------------------------------

constexpr int CHUNK = 8;  // vectors handled together

template <class T> struct Elementwise {
    typedef vec<T> V;
    static constexpr int L = Vec<T>::lanes;
    Shape shape;
    int degree, kind;
    long size, rows, rows_in, chunks;
    Elementwise(const int64_t* plan, long n) {
        shape = Shape{int(plan[1]), int(plan[0]), int(plan[3]), table_at(plan[4])};
        degree = int(plan[2]), kind = int(plan[5]), size = n;
        rows = shape.rows(), rows_in = shape.rows(degree);
        chunks = (size + CHUNK * L - 1) / (CHUNK * L);
    }
    // Moves rows of one chunk between memory and vectors [vector][row]; the tail repeats its last element.
    void read(const T* from, long chunk, long count, long stride, V* to, bool zeros) const {
        for (int v = 0; v < CHUNK; v++) {
            const long first = (chunk * CHUNK + v) * L;
            if (first >= size) return;
            const long valid = size - first < L ? size - first : L;
            for (long r = 0; r < count; r++) {
                if (valid == L) {
                    to[v * stride + r] = load<T>(from + r * size + first);
                    continue;
                }
                for (long p = 0; p < L; p++)
                    to[v * stride + r][p] = p < valid ? from[r * size + first + p] : zeros ? T(0) : from[r * size + size - 1];
            }
        }
    }
    void write(const V* from, long chunk, long count, long stride, T* to) const {
        for (int v = 0; v < CHUNK; v++) {
            const long first = (chunk * CHUNK + v) * L;
            if (first >= size) return;
            const long valid = size - first < L ? size - first : L;
            for (long r = 0; r < count; r++) {
                if (valid == L)
                    store<T>(to + r * size + first, from[v * stride + r]);
                else
                    for (long p = 0; p < valid; p++) to[r * size + first + p] = from[v * stride + r][p];
            }
        }
    }
    Step<T> step(long chunk) const {
        Step<T> s{};
        const long left = (size - chunk * CHUNK * L + L - 1) / L;
        s.shape = shape, s.rows = int(rows), s.features = int(left < CHUNK ? left : CHUNK), s.tiles = s.capacity = 1;
        s.z_rows = int(rows_in), s.z_stride = rows_in, s.degree = degree, s.y_stride = 2 * rows;
        return s;
    }
};

template <class T>
void step_forward(const int64_t* plan, long size, const void* a, void* y, void* s, int threads) {
    typedef vec<T> V;
    const Elementwise<T> e(plan, size);
    const Entry<T>& entry = row_entry<T>(e.kind);
    share_out(e.chunks, threads, [&](int, long first, long last) {
        V* const z = thread_arena().take<V>(3 * CHUNK * e.rows);
        V* const values = z + CHUNK * e.rows;
        for (long c = first; c < last; c++) {
            e.read(static_cast<const T*>(a), c, e.rows_in, e.rows_in, z, false);
            Step<T> step = e.step(c);
            step.z = z, step.y = values;
            apply_forward<T>(entry, step);
            e.write(values, c, e.rows, 2 * e.rows, static_cast<T*>(y));
            if (s) e.write(values + e.rows, c, entry.keep == KEEP_SLOPE ? e.rows : 1, 2 * e.rows, static_cast<T*>(s));
        }
    });
}

template <class T>
void step_backward(const int64_t* plan, long size, const void* y, const void* s, const void* g, void* h, int threads) {
    typedef vec<T> V;
    const Elementwise<T> e(plan, size);
    const Entry<T>& entry = row_entry<T>(e.kind);
    share_out(e.chunks, threads, [&](int, long first, long last) {
        V* const cotangent = thread_arena().take<V>(4 * CHUNK * e.rows);
        V *const values = cotangent + CHUNK * e.rows, *const result = values + 2 * CHUNK * e.rows;
        for (long c = first; c < last; c++) {
            e.read(static_cast<const T*>(g), c, e.rows, e.rows, cotangent, true);
            if (entry.keep == KEEP_OUTPUT) e.read(static_cast<const T*>(y), c, e.rows, 2 * e.rows, values, false);
            e.read(static_cast<const T*>(s), c, entry.keep == KEEP_SLOPE ? e.rows : 1, 2 * e.rows, values + e.rows, false);
            Step<T> step = e.step(c);
            step.y = values, step.g = cotangent, step.g_stride = e.rows, step.h = result, step.h_stride = e.rows_in;
            apply_backward<T>(entry, step);
            e.write(result, c, e.rows_in, e.rows_in, static_cast<T*>(h));
        }
    });
}

}  // namespace
}  // namespace NTG_NS
