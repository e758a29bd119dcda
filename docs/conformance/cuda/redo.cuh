// Rows out of range (numerics.md, section 6), in f64: no vectors and no hurry.
#pragma once

#include "forward.cuh"

__device__ inline int exponent(double z) { return z == 0 || !isfinite(z) ? 0 : ilogb(z); }
__device__ inline double power(int e) { return ldexp(1.0, e); }
__device__ inline double scale(double z, int e) {
    int q = e / 3;
    return z * power(q) * power(q) * power(e - 2 * q);
}

template <class T> struct Wide {  // in the lanes and blocks of T
    Team team;
    int n;
    template <class A, class F> __device__ A total(F add) const { return sum_of_each<A, T>(team, n, add); }
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
    eps = double(T(eps));
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
        WideStats of = wide(row, of_x, eps, centred);
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
        WideStats of = wide(row, of_x, eps, centred);
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
            x_hat[i64(place) * n + j] = T(x_hat_j);
        }
    }
}
