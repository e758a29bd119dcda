"""Holds the CUDA beside this file against the conformance vectors and against the CPU's kernels, bit by bit.

Needs an NVIDIA GPU, nvcc (or --library, made before) and PyTorch. With --layernorm, the path of the program `layernorm`
(cargo build --release), large and odd matrices are normalised by both. With --bench, forward passes are timed beside a copy of
the same bytes and PyTorch. Exit code 0: the same bits everywhere; 1: not.
"""

import argparse, ctypes, itertools, pathlib, statistics, subprocess, sys, tempfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
NORMS = ["layer_norm", "rms_norm"]
TYPES = {"f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16}
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
RESULTS = ["y", "m", "c", "rstd", "dx", "dweight", "dbias"]
TEAMS = [4, 8, 16, 32, 64, 128, 256, 512]  # threads a row: no bit may depend on them


class Call(ctypes.Structure):
    _fields_ = (
        [(name, ctypes.c_int) for name in ["norm", "type", "wide", "team"]]
        + [(name, ctypes.c_longlong) for name in ["rows", "n", "first_row"]]
        + [("eps", ctypes.c_double)]
        + [(name, ctypes.c_void_p) for name in ["x", "dy", "weight", "bias"]]
        + [(name, ctypes.c_longlong) for name in ["weights", "biases"]]
        + [(name, ctypes.c_void_p) for name in ["y", "dx", "m", "c", "r", "dweight", "dbias"]]
        + [("scratch", ctypes.c_void_p), ("redone", ctypes.c_longlong)]
    )


def library(path):
    if path is None:
        path = pathlib.Path(tempfile.mkdtemp()) / "order.so"
        command = "nvcc -std=c++17 -O3 --fmad=false -arch=native -shared -Xcompiler -fPIC -o"
        subprocess.run([*command.split(), path, HERE / "call.cu"], check=True)
    return ctypes.CDLL(str(path))


class Case:
    """The inputs of one call, on the GPU."""

    def __init__(self, norm, x, dy, weight=None, bias=None, eps=1e-5, first_row=0):
        self.norm, self.eps, self.first_row = norm, eps, first_row
        self.x, self.dy, self.weight, self.bias = (None if t is None else t.cuda() for t in (x, dy, weight, bias))
        self.rows, self.n = x.shape
        of_sums = torch.float64 if x.dtype == torch.float64 else torch.float32
        new = lambda length, dtype=of_sums: torch.empty(length, dtype=dtype, device="cuda")
        self.to = {"y": torch.full_like(self.x, torch.nan), "dx": torch.full_like(self.x, torch.nan)}
        self.to |= {name: new(self.rows) for name in ["m", "c", "rstd"]}
        self.scratch = new(self.rows + 1, torch.int64)
        self.to |= {"dweight": new(self.gradients(weight)), "dbias": new(self.gradients(bias))}

    def gradients(self, parameter):
        return self.n if parameter is None else parameter.numel()

    def call(self, team=0):
        at = lambda t: None if t is None else t.data_ptr()
        parameters = [p for p in (self.weight, self.bias) if p is not None]
        return Call(
            norm=NORMS.index(self.norm), type=list(TYPES.values()).index(self.x.dtype), team=team,
            wide=int(any(p.dtype != self.x.dtype for p in parameters)),
            rows=self.rows, n=self.n, first_row=self.first_row, eps=self.eps,
            x=at(self.x), dy=at(self.dy), weight=at(self.weight), bias=at(self.bias),
            weights=0 if self.weight is None else self.weight.numel(),
            biases=0 if self.bias is None else self.bias.numel(),
            scratch=at(self.scratch), r=at(self.to["rstd"]), **{name: at(self.to[name]) for name in RESULTS if name != "rstd"},
        )

    def run(self, order, team=0):
        call = self.call(team)
        for function in (order.order_forward, order.order_backward):
            if error := function(ctypes.byref(call)):
                raise RuntimeError(f"CUDA error {error}")
        torch.cuda.synchronize()
        self.redone = call.redone
        return {name: t.clone() for name, t in self.to.items()}


def differences(a, b):
    """How many numbers have other bits, where any NaN is any other."""
    a, b = a.cpu().flatten(), b.cpu().flatten()
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{tuple(a.shape)} {a.dtype} is not {tuple(b.shape)} {b.dtype}"
    bits = BITS[a.element_size()]
    return int(((a.view(bits) != b.view(bits)) & ~(a.isnan() & b.isnan())).sum())


class Count:
    def __init__(self):
        self.held, self.failed, self.numbers = 0, 0, 0

    def see(self, what, a, b):
        if wrong := differences(a, b):
            self.failed += 1
            print(f"  NOT THE SAME: {what}: {wrong} of {a.numel()}")
        else:
            self.held += 1
            self.numbers += a.numel()


# ---- The conformance vectors: ../README.md. ----


def rule(seed, length):
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z = z ^ z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) - 2**23) / 2**20


