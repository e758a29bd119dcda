// Layer norm and RMS norm, forward and backward, in the order of additions of ../../numerics.md (version 0).
//
// Compile with --fmad=false: every fma of the order is written as one, and no other may come about. Division, root and
// subnormals are exact by default. check.py compiles and runs this.
//
// The map (numerics.md, section 8). A thread owns as many adjacent lanes as 16 bytes hold, and adds their 8 steps in
// order; 8 threads (halves: 4) are a block of a row. A team of 4 to 512 threads takes a row: its threads are the leaves
// of one tree of adjacent pairs, first over lanes, then over blocks. A team that is too small for its row takes it in
// several slots, and a carry finishes the tree. So the size of a team is free: no bit depends on it.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef long long i64;

// ---- Types (section 1): E as stored, T to add in. ----

template <class T> struct Order;
template <> struct Order<float> {
    static constexpr int lanes = 32;
    static constexpr float v_low = 0x1p-100f, v_high = 0x1p120f, r_low = 0x1p-60f, r_high = 0x1p50f;
};
template <> struct Order<double> {
    static constexpr int lanes = 16;
    static constexpr double v_low = 0x1p-960, v_high = 0x1p960, r_low = 0x1p-480, r_high = 0x1p480;
};
constexpr int steps = 8;       // numbers that a lane adds in a block

// What a kernel may take for granted of its rows.
enum Kind {
    ragged,
    whole,  // they begin at whole vectors and are whole numbers of them
    once    // so, and a team takes a row in one slot
};

template <class E> struct Sum { typedef float type; };
template <> struct Sum<double> { typedef double type; };

__device__ inline float read(float e) { return e; }
__device__ inline double read(double e) { return e; }
__device__ inline float read(__half e) { return __half2float(e); }
__device__ inline float read(__nv_bfloat16 e) { return __bfloat162float(e); }

// One rounding, from T or from the f64 of section 6.
__device__ inline void write(float* to, float t) { *to = t; }
__device__ inline void write(float* to, double t) { *to = __double2float_rn(t); }
__device__ inline void write(double* to, double t) { *to = t; }
__device__ inline void write(__half* to, float t) { *to = __float2half_rn(t); }
__device__ inline void write(__half* to, double t) { *to = __double2half(t); }
__device__ inline void write(__nv_bfloat16* to, float t) { *to = __float2bfloat16_rn(t); }
__device__ inline void write(__nv_bfloat16* to, double t) { *to = __double2bfloat16(t); }

template <class E, int own> struct alignas(sizeof(E) * own) Vector {
    E of[own];
};

// One number of a vector. A bf16 is the upper half of an f32: no move but the shift.
template <class E, int own> __device__ typename Sum<E>::type get(const Vector<E, own>& v, int i) { return read(v.of[i]); }
template <int own> __device__ float get(const Vector<__nv_bfloat16, own>& v, int i) {
    unsigned pair;
    memcpy(&pair, &v.of[i / 2 * 2], sizeof(pair));
    return __uint_as_float(i % 2 ? pair & 0xffff0000u : pair << 16);
}

// A parameter: absent (null), one number (stride 0) or one for each feature (stride 1).
template <class P> struct Parameter {
    const P* of;
    i64 stride;
    template <class T> __device__ T at(i64 j, T absent) const { return of ? T(read(of[j * stride])) : absent; }
};

// `have` of a vector's places are in the row.
template <Kind kind, class E, int own>
__device__ void load(const E* from, int j, int have, Vector<E, own>& to) {
    if (kind != ragged) {
        if (have > 0) to = *reinterpret_cast<const Vector<E, own>*>(from + j);
    } else {
        for (int i = 0; i < own; ++i)
            if (i < have) to.of[i] = from[j + i];
    }
}

