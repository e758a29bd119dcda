// Statistics and output (numerics.md, section 4).
#pragma once

#include "order.cuh"

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
    typedef Slice<E, kind> Part;
    typedef typename Part::T T;
    constexpr int own = Part::own;
    Team team(size);
    i64 index = team.row();
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