def numbers(words, dtype):
    """The input that a line gives."""
    if words == ["absent"]:
        return None
    if words[0] == "rule":
        return torch.from_numpy(rule(int(words[1]), int(words[2]))).to(dtype)
    bits = np.dtype(f"i{dtype.itemsize}")
    nan = torch.tensor(torch.nan, dtype=dtype).view(BITS[dtype.itemsize]).item()
    values = [nan if word == "nan" else int.from_bytes(bytes.fromhex(word), "big", signed=True) for word in words]
    return torch.from_numpy(np.array(values, bits)).view(dtype)


def fnv(tensor):
    size = tensor.element_size()
    rows = tensor.cpu().flatten().view(BITS[size]).numpy().view(np.uint8).reshape(-1, size).copy()
    rows[tensor.cpu().flatten().isnan().numpy()] = 0xFF
    state = 0xCBF29CE484222325
    for byte in rows.tobytes():
        state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return state


def vectors(path):
    for text in path.read_text().split("\nvector ")[1:]:
        head, *lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        norm, name, n, first_row, eps = head.split()
        given = {line.split()[0]: line.split()[1:] for line in lines}
        dtype = TYPES[name]
        x, dy = (numbers(given[key], dtype).reshape(-1, int(n)) for key in ("x", "dy"))
        weight, bias = (numbers(given[key], dtype) for key in ("weight", "bias"))
        eps = np.array([int(eps, 16)], dtype=np.uint64).view(np.float64)[0]
        yield f"{norm} {name} {n}", Case(norm, x, dy, weight, bias, eps, int(first_row)), given


def check_vectors(order, count):
    cases = redone = 0
    for what, case, given in vectors(HERE.parent / "order-0.txt"):
        got = case.run(order)
        for name, words in given.items():
            if name not in RESULTS or not words:
                continue
            if words[0] == "digest":
                same = fnv(got[name]) == int(words[1], 16)
                count.see(f"{what} {name} (digest)", got[name], got[name] if same else torch.empty(0))
            else:
                count.see(f"{what} {name}", got[name], numbers(words, got[name].dtype))
        for team in TEAMS:
            for name, tensor in case.run(order, team).items():
                count.see(f"{what} {name}, {team} threads a row", tensor, got[name])
        cases, redone = cases + 1, redone + case.redone
    print(f"{cases} conformance vectors ({redone} rows of section 6), each also with {len(TEAMS)} sizes of teams")


# ---- The CPU's kernels. ----


