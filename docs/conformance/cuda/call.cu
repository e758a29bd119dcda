// Layer norm and RMS norm, forward and backward, of memory on the device: what check.py compiles and calls.
#include "backward.cuh"
#include "redo.cuh"

// check.py mirrors this. All memory is the device's; every call returns CUDA's error.
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
    template <class K> K of(K for_ragged, K for_whole, K for_once) const {
        return kind == ragged ? for_ragged : kind == whole ? for_whole : for_once;
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
        auto kernel = grid.of(&::forward<E, P, centred, ragged>, &::forward<E, P, centred, whole>,
                              &::forward<E, P, centred, once>);
        kernel<<<grid.blocks, grid.block>>>((const E*)call.x, weight, bias, (E*)call.y, saved(call), redo, call.rows,
                                            call.n, call.eps, grid.team);
        // As many blocks as an H100 has multiprocessors; any number would do, and mostly there is nothing to redo.
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
        auto kernel = grid.of(&::backward<E, P, centred, ragged>, &::backward<E, P, centred, whole>,
                              &::backward<E, P, centred, once>);
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
