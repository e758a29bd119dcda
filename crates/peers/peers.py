"""The side of the peers that live in Python: `python3 peers.py torch` or `python3 peers.py onnxruntime`.

The Rust program starts it once and sends one JSON object a line; each gets one line back. It prepares a case, runs it
so many times when asked, and says how long that took by its own clock, so neither the pipe nor the start of Python is
in any time. Tensors come and go as files of raw numbers in a folder.

    {"do": "hello"}                          {"ok": true, "version": "..."}
    {"do": "prepare", "operator": ...}       {"ok": true}
    {"do": "run", "calls": 100}              {"ok": true, "seconds": 0.0123}
    {"do": "outputs"}                        {"ok": true}
    {"do": "drop"}                           {"ok": true}

What cannot be had is {"ok": false, "why": "a few words", "detail": "what the library said"}.

An operator is an entry in `TORCH` and one in `ONNX`.
"""

import ctypes
import json
import os
import signal
import sys
import time
from types import SimpleNamespace


class Lacks(Exception):
    """What a peer does not have, in a few words and in its own."""

    def __init__(self, why, detail=""):
        super().__init__(why)
        self.why, self.detail = why, str(detail)


def path(case, name):
    return os.path.join(case.folder, name + ".bin")


# PyTorch: from the input to the outputs, as (y, ...); autograd does the rest.


def torch_add_rms_norm(functional, case, t):
    total = t.x + t.residual
    return functional.rms_norm(total, case.shape[-1:], t.weight, case.eps), total


def torch_batch_norm(training):
    return lambda functional, case, t: (
        functional.batch_norm(t.x, t.mean, t.var, t.weight, t.bias, training, 0.1, case.eps),
    )


TORCH = {
    "layer_norm": lambda functional, case, t: (
        functional.layer_norm(t.x, case.shape[-1:], t.weight, t.bias, case.eps),
    ),
    "rms_norm": lambda functional, case, t: (functional.rms_norm(t.x, case.shape[-1:], t.weight, case.eps),),
    "add_rms_norm": torch_add_rms_norm,
    "group_norm": lambda functional, case, t: (
        functional.group_norm(t.x, case.groups, t.weight, t.bias, case.eps),
    ),
    "instance_norm": lambda functional, case, t: (
        functional.instance_norm(t.x, weight=t.weight, bias=t.bias, eps=case.eps),
    ),
    "batch_norm": torch_batch_norm(True),
    "batch_norm_eval": torch_batch_norm(False),
}


class Torch:
    """`torch.nn.functional`, eager, as most of its users call it."""

    def __init__(self):
        import numpy
        import torch

        self.numpy, self.torch = numpy, torch
        self.version = torch.__version__
        self.dtypes = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}

    def prepare(self, case):
        torch = self.torch
        if case.operator not in TORCH:
            raise Lacks("has none")
        torch.set_num_threads(case.threads)
        self.case, forward = case, TORCH[case.operator]
        t = SimpleNamespace(**{name: self.load(name) for name in case.inputs})
        functional = torch.nn.functional
        if case.direction == "forward":

            def call():
                with torch.no_grad():
                    return forward(functional, case, t)

        else:
            # dx, dweight, dbias: what is a parameter here has a gradient of that name.
            leaves = [getattr(t, name[1:]).requires_grad_() for name in case.outputs]
            ends = [t.dy, t.dsum] if hasattr(t, "dsum") else [t.dy]
            with torch.enable_grad():
                starts = forward(functional, case, t)

            def call():
                return torch.autograd.grad(starts, leaves, ends, retain_graph=True)

        self.call = call
        call()

    def load(self, name):
        raw = self.numpy.fromfile(path(self.case, name), dtype=self.numpy.uint8)
        shape = self.case.shape if name in self.case.large else [-1]
        # A copy, because torch places its own tensors at the start of a cache line.
        return self.torch.from_numpy(raw).view(self.dtypes[self.case.dtype]).reshape(shape).clone()

    def outputs(self):
        for name, tensor in zip(self.case.outputs, self.call()):
            raw = tensor.detach().contiguous().reshape(-1).view(self.torch.uint8)
            raw.numpy().tofile(path(self.case, "out-" + name))

    def drop(self):
        self.call = None


# ONNX: the node, as (type, domain and version, inputs, outputs, attributes).


def onnx_batch_norm(training):
    return lambda case: (
        "BatchNormalization",
        ("", 15),
        ["x", "weight", "bias", "mean", "var"],
        ["y", "mean_after", "var_after"] if training else ["y"],
        {"epsilon": case.eps, "training_mode": int(training)},
    )