def rows_of(rows, n, generator):
    """Ordinary rows at many means and magnitudes, and between them some that break norms."""
    x = torch.randn(rows, n, dtype=torch.float64, generator=generator)
    x += torch.tensor([0, 1, 1e3, -1e5]).repeat(rows)[:rows, None]
    every = torch.arange(rows)
    breaking = [lambda r: r * 0 + 100000.3, lambda r: r * 1e30, lambda r: r * 1e-36, lambda r: r * 0,
                lambda r: torch.where(torch.arange(n) == n // 2, torch.nan, r), lambda r: r.tan()]
    for k, f in enumerate(breaking):
        at = every % 17 == k + 5
        x[at] = f(x[at])
    return x


def check_cpu(order, program, count):
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 1), (100_000, 3), (1000, 64), (333, 255), (100, 257), (64, 768), (4096, 1024), (77, 2049), (1000, 4096),
              (33, 16_384), (20, 16_385), (25, 65_536), (9, 300_001), (3, 1_000_000)]
    with tempfile.TemporaryDirectory() as folder:
        given, results = (pathlib.Path(folder) / name for name in ("in.safetensors", "out.safetensors"))
        # Halves also with parameters in f32.
        types = [(name, dtype, dtype) for name, dtype in TYPES.items()]
        types += [(f"{name}, f32", TYPES[name], torch.float32) for name in ("f16", "bf16")]
        for (rows, n), (name, dtype, of_parameters), norm in itertools.product(shapes, types, NORMS):
            x, dy = rows_of(rows, n, generator).to(dtype), torch.randn(rows, n, generator=generator).to(dtype)
            weight, bias = (torch.randn(n, generator=generator).to(of_parameters) for _ in "wb")
            save_file({"x": x, "dy": dy, "weight": weight, "bias": bias}, given)
            subprocess.run([program, "apply", norm, "--input", given, "--output", results, "--eps", "1e-5"],
                           check=True, capture_output=True)
            cpu = load_file(results)
            case = Case(norm, x, dy, weight, bias)
            gpu = case.run(order)
            if norm == "layer_norm":
                count.see(f"{norm} {name} {rows} x {n} mean", gpu["m"] + gpu["c"], cpu["mean"])
            for key in ("y", "rstd", "dx", "dweight", "dbias"):
                count.see(f"{norm} {name} {rows} x {n} {key}", gpu[key], cpu[key].to(gpu[key].dtype))
    print(f"{len(shapes) * len(types) * len(NORMS)} matrices by the CPU's kernels and by these")


# ---- Times. ----


def median(function, rounds=30):
    for _ in range(3):
        function()
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in "se")
        start.record(), function(), end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1000)
    return statistics.median(times)


def bench(order):
    F = torch.nn.functional
    print(f"\n{torch.cuda.get_device_name()}, PyTorch {torch.__version__}; forward; medians of 30 calls; times those of the copy\n")
    print("| type | rows x features | copy, us | layer norm | RMS norm | PyTorch: layer norm | RMS norm |")
    print("|---|---|---|---|---|---|---|")
    shapes = [(2**28 // n, n) for n in (256, 1024, 4096, 16_384, 65_536)] + [(512, 4096)]
    for name, (rows, n) in itertools.product(["f32", "bf16"], shapes):
        x = torch.randn(rows, n, device="cuda").to(TYPES[name])
        weight, bias = (torch.randn(n, device="cuda").to(TYPES[name]) for _ in "wb")
        copy = median(lambda to=torch.empty_like(x): to.copy_(x))
        times = []
        for norm in NORMS:
            case = Case(norm, x, x, weight, bias if norm == "layer_norm" else None)
            call = case.call()
            times.append(median(lambda: order.order_forward(ctypes.byref(call))))
            del case
        times += [median(lambda: F.layer_norm(x, (n,), weight, bias)), median(lambda: F.rms_norm(x, (n,), weight))]
        print(f"| {name} | {rows} x {n} | {copy:.1f} |", " | ".join(f"{t / copy:.2f}" for t in times), "|")
        del x
        torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", help="call.cu as a shared library [default: compile it]")
    parser.add_argument("--layernorm", help="the program `layernorm`, to compare with")
    parser.add_argument("--bench", action="store_true", help="time forward passes, too")
    options = parser.parse_args()
    order, count = library(options.library), Count()
    print(torch.cuda.get_device_name())
    check_vectors(order, count)
    if options.layernorm:
        check_cpu(order, options.layernorm, count)
    print(f"{count.held} results of {count.numbers} numbers have the same bits, {count.failed} have not")
    if options.bench:
        bench(order)
    sys.exit(count.failed > 0)


if __name__ == "__main__":
    main()