template <Kind kind, class E, int own, class T>
__device__ void store(E* to, int j, int have, const T (&from)[own]) {
    Vector<E, own> v;
    for (int i = 0; i < own; ++i) write(&v.of[i], from[i]);
    if (kind != ragged) {
        if (have > 0) *reinterpret_cast<Vector<E, own>*>(to + j) = v;
    } else {
        for (int i = 0; i < own; ++i)
            if (i < have) to[j + i] = v.of[i];
    }
}

// A parameter where rows are read: no branch between a read and the next.
template <class P, int own> struct Read {
    const P* each = nullptr;
    Vector<P, own> one;
    __device__ Read(const Parameter<P>& of, float absent) {
        P value;
        write(&value, absent);
        if (of.of) value = of.of[0];
        if (of.of && of.stride) each = of.of;
        for (int i = 0; i < own; ++i) one.of[i] = value;
    }
    template <Kind kind> __device__ Vector<P, own> at(int j, int have) const {
        Vector<P, own> v = one;
        load<kind>(each, j, each ? have : 0, v);
        return v;
    }
};

// ---- The tree of adjacent pairs (section 2). ----

template <class A> struct Two {
    A a, b;
    __device__ Two operator+(Two o) const { return {a + o.a, b + o.b}; }
};
// What a missing node is worth: z + -0 is z, so it "moves up".
__device__ inline void missing(float& a) { a = -0.0f; }
__device__ inline void missing(double& a) { a = -0.0; }
template <class A> __device__ void missing(Two<A>& a) { missing(a.a), missing(a.b); }

struct Add {
    template <class A> __device__ A operator()(A a, A b) const { return a + b; }
};
struct Max {  // skips NaN
    __device__ double operator()(double a, double b) const { return fmax(a, b); }
};

template <class A> __device__ A swap(unsigned mask, A a, int distance) { return __shfl_xor_sync(mask, a, distance); }
template <class A> __device__ Two<A> swap(unsigned mask, Two<A> a, int distance) {
    return {swap(mask, a.a, distance), swap(mask, a.b, distance)};
}

// Nodes that come one after the other, in order of their index.
template <class A> struct Carry {
    A waiting[40];
    unsigned long long at = 0;  // the levels where a left node waits
    __device__ void push(A node, i64 index) {
        int level = 0;
        for (; index >> level & 1; ++level)
            if (at >> level & 1) {
                node = waiting[level] + node;
                at &= ~(1ull << level);
            }
        waiting[level] = node;
        at |= 1ull << level;
    }
    __device__ A total() const {
        A node{};
        bool any = false;
        for (int level = 0; level < 40; ++level)
            if (at >> level & 1) {
                node = any ? waiting[level] + node : waiting[level];
                any = true;
            }
        return node;
    }
};

// ---- Threads that share a row. ----

struct Team {
    int size, rank;  // 4, 8, ..., 512; beyond 32 the whole thread block
    unsigned mask;   // its threads in this warp
    __device__ explicit Team(int size) : size(size), rank(threadIdx.x % size) {
        int lane = threadIdx.x % 32;
        mask = size >= 32 ? ~0u : ((1u << size) - 1) << (lane - lane % size);
    }
    // Ascending distances: the tree of adjacent pairs, whose root each thread then has, since a + b is b + a.
    template <class A, class Op = Add> __device__ A all(A node, Op op = Op()) const {
        for (int distance = 1; distance < min(size, 32); distance *= 2)
            node = op(node, swap(mask, node, distance));
        if (size > 32) {
            __shared__ double of_warp[2 * 32];
            A* at = reinterpret_cast<A*>(of_warp);
            int lane = rank % 32;
            __syncthreads();
            if (lane == 0) at[rank / 32] = node;
            __syncthreads();
            missing(node);
            if (lane < size / 32) node = at[lane];
            for (int distance = 1; distance < 32; distance *= 2) node = op(node, swap(mask, node, distance));
        }
        return node;
    }
};

