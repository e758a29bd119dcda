// The order of additions of ../../numerics.md, version 0: types (section 1), the tree (2), and sums over rows (3).
//
// Compile with --fmad=false: every fma of the order is written as one, and no other may come about. Division, root and
// subnormals are exact by default.
//
// The map (section 8). A thread owns as many adjacent lanes as 16 bytes hold, and adds their 8 steps in order; 8 threads
// (halves: 4) are a block of a row. A team of 4 to 512 threads takes a row: its threads are the leaves of one tree of
// adjacent pairs, first over lanes, then over blocks. A team that is too small for its row takes it in several slots, and
// a carry finishes the tree. So the size of a team is free: no bit depends on it.
#pragma once

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
    // The row of this team, where the grid has a team for each.
    __device__ i64 row() const { return i64(blockIdx.x) * (blockDim.x / size) + threadIdx.x / size; }
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

// The same of terms that are read one by one, in the lanes of T: add(lane, j) is the lane with term j more.
template <class A, class T, class F> __device__ A sum_of_each(const Team& team, int n, F add) {
    typedef Slice<T, ragged> Part;
    return sum<A, Part>(team, n, [](int) {}, [&](A(&lane)[Part::own], int j, int have, int) {
        for (int i = 0; i < Part::own; ++i)
            if (i < have) lane[i] = add(lane[i], j + i);
    });
}
