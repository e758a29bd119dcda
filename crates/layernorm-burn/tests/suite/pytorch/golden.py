"""Writes golden.txt, which mod.rs compares with: what PyTorch makes of the same numbers, in f64.

    pip install torch==2.2.2 "numpy<2"
    python golden.py > golden.txt

A line is a name and numbers. `numbers` is that of the tests, so inputs need no file. Each case ends in the gradients of
sum(y * numbers), so that no gradient is 0 by symmetry.
"""

import torch
from torch import nn

MASK = (1 << 64) - 1


def numbers(shape, seed):
    state = seed * 0x9E3779B97F4A7C15 & MASK
    values = []
    for _ in range(torch.Size(shape).numel()):
        state = state + 0x9E3779B97F4A7C15 & MASK
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        z ^= z >> 31
        values.append((z >> 11) / 2.0**52 - 1.0)
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def leaf(shape, seed):
    return numbers(shape, seed).requires_grad_()


def show(name, tensor):
    print(name, *(repr(v) for v in tensor.detach().flatten().tolist()))


def case(name, y, **leaves):
    show(f"{name}.y", y)
    (y * numbers(y.shape, 99)).sum().backward()
    for leaf_name, tensor in leaves.items():
        show(f"{name}.d{leaf_name}", tensor.grad)


def norms():
    x, gamma, beta = leaf([3, 4, 6], 1), leaf([6], 2), leaf([6], 3)
    case("layer_norm", nn.functional.layer_norm(x, [6], gamma, beta, 1e-5), x=x, gamma=gamma, beta=beta)

    def of_channels(name, norm):
        x, gamma, beta = leaf([4, 6, 5], 1), leaf([6], 2), leaf([6], 3)
        case(name, norm(x, gamma, beta), x=x, gamma=gamma, beta=beta)

    of_channels("group_norm", lambda x, gamma, beta: nn.functional.group_norm(x, 3, gamma, beta, 1e-5))
    of_channels("instance_norm", lambda x, gamma, beta: nn.functional.instance_norm(x, weight=gamma, bias=beta, eps=1e-5))

    mean, var = torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    batch = lambda training: lambda x, gamma, beta: nn.functional.batch_norm(x, mean, var, gamma, beta, training, 0.1, 1e-5)
    of_channels("batch_norm_train", batch(True))
    show("batch_norm.mean", mean)
    show("batch_norm.var", var)
    of_channels("batch_norm_eval", batch(False))

    x, v, g, b = leaf([3, 6], 1), leaf([6, 4], 2), leaf([4], 3), leaf([4], 4)
    linear = nn.utils.weight_norm(nn.Linear(6, 4).double())
    del linear._parameters["weight_g"], linear._parameters["weight_v"], linear._parameters["bias"]
    linear.weight_g, linear.weight_v, linear.bias = g[:, None], v.T, b
    case("weight_norm", linear(x), x=x, g=g, v=v)


def recurrent():
    x = lambda: leaf([2, 5, 3], 1)
    w_x, w_h, b = lambda n: numbers([3, n], 2), lambda n: numbers([4, n], 3), lambda n: numbers([n], 4)

    def run(name, cell, w_x, w_h, b):
        cell = cell(3, 4, batch_first=True).double()
        with torch.no_grad():
            for parameter, value in zip(cell.parameters(), [w_x.T, w_h.T, b, torch.zeros_like(b)]):
                parameter.copy_(value)
        inputs = x()
        case(name, cell(inputs)[0], x=inputs)

    run("rnn", nn.RNN, w_x(4), w_h(4), b(4))

    def lstm(of):  # ours: f, i, o, g
        f, i, o, g = of.split(4, -1)
        return torch.cat([i, f, g, o], -1)

    run("lstm", nn.LSTM, lstm(w_x(16)), lstm(w_h(16)), lstm(b(16)))

    def gru(gates, new):  # ours: z, r; and PyTorch's z is 1 - z
        z, r = gates.split(4, -1)
        return torch.cat([r, -z, new], -1)

    new = numbers([3, 4], 5), numbers([4, 4], 6), numbers([4], 7)
    run("gru", nn.GRU, gru(w_x(8), new[0]), gru(w_h(8), new[1]), gru(b(8), new[2]))


def transformer(name, norm_first):
    block = nn.TransformerEncoderLayer(8, 2, 12, 0.0, "gelu", 1e-5, True, norm_first).double()
    matrix = lambda rows, columns, seed: numbers([rows, columns], seed).T
    attention = block.self_attn
    values = [
        (attention.in_proj_weight, torch.cat([matrix(8, 8, seed) for seed in (2, 3, 4)])),
        (attention.in_proj_bias, torch.cat([numbers([8], seed) for seed in (5, 6, 7)])),
        (attention.out_proj.weight, matrix(8, 8, 8)),
        (attention.out_proj.bias, numbers([8], 9)),
        (block.linear1.weight, matrix(8, 12, 10)),
        (block.linear1.bias, numbers([12], 11)),
        (block.linear2.weight, matrix(12, 8, 12)),
        (block.linear2.bias, numbers([8], 13)),
        (block.norm1.weight, numbers([8], 14)),
        (block.norm1.bias, numbers([8], 15)),
        (block.norm2.weight, numbers([8], 16)),
        (block.norm2.bias, numbers([8], 17)),
    ]
    with torch.no_grad():
        for parameter, value in values:
            parameter.copy_(value)
    x = leaf([2, 5, 8], 1)
    mask = torch.full([5, 5], float("-inf"), dtype=torch.float64).triu(1)
    case(name, block(x, src_mask=mask), x=x)


norms()
recurrent()
transformer("post", False)
transformer("pre", True)