// What a thread has of a slot of its row: in each of 8 steps, `have` of its lanes from position j on.
template <class E, Kind kind> struct Slice {
    typedef typename Sum<E>::type T;
    static constexpr int own = 16 / sizeof(E);                  // lanes of a thread: 16 bytes
    static constexpr int threads = Order<T>::lanes / own;       // of a block
    static constexpr int block = Order<T>::lanes * steps;
    __device__ static int of_slot(const Team& team) { return team.size / threads * block; }
    __device__ static int of_block(const Team& team, int slot) {
        return slot * of_slot(team) + team.rank / threads * block;
    }
    // f(j, have, step)
    template <class F> __device__ static void each(const Team& team, int slot, int n, F f) {
        int first = of_block(team, slot) + team.rank % threads * own;
#pragma unroll
        for (int step = 0; step < steps; ++step) {
            int j = first + step * Order<T>::lanes;
            f(j, n - j, step);
        }
    }
    __device__ static int slots(const Team& team, int n) { return kind == once ? 1 : (n - 1) / of_slot(team) + 1; }
    __device__ static bool has(int i, int have) { return kind == ragged ? i < have : have > 0; }
};

// A row as it is read: each number once from memory where the row is one slot, else once a pass.
template <class E, Kind kind> struct Row {
    typedef Slice<E, kind> Part;
    const E* row;
    int n, held = -1;
    Vector<E, Part::own> of[steps];
    __device__ Row(const E* all, i64 index, int n) : row(all + index * n), n(n) {}
    __device__ void hold(const Team& team, int slot) {
        if (slot == held) return;
        held = slot;
        Part::each(team, slot, n, [&](int j, int have, int step) { load<kind>(row, j, have, of[step]); });
    }
    __device__ typename Sum<E>::type at(int step, int i) const { return get(of[step], i); }
};

// SUM of section 3, of rows of a Part: add(lanes, j, have, step) adds a term to each of `have` lanes. hold(slot) comes before.
template <class A, class Part, class Hold, class F> __device__ A sum(const Team& team, int n, Hold hold, F add) {
    constexpr int own = Part::own;
    int slots = Part::slots(team, n);
    Carry<A> carry;
    for (int slot = 0; slot < slots; ++slot) {
        hold(slot);
        A lane[own] = {};
        Part::each(team, slot, n, [&](int j, int have, int step) { add(lane, j, have, step); });
#pragma unroll
        for (int width = 1; width < own; width *= 2)
#pragma unroll
            for (int i = 0; i < own; i += 2 * width) lane[i] = lane[i] + lane[i + width];
        if (Part::of_block(team, slot) >= n) missing(lane[0]);
        A node = team.all(lane[0]);
        if (slots == 1) return node;
        carry.push(node, slot);
    }
    return carry.total();
}

// ---- Statistics and output (section 4). ----

template <class T, bool centred> struct Stats {
    T m, c, r;
    __device__ T x_hat(T x) const { return fma(centred ? x - m : x, r, -(c * r)); }
};

// The saved statistics of all rows.
template <class T> struct Saved {
    T *m, *c, *r;
    __device__ void put(i64 row, T vm, T vc, T vr) const { m[row] = vm, c[row] = vc, r[row] = vr; }
};

// Rows that section 6 redoes, in any order.
struct Redo {
    int* count;
    i64* rows;
    int* place;  // of a row among them, -1 for the others; null where nobody asks
    __device__ void put(i64 row) const {
        int at = atomicAdd(count, 1);
        rows[at] = row;
        if (place) place[row] = at;
    }
};

