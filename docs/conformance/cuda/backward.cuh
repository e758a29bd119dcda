// dx, and the sums over rows (numerics.md, section 5).
#pragma once

#include "forward.cuh"

template <class E, class P, bool centred, Kind kind>
__global__ void __launch_bounds__(512)
backward(const E* x, const E* dy, Parameter<P> weight, E* dx,
         Saved<typename Sum<E>::type> saved, Redo redo, i64 rows, int n, int size) {
    typedef Slice<E, kind> Part;
    typedef typename Part::T T;
    constexpr int own = Part::own;
    Team team(size);
    i64 index = team.row();
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
    T node = sum_of_each<T, T>(team, n, [&](T lane, int j) { return lane + totals[j]; });
    if (team.rank == 0) *total = node;
}
