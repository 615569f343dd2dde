// A dense network as the kernels see it: decoded plan, packed weights, memory of one block of points.
#pragma once
#include <cstdlib>
#include "products.hpp"
#include "steps.hpp"

namespace NTG_NS {
namespace {

constexpr int MAX_LAYERS = 64;

// Grows and never shrinks; one per thread, so that a call does not allocate.
struct Arena {
    char* data = nullptr;
    size_t size = 0;
    template <class E> E* take(size_t count) {
        const size_t bytes = (count * sizeof(E) + 4095) & ~size_t(4095);
        if (bytes > size) {
            std::free(data);
            data = static_cast<char*>(std::aligned_alloc(4096, bytes));
            size = bytes;
        }
        return reinterpret_cast<E*>(data);
    }
    ~Arena() { std::free(data); }
};
inline Arena& thread_arena() {
    static thread_local Arena arena;
    return arena;
}
inline Arena& call_arena() {
    static thread_local Arena arena;
    return arena;
}

template <class T> struct Network {
    typedef vec<T> V;
    static constexpr int L = Vec<T>::lanes;
    int layers, degree, tiles;  // tiles: of L points in a full block
    Shape shape;
    long rows, rows_in, points, blocks, widest, parameters;
    // Tangents of the argument that all points share, (lines, widths[0]), or null: then the argument has
    // its values only; `fixed` are their products with the first weights, (widths[1], lines).
    const T *tangents, *fixed = nullptr;
    long lines;
    const int64_t *widths, *kinds;
    const T* const* values;  // W1, b1, W2, b2, ...; an absent bias is null
    long region[MAX_LAYERS + 1], stride[MAX_LAYERS], block_size, widest_region;
    long column[2 * MAX_LAYERS];  // where W_l and b_l start among all parameters
    T* panels[MAX_LAYERS];
    T* transposed[MAX_LAYERS];

    // plan: layers, directions, order, degree, collapsed, address of an algebra's numbers or 0,
    // widths[layers+1], kinds[layers]
    Network(const int64_t* plan, const T* const* v, long n, const void* shared = nullptr)
        : values(v), tangents(static_cast<const T*>(shared)) {
        layers = int(plan[0]), degree = int(plan[3]), points = n;
        shape = Shape{int(plan[2]), int(plan[1]), int(plan[4]), table_at(plan[5])};
        widths = plan + 6, kinds = widths + layers + 1;
        rows = shape.rows(), rows_in = shape.rows(degree), lines = tangents ? rows_in - 1 : 0;
        widest = 0;
        for (int l = 0; l <= layers; l++) widest = widths[l] > widest ? widths[l] : widest;
        // Rows of a block: many for long sums in the products, few enough for its layers to stay in the cache.
        const long most = widest > 128 ? 24 : 48, wanted = most / rows > 1 ? most / rows : 1;
        const long all = (points + L - 1) / L, share = all / 4 > 1 ? all / 4 : 1;
        tiles = int(wanted < share ? wanted : share);
        blocks = (all + tiles - 1) / tiles;
        parameters = 0, block_size = 0, widest_region = 0;
        for (int l = 0; l < layers; l++) {
            const bool last = l + 1 == layers;
            const int kept = kinds[l] < 0 ? 0 : row_entry<T>(kinds[l]).keep == KEEP_SLOPE ? int(rows) : 1;
            stride[l] = long(tiles) * (rows + kept);
            region[l] = block_size;
            const long size = last && kinds[l] < 0 ? 0 : stride[l] * widths[l + 1];
            block_size += size;
            widest_region = size > widest_region ? size : widest_region;
            column[2 * l] = parameters;
            parameters += widths[l] * widths[l + 1];
            column[2 * l + 1] = parameters;
            if (values && values[2 * l + 1]) parameters += widths[l + 1];
        }
    }
    long weights() const {
        long total = 0;
        for (int l = 0; l < layers; l++) total += widths[l] * widths[l + 1];
        return total;
    }
    // Panels of all weights; the transposed ones follow when asked for.
    void pack_weights(T* memory, bool both) {
        for (int l = 0; l < layers; l++) {
            const long in = widths[l], out = widths[l + 1];
            panels[l] = memory;
            pack<T>(values[2 * l], out, in, in, 1, memory);
            memory += in * out;
            if (!both) continue;
            transposed[l] = memory;
            pack<T>(values[2 * l], in, out, 1, in, memory);
            memory += in * out;
        }
    }
    long fixed_size() const { return widths[1] * lines; }
    void fix(T* memory) {
        fixed = memory;
        const long in = widths[0];
        for (long o = 0; tangents && o < widths[1]; o++)
            for (long j = 0; j < lines; j += 8) {  // eight sums at a time do not wait for each other
                const long width = lines - j < 8 ? lines - j : 8;
                T sums[8] = {};
                for (long i = 0; i < in; i++)
                    for (long c = 0; c < width; c++) sums[c] += values[0][o * in + i] * tangents[(j + c) * in + i];
                for (long c = 0; c < width; c++) *memory++ = sums[c];
            }
    }
    // Rows of the argument that each point has of its own.
    long rows_read() const { return tangents ? 1 : rows_in; }
    long buffer() const { return widest * tiles * rows; }
    int tiles_of(long block) const {
        const long all = (points + L - 1) / L, first = block * tiles;
        return int(all - first < tiles ? all - first : tiles);
    }
    long layer_rows(int l) const { return l == 0 ? rows_in : rows; }

    // Jets in memory (row, point, feature) -> vectors [feature][tile][row]. The last tile is padded with
    // copies of its last point, or with zeros (cotangents).
    void read(const T* source, long block, long width, long count, V* to, bool zeros) const {
        const int here = tiles_of(block);
        for (int t = 0; t < here; t++) {
            const long first = (block * tiles + t) * L, valid = points - first < L ? points - first : L;
            for (long r = 0; r < count; r++) {
                const T* from = source + (r * points + first) * width;
                for (long i = 0; i < width; i++) {
                    V& v = to[(i * tiles + t) * count + r];
                    if (width == 1 && valid == L) {
                        v = load<T>(from);
                        continue;
                    }
                    for (long p = 0; p < L; p++)
                        v[p] = p < valid ? from[p * width + i] : zeros ? T(0) : from[(valid - 1) * width + i];
                }
            }
        }
    }
    // The reverse; rows from `count` to `total` are zero. The bias goes to row 0.
    void write(const V* from, long stride_, long tile_rows, long block, long width, long count, long total,
               const T* bias, T* target) const {
        const int here = tiles_of(block);
        for (int t = 0; t < here; t++) {
            const long first = (block * tiles + t) * L, valid = points - first < L ? points - first : L;
            for (long r = 0; r < total; r++) {
                T* to = target + (r * points + first) * width;
                for (long o = 0; o < width; o++) {
                    V v = r < count ? from[o * stride_ + t * tile_rows + r] : V{};
                    if (r == 0 && bias) v += bias[o];
                    if (width == 1 && valid == L) {
                        store<T>(to, v);
                        continue;
                    }
                    for (long p = 0; p < valid; p++) to[p * width + o] = v[p];
                }
            }
        }
    }
    Step<T> step(int l, int here) const {
        Step<T> s{};
        s.shape = shape, s.rows = int(rows), s.features = int(widths[l + 1]), s.tiles = here, s.capacity = tiles;
        s.z_rows = int(layer_rows(l)), s.z_stride = long(tiles) * s.z_rows;
        s.degree = l == 0 ? degree : shape.order;
        s.y_stride = stride[l];
        s.bias = values[2 * l + 1];
        return s;
    }
};

}  // namespace
}  // namespace NTG_NS