template <class E, class P, bool centred, Kind kind>
__global__ void __launch_bounds__(512)
forward(const E* x, Parameter<P> weight, Parameter<P> bias, E* y,
        Saved<typename Sum<E>::type> saved, Redo redo, i64 rows, int n, double eps, int size) {
    typedef typename Sum<E>::type T;
    typedef Slice<E, kind> Part;
    constexpr int own = Part::own;
    Team team(size);
    i64 index = i64(blockIdx.x) * (blockDim.x / size) + threadIdx.x / size;
    if (index >= rows) return;
    Row<E, kind> row(x, index, n);
    auto hold = [&](int slot) { row.hold(team, slot); };
    T count = T(n), m = 0, c = 0, var;
    if (centred) {
        m = sum<T, Part>(team, n, hold, [&](T(&lane)[own], int, int have, int step) {
            for (int i = 0; i < own; ++i)
                if (Part::has(i, have)) lane[i] = lane[i] + row.at(step, i);
        }) / count;
        for (bool first = true;; first = false) {
            Two<T> d = sum<Two<T>, Part>(team, n, hold, [&](Two<T>(&lane)[own], int, int have, int step) {
                for (int i = 0; i < own; ++i) {
                    T d = row.at(step, i) - m;
                    if (Part::has(i, have)) lane[i] = {lane[i].a + d, fma(d, d, lane[i].b)};
                }
            });
            c = d.a / count;
            var = fma(-c, c, d.b / count);
            if (!(first && var < c * c)) break;
            m = m + c;
        }
        if (var < 0) var = 0;
    } else {
        var = sum<T, Part>(team, n, hold, [&](T(&lane)[own], int, int have, int step) {
            for (int i = 0; i < own; ++i)
                if (Part::has(i, have)) lane[i] = fma(row.at(step, i), row.at(step, i), lane[i]);
        }) / count;
    }
    T v = var + T(eps);
    if (!(Order<T>::v_low <= v && v <= Order<T>::v_high)) {
        if (team.rank == 0) redo.put(index);
        return;
    }
    Stats<T, centred> stats{m, c, T(1) / sqrt(v)};
    if (team.rank == 0) saved.put(index, m, c, stats.r);
    Read<P, own> weights(weight, 1), biases(bias, -0.0f);
    for (int slot = 0; slot < Part::slots(team, n); ++slot) {
        hold(slot);
        Part::each(team, slot, n, [&](int j, int have, int step) {
            auto w = weights.template at<kind>(j, have), b = biases.template at<kind>(j, have);
            T to[own];
            for (int i = 0; i < own; ++i) to[i] = fma(stats.x_hat(row.at(step, i)), T(get(w, i)), T(get(b, i)));
            store<kind>(y + index * n, j, have, to);
        });
    }
}

// ---- Backward (section 5). ----

template <class E, class P, bool centred, Kind kind>
__global__ void __launch_bounds__(512)
backward(const E* x, const E* dy, Parameter<P> weight, E* dx,
         Saved<typename Sum<E>::type> saved, Redo redo, i64 rows, int n, int size) {
    typedef typename Sum<E>::type T;
    typedef Slice<E, kind> Part;
    constexpr int own = Part::own;
    Team team(size);
    i64 index = i64(blockIdx.x) * (blockDim.x / size) + threadIdx.x / size;
    if (index >= rows) return;
    Stats<T, centred> stats{saved.m[index], saved.c[index], saved.r[index]};
    bool good = Order<T>::r_low <= stats.r && stats.r <= Order<T>::r_high;
    if (good) {
        Row<E, kind> of_x(x, index, n), of_dy(dy, index, n);
        Read<P, own> weights(weight, 1);
        auto hold = [&](int slot) { of_x.hold(team, slot), of_dy.hold(team, slot); };
        Two<T> sums = sum<Two<T>, Part>(team, n, hold, [&](Two<T>(&lane)[own], int j, int have, int step) {
            auto w = weights.template at<kind>(j, have);
            for (int i = 0; i < own; ++i) {
                T u = T(get(w, i)) * of_dy.at(step, i);
                if (Part::has(i, have)) lane[i] = {fma(u, stats.x_hat(of_x.at(step, i)), lane[i].a), lane[i].b + u};
            }
        });
        T a = sums.a / T(n), b = centred ? sums.b / T(n) : T(0);
        good = isfinite(a) && isfinite(b);
        for (int slot = 0; good && slot < Part::slots(team, n); ++slot) {
            hold(slot);
            Part::each(team, slot, n, [&](int j, int have, int step) {
                auto w = weights.template at<kind>(j, have);
                T to[own];
                for (int i = 0; i < own; ++i) {
                    T u = T(get(w, i)) * of_dy.at(step, i);
                    to[i] = stats.r * fma(-stats.x_hat(of_x.at(step, i)), a, u - b);
                }
                store<kind>(dx + index * n, j, have, to);
            });
        }
    }
    if (!good && team.rank == 0) redo.put(index);
}

