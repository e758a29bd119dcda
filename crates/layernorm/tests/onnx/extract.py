"""Writes cases.txt, which main.rs reads: the node tests of ONNX for its normalization operators, data and all.

    pip install onnx==1.22.0
    python extract.py > cases.txt

ONNX ships its node tests as protobufs, in onnx/backend/test/data/node/NAME: a model of one node (model.onnx), and
the tensors that go in and must come out (test_data_set_0). They are copied here bit for bit: nothing is computed,
chosen or left out. A case is a model whose one node is of OPERATORS. Attributes that a node leaves out are written
with the default of ONNX's schema for the model's version of the operator set.

Most cases have one or two twins, NAME_expanded and NAME_expanded_ver18: the same numbers for a graph in which the
operator is spelled out in additions and roots. They test a runtime's other operators, so they are no cases of ours;
this script makes sure that their numbers are those of the case, byte for byte. The models that PyTorch exported for
opset 6 (pytorch-converted, pytorch-operator) are no node tests, and are left out.

The format, by lines: `case NAME OPERATOR VERSION`, then its parts `attribute NAME TYPE VALUES`,
`input NAME SHAPE NUMBERS` and `output NAME SHAPE NUMBERS`. A shape is 2x3x4. Floats are the eight hex digits of
their bits.
"""

from collections import Counter
from pathlib import Path

import numpy
import onnx
from onnx import AttributeProto, TensorProto, defs, helper, numpy_helper

VERSION = "1.22.0"
OPERATORS = [
    "LayerNormalization",
    "RMSNormalization",
    "BatchNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "LpNormalization",
    "MeanVarianceNormalization",
]
# What else has a name of the kind, and why it is left out.
OTHERS = {
    "lrn": "local response normalization: a sum over neighbouring channels, which no norm of this family is",
    "strnorm": "StringNormalizer: words in lower case",
}
EXPANDED = ["_expanded", "_expanded_ver18"]
TYPES = {AttributeProto.INT: "int", AttributeProto.FLOAT: "float", AttributeProto.INTS: "ints"}


def main():
    assert onnx.__version__ == VERSION, f"onnx is {onnx.__version__}, expected {VERSION}"
    folder = Path(onnx.__file__).parent / "backend/test/data/node"
    names = sorted(path.name for path in folder.iterdir() if (path / "model.onnx").is_file())
    cases = [case for case in (read(folder / name) for name in names) if case]
    twins = [twin for case in cases for twin in twins_of(folder, case[0])]
    nothing_is_forgotten(names, [case[0] for case in cases] + twins)

    counts = Counter(node.op_type for _, node, _, _ in cases)
    print(f"# The {len(cases)} node tests of ONNX {VERSION} for normalization operators.")
    print("# Written by extract.py, which says how to read them.")
    for operator in OPERATORS:
        print(f"# {counts[operator]:2} {operator}")
    print(f"# Not here: their {len(twins)} twins {' and '.join(EXPANDED)}, which hold the same numbers, byte for byte.")
    for name, why in OTHERS.items():
        print(f"# Not here: test_{name}*, {why}.")
    # The tensors are ONNX's work.
    print("# SPDX-License-Identifier: Apache-2.0. Copyright (c) ONNX Project Contributors.")
    for operator in OPERATORS:
        for case in cases:
            if case[1].op_type == operator:
                write(*case)


def read(path):
    """The name, node, version and tensors of a test, if it is one of ours."""
    model = onnx.load(path / "model.onnx")
    nodes = list(model.graph.node)
    if len(nodes) != 1 or nodes[0].op_type not in OPERATORS or nodes[0].domain:
        return None
    (version,) = [opset.version for opset in model.opset_import if opset.domain == ""]
    sets = [child for child in path.iterdir() if child.is_dir()]
    assert [child.name for child in sets] == ["test_data_set_0"], f"{path.name}: {sets}"
    assert not model.graph.initializer, f"{path.name} has constants"
    return path.name, nodes[0], version, sets[0]


def twins_of(folder, name):
    """The names of a case's twins; their tensors are the case's."""
    found = [name + suffix for suffix in EXPANDED if (folder / (name + suffix)).is_dir()]
    tensors = lambda test: (folder / test / "test_data_set_0").iterdir()
    content = lambda test: {path.name: path.read_bytes() for path in tensors(test)}
    for twin in found:
        assert content(twin) == content(name), f"{twin} differs from {name}"
    return found


def nothing_is_forgotten(names, taken):
    """By their names: every test of a norm is a case, a twin, or one of OTHERS."""
    parts = ["norm", "mvn", "variance", "lrn"]
    for name in set(names) - set(taken):
        if any(part in name for part in parts):
            assert any(other in name for other in OTHERS), f"{name} is neither a case nor left out for a reason"


def write(name, node, version, data):
    print(f"\ncase {name} {node.op_type} {version}")
    given = {attribute.name: attribute for attribute in node.attribute}
    for key, attribute in sorted(defs.get_schema(node.op_type, version).attributes.items()):
        value = given.pop(key, attribute.default_value)
        assert value.name, f"{name} lacks {key}"
        values = helper.get_attribute_value(value)
        values = values if value.type == AttributeProto.INTS else [values]
        print("attribute", key, TYPES[value.type], *(hex_of(v) if isinstance(v, float) else v for v in values))
    assert not given, f"{name} has unknown attributes {list(given)}"
    for kind, parameters in [("input", node.input), ("output", node.output)]:
        files = sorted(data.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
        assert len(files) == len(parameters), f"{name}: {len(files)} files of {list(parameters)}"
        for parameter, file in zip(parameters, files):
            tensor = TensorProto.FromString(file.read_bytes())
            assert tensor.name == parameter, f"{name}: {tensor.name} in the place of {parameter}"
            array = numpy_helper.to_array(tensor)
            assert array.dtype == "float32" and array.ndim > 0, f"{name}: {parameter} is {array.dtype} {array.shape}"
            bits = array.reshape(-1).view("uint32")
            print(kind, parameter, "x".join(map(str, array.shape)), *(f"{b:08x}" for b in bits))


def hex_of(value):
    """The bits of a float attribute, which protobuf holds in 32."""
    narrow = numpy.float32(value)
    assert float(narrow) == value, f"{value} is no float of 32 bits"
    return f"{narrow.view('uint32'):08x}"


if __name__ == "__main__":
    main()