ONNX = {
    "layer_norm": lambda case: (
        "LayerNormalization",
        ("", 17),
        ["x", "weight", "bias"],
        ["y"],
        {"axis": -1, "epsilon": case.eps},
    ),
    "rms_norm": lambda case: (
        "RMSNormalization",
        ("", 23),
        ["x", "weight"],
        ["y"],
        {"axis": -1, "epsilon": case.eps},
    ),
    "add_rms_norm": lambda case: (
        "SkipSimplifiedLayerNormalization",
        ("com.microsoft", 1),
        ["x", "residual", "weight"],
        ["y", "", "", "sum"],
        {"epsilon": case.eps},
    ),
    "group_norm": lambda case: (
        "GroupNormalization",
        ("", 21),
        ["x", "weight", "bias"],
        ["y"],
        {"num_groups": case.groups, "epsilon": case.eps},
    ),
    "instance_norm": lambda case: (
        "InstanceNormalization",
        ("", 6),
        ["x", "weight", "bias"],
        ["y"],
        {"epsilon": case.eps},
    ),
    "batch_norm": onnx_batch_norm(True),
    "batch_norm_eval": onnx_batch_norm(False),
}


class Onnxruntime:
    """A model of one node, its parameters constant, through `InferenceSession`."""

    def __init__(self):
        import numpy
        import onnx
        import onnxruntime

        self.numpy, self.onnx, self.runtime = numpy, onnx, onnxruntime
        self.version = onnxruntime.__version__
        # Raw numbers: numpy has no bf16, so it carries the bits of one.
        self.dtypes = {
            "f32": (numpy.float32, onnx.TensorProto.FLOAT),
            "f64": (numpy.float64, onnx.TensorProto.DOUBLE),
            "bf16": (numpy.uint16, onnx.TensorProto.BFLOAT16),
            "f16": (numpy.float16, onnx.TensorProto.FLOAT16),
        }

    def prepare(self, case):
        if case.operator not in ONNX:
            raise Lacks("has none")
        if case.direction != "forward":
            raise Lacks("no backward")
        self.case = case
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = case.threads, 1
        options.log_severity_level = 4
        try:
            model = self.model().SerializeToString()
            self.session = self.runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            feeds = {node.name: self.feed(node.name) for node in self.session.get_inputs()}
            names, run = case.outputs, self.session.run_with_ort_values if case.dtype == "bf16" else self.session.run
            self.call = lambda: run(names, feeds)
            self.call()
        except Exception as error:  # Its own exceptions have no common type that it names.
            raise Lacks("no such kernel", error) from error

    def model(self):
        helper, case = self.onnx.helper, self.case
        kind, (domain, version), inputs, outputs, attributes = ONNX[case.operator](case)
        number = self.dtypes[case.dtype][1]
        node = helper.make_node(kind, inputs, outputs, domain=domain, **attributes)
        fed = [name for name in inputs if name in ("x", "residual")]
        constants = [self.constant(name, number) for name in inputs if name not in fed]
        value = lambda name: helper.make_tensor_value_info(name, number, case.shape)
        graph = helper.make_graph([node], "norm", [value(n) for n in fed], [value(n) for n in case.outputs], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, version)], ir_version=10)

    def constant(self, name, number):
        raw = self.raw(name)
        return self.onnx.helper.make_tensor(name, number, [len(raw)], raw.tobytes(), raw=True)

    def raw(self, name):
        return self.numpy.fromfile(path(self.case, name), dtype=self.dtypes[self.case.dtype][0])

    def feed(self, name):
        tensor = self.raw(name).reshape(self.case.shape)
        if self.case.dtype == "bf16":
            make = self.runtime.OrtValue.ortvalue_from_numpy_with_onnx_type
            return make(tensor, self.onnx.TensorProto.BFLOAT16)
        return tensor

    def outputs(self):
        for name, tensor in zip(self.case.outputs, self.call()):
            with open(path(self.case, "out-" + name), "wb") as file:
                file.write(self.bytes_of(tensor))

    def bytes_of(self, tensor):
        if self.case.dtype == "bf16":
            return ctypes.string_at(tensor.data_ptr(), tensor.tensor_size_in_bytes())
        return tensor.tobytes()

    def drop(self):
        self.session = self.call = None


PEERS = {"torch": Torch, "onnxruntime": Onnxruntime}


def timed(call, calls):
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - start


def answer(state, request):
    do = request.pop("do")
    if do == "hello":
        try:
            state.peer = PEERS[state.name]()
        except ImportError as error:
            raise Lacks("not installed", error) from error
        return {"version": state.peer.version}
    if do == "prepare":
        state.peer.prepare(SimpleNamespace(**request))
    elif do == "run":
        return {"seconds": timed(state.peer.call, request["calls"])}
    elif do == "outputs":
        state.peer.outputs()
    elif do == "drop":
        state.peer.drop()
    return {}


def main():
    # Ctrl-C is the Rust program's to hear; this one ends when its input does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    state = SimpleNamespace(name=sys.argv[1], peer=None)
    for line in sys.stdin:
        try:
            reply = {"ok": True, **answer(state, json.loads(line))}
        except Lacks as lacks:
            reply = {"ok": False, "why": lacks.why, "detail": lacks.detail}
        except Exception as error:
            reply = {"ok": False, "why": "failed", "detail": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