// Sums over rows: a thread for each feature; a thread block for `part` rows of one alignment, whose totals are nodes of one level.
template <class E, bool centred>
__global__ void of_rows(const E* x, const E* dy, Saved<typename Sum<E>::type> saved, Redo redo,
                        const typename Sum<E>::type* redone_x_hat, typename Sum<E>::type* dweight,
                        typename Sum<E>::type* dbias, i64 rows, i64 n, i64 first_row, i64 part) {
    typedef typename Sum<E>::type T;
    i64 j = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (j >= n) return;
    i64 node = first_row / part + blockIdx.y;
    i64 from = max(node * part, first_row), to = min((node + 1) * part, first_row + rows);
    Carry<Two<T>> carry;
    for (i64 chunk = from / 8; chunk * 8 < to; ++chunk) {
        Two<T> sums{0, 0};
        for (i64 global = max(chunk * 8, from); global < min(chunk * 8 + 8, to); ++global) {
            i64 row = global - first_row;
            T of_dy = read(dy[row * n + j]);
            int place = redo.place[row];
            Stats<T, centred> stats{saved.m[row], saved.c[row], saved.r[row]};
            T x_hat = place < 0 ? stats.x_hat(read(x[row * n + j])) : redone_x_hat[place * n + j];
            sums = {fma(of_dy, x_hat, sums.a), sums.b + of_dy};
        }
        carry.push(sums, chunk);
    }
    Two<T> total = carry.total();
    dweight[blockIdx.y * n + j] = total.a;
    dbias[blockIdx.y * n + j] = total.b;
}

// The rest of their tree: nodes[k] becomes the total.
template <class T> __global__ void of_nodes(const T* nodes, T* total, i64 count, i64 n, i64 first) {
    i64 j = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (j >= n) return;
    Carry<T> carry;
    for (i64 k = 0; k < count; ++k) carry.push(nodes[k * n + j], first + k);
    total[j] = carry.total();
}

// The gradient of a shared parameter.
template <class T> __global__ void __launch_bounds__(512) of_features(const T* totals, T* total, int n) {
    Team team(blockDim.x);
    typedef Slice<T, ragged> Part;
    T node = sum<T, Part>(team, n, [](int) {}, [&](T(&lane)[Part::own], int j, int have, int) {
        for (int i = 0; i < Part::own; ++i)
            if (i < have) lane[i] = lane[i] + totals[j + i];
    });
    if (team.rank == 0) *total = node;
}

// ---- Rows out of range (section 6), in f64: no vectors and no hurry. ----

__device__ inline int exponent(double z) { return z == 0 || !isfinite(z) ? 0 : ilogb(z); }
__device__ inline double power(int e) { return ldexp(1.0, e); }
__device__ inline double scale(double z, int e) {
    int q = e / 3;
    return z * power(q) * power(q) * power(e - 2 * q);
}

template <class T> struct Wide {  // in the lanes and blocks of T
    Team team;
    int n;
    template <class A, class F> __device__ A total(F add) const {
        typedef Slice<T, ragged> Part;
        return sum<A, Part>(team, n, [](int) {}, [&](A(&lane)[Part::own], int j, int have, int) {
            for (int i = 0; i < Part::own; ++i)
                if (i < have) lane[i] = add(lane[i], j + i);
        });
    }
    template <class F> __device__ double largest(F value) const {
        double max = 0;
        for (int j = team.rank; j < n; j += team.size) {
            double z = fabs(value(j));
            if (z > max) max = z;
        }
        return team.all(max, Max());
    }
};

struct WideStats {
    int x_exponent, d_exponent;
    double m, c, r;
    template <class E> __device__ double deviation(E x) const { return scale(double(read(x)), -x_exponent) - m; }
    template <class E> __device__ double d(E x) const { return scale(deviation(x), x_exponent - d_exponent); }
    template <class E> __device__ double x_hat(E x) const { return fma(d(x), r, -(c * r)); }
};

template <class E, class T> __device__ WideStats wide(const Wide<T>& row, const E* x, double eps, bool centred) {
    double count = double(row.n), var;
    WideStats of{};
    of.x_exponent = exponent(row.largest([&](int j) { return double(read(x[j])); }));
    if (centred)
        of.m = row.template total<double>([&](double lane, int j) {
            return fma(scale(double(read(x[j])), -of.x_exponent), 1.0, lane);
        }) / count;
    for (bool first = true;; first = false) {
        double s = row.largest([&](int j) { return of.deviation(x[j]); });
        bool any = false;
        of.d_exponent = of.x_exponent;
        if (s > 0) of.d_exponent = exponent(s) + of.x_exponent, any = true;
        if (eps > 0) of.d_exponent = any ? max(of.d_exponent, exponent(eps) / 2) : exponent(eps) / 2;
        Two<double> sums = row.template total<Two<double>>([&](Two<double> lane, int j) {
            double d = of.d(x[j]);
            return Two<double>{fma(d, 1.0, lane.a), fma(d, d, lane.b)};
        });
        of.c = centred ? sums.a / count : 0;
        var = fma(-of.c, of.c, sums.b / count);
        if (!(centred && first && var < of.c * of.c)) break;
        of.m = of.m + scale(of.c, of.d_exponent - of.x_exponent);
    }
    if (var < 0) var = 0;
    double v = var + scale(eps, -2 * of.d_exponent);
    of.r = v == 0 ? 0 : 1 / sqrt(v);
    return of;
}

template <class E, class P, bool centred>
__global__ void __launch_bounds__(256)
redo_forward(const E* x, Parameter<P> weight, Parameter<P> bias, E* y, Saved<typename Sum<E>::type> saved,
             Redo redo, int n, double eps) {
    typedef typename Sum<E>::type T;
    Wide<T> row{Team(blockDim.x), n};
    for (int place = blockIdx.x; place < *redo.count; place += gridDim.x) {
        i64 index = redo.rows[place];
        const E* of_x = x + index * n;
        WideStats of = wide(row, of_x, double(T(eps)), centred);
        for (int j = row.team.rank; j < n; j += row.team.size)
            write(&y[index * n + j], fma(of.x_hat(of_x[j]), weight.at(j, 1.0), bias.at(j, -0.0)));
        double mean = scale(of.m, of.x_exponent);
        T m = T(mean), c = T((mean - double(m)) + scale(of.c, of.d_exponent));
        if (row.team.rank == 0) saved.put(index, m, c, T(scale(of.r, -of.d_exponent)));
    }
}

template <class E, class P, bool centred>
__global__ void __launch_bounds__(256)
redo_backward(const E* x, const E* dy, Parameter<P> weight, E* dx, typename Sum<E>::type* x_hat, Redo redo, int n,
              double eps) {
    typedef typename Sum<E>::type T;
    Wide<T> row{Team(blockDim.x), n};
    for (int place = blockIdx.x; place < *redo.count; place += gridDim.x) {
        i64 index = redo.rows[place];
        const E *of_x = x + index * n, *of_dy = dy + index * n;
        WideStats of = wide(row, of_x, double(T(eps)), centred);
        int e = exponent(row.largest([&](int j) { return weight.at(j, 1.0); }));
        int f = exponent(row.largest([&](int j) { return double(read(of_dy[j])); }));
        auto u = [&](int j) { return scale(weight.at(j, 1.0), -e) * scale(double(read(of_dy[j])), -f); };
        Two<double> sums = row.template total<Two<double>>([&](Two<double> lane, int j) {
            return Two<double>{fma(u(j), of.x_hat(of_x[j]), lane.a), fma(u(j), 1.0, lane.b)};
        });
        double a = sums.a / double(n), b = centred ? sums.b / double(n) : 0;
        for (int j = row.team.rank; j < n; j += row.team.size) {
            double x_hat_j = of.x_hat(of_x[j]);
            write(&dx[index * n + j], scale(of.r * fma(-x_hat_j, a, u(j) - b), e + f - of.d_exponent));
            x_hat[place * n + j] = T(x_hat_j);
        }
    }
}

// ---- Called from outside: check.py mirrors this struct. All memory is the device's; every call returns CUDA's error. ----

struct Call {
    int norm;       // 0: layer norm, 1: RMS norm
    int type;       // of x, dy, y, dx: 0 f32, 1 f64, 2 f16, 3 bf16
    int wide;       // parameters are f32 beside halves
    int team;       // threads a row; 0: by the length of the row
    i64 rows, n, first_row;
    double eps;
    const void *x, *dy, *weight, *bias;
    i64 weights, biases;  // 0: absent, 1: shared, n: one for each feature
    void *y, *dx, *m, *c, *r, *dweight, *dbias;
    void* scratch;  // 8 (rows + 1) bytes
    i64 redone;     // rows that were out of range in the last backward pass
};

// The plan: a thread has 8 steps of a block, up to 512 threads a row, and at least 128 threads a thread block.
template <class E> struct Grid {
    typedef Slice<E, ragged> Part;
    int team = Part::threads, block;
    i64 blocks;
    Kind kind;
    explicit Grid(const Call& call) {
        i64 of_row = (call.n - 1) / Part::block + 1;
        while (team < 512 && (call.team ? team < call.team : team / Part::threads < of_row)) team *= 2;
        block = team > 32 ? team : 128;
        blocks = (call.rows - 1) / (block / team) + 1;
        kind = call.n % Part::own ? ragged : team / Part::threads < of_row ? whole : once;
    }
};

static Redo redo_of(const Call& call) {
    auto rows = (i64*)call.scratch;
    auto count = (int*)(rows + call.rows);
    cudaMemsetAsync(count, 0, sizeof(int), 0);
    return {count, rows, nullptr};
}

template <class P> Parameter<P> parameter(const void* of, i64 count) {
    return {count ? static_cast<const P*>(of) : nullptr, count > 1};
}

template <class E, class P, bool centred> struct Run {
    typedef typename Sum<E>::type T;
    static Saved<T> saved(const Call& call) { return {(T*)call.m, (T*)call.c, (T*)call.r}; }

    static void forward(Call& call) {
        auto weight = parameter<P>(call.weight, call.weights), bias = parameter<P>(call.bias, call.biases);
        Redo redo = redo_of(call);
        Grid<E> grid(call);
        auto kernel = grid.kind == once    ? ::forward<E, P, centred, once>
                      : grid.kind == whole ? ::forward<E, P, centred, whole>
                                           : ::forward<E, P, centred, ragged>;
        kernel<<<grid.blocks, grid.block>>>((const E*)call.x, weight, bias, (E*)call.y, saved(call), redo, call.rows,
                                            call.n, call.eps, grid.team);
        redo_forward<E, P, centred><<<132, 256>>>((const E*)call.x, weight, bias, (E*)call.y, saved(call), redo,
                                                  call.n, call.eps);
    }

    static void backward(Call& call) {
        auto weight = parameter<P>(call.weight, call.weights);
        auto x = (const E*)call.x, dy = (const E*)call.dy;
        Redo redo = redo_of(call);
        cudaMallocAsync(&redo.place, call.rows * sizeof(int), 0);
        cudaMemsetAsync(redo.place, 0xff, call.rows * sizeof(int), 0);  // -1
        Grid<E> grid(call);
        auto kernel = grid.kind == once    ? ::backward<E, P, centred, once>
                      : grid.kind == whole ? ::backward<E, P, centred, whole>
                                           : ::backward<E, P, centred, ragged>;
        kernel<<<grid.blocks, grid.block>>>(x, dy, weight, (E*)call.dx, saved(call), redo, call.rows, call.n,
                                            grid.team);
        int count = 0;
        cudaMemcpy(&count, redo.count, sizeof(int), cudaMemcpyDeviceToHost);
        call.redone = count;
        T* x_hat = nullptr;
        if (count) {
            cudaMallocAsync(&x_hat, count * call.n * sizeof(T), 0);
            redo_backward<E, P, centred><<<min(count, 1024), 256>>>(x, dy, weight, (E*)call.dx, x_hat, redo, call.n,
                                                                    call.eps);
        }
        i64 part = 256;  // rows; any multiple of 8 by a power of two gives the same bits
        i64 first = call.first_row / part, parts = (call.first_row + call.rows - 1) / part - first + 1;
        T* nodes;
        cudaMallocAsync(&nodes, 2 * (parts + 1) * call.n * sizeof(T), 0);
        T *dweight = nodes + 2 * parts * call.n, *dbias = dweight + call.n;
        unsigned across = (call.n + 127) / 128;
        of_rows<E, centred><<<dim3(across, parts), 128>>>(x, dy, saved(call), redo, x_hat, nodes,
                                                          nodes + parts * call.n, call.rows, call.n, call.first_row,
                                                          part);
        of_nodes<T><<<across, 128>>>(nodes, dweight, parts, call.n, first);
        of_nodes<T><<<across, 128>>>(nodes + parts * call.n, dbias, parts, call.n, first);
        give(dweight, call.dweight, call.weights, call.n);
        give(dbias, call.dbias, call.biases, call.n);
        cudaFreeAsync(nodes, 0);
        if (x_hat) cudaFreeAsync(x_hat, 0);
        cudaFreeAsync(redo.place, 0);
    }

    static void give(const T* totals, void* to, i64 of_parameter, i64 n) {
        if (of_parameter == 1 && n != 1)
            of_features<T><<<1, 512>>>(totals, (T*)to, n);
        else
            cudaMemcpyAsync(to, totals, n * sizeof(T), cudaMemcpyDeviceToDevice, 0);
    }
};

template <class E, class P> static void run(Call& call, bool back) {
    if (call.norm == 0)
        back ? Run<E, P, true>::backward(call) : Run<E, P, true>::forward(call);
    else
        back ? Run<E, P, false>::backward(call) : Run<E, P, false>::forward(call);
}

static int run(Call* call, bool back) {
    if (call->rows < 1 || call->n < 1 || call->n > 1 << 30 || call->team > 512) return cudaErrorInvalidValue;
    switch (call->type * 2 + (call->wide != 0)) {
        case 0: run<float, float>(*call, back); break;
        case 2: run<double, double>(*call, back); break;
        case 4: run<__half, __half>(*call, back); break;
        case 5: run<__half, float>(*call, back); break;
        case 6: run<__nv_bfloat16, __nv_bfloat16>(*call, back); break;
        case 7: run<__nv_bfloat16, float>(*call, back); break;
        default: return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

extern "C" int order_forward(Call* call) { return run(call, false); }
extern "C" int order_backward(Call* call) { return run(call, true); }
