//! Numbers computed from the equations elsewhere: NumPy 2.3, in f64.
//!
//! ```text
//! import numpy as np
//! from math import erf
//! n = 0                                                    # parameters count in the order of the modules' fields
//! def param(*shape):
//!     global n; n += 1
//!     return np.sin(1 + 7*(n - 1) + np.arange(np.prod(shape))).reshape(shape)
//! def linear(x, i, o): return x @ param(i, o) + param(o)
//! def ln(x):
//!     d = x - x.mean(-1, keepdims=True)
//!     return d/np.sqrt((d*d).mean(-1, keepdims=True) + 1e-5)*param(x.shape[-1]) + param(x.shape[-1])
//! def softmax(s): e = np.exp(s - s.max(-1, keepdims=True)); return e/e.sum(-1, keepdims=True)
//! def attention(x, qk):                                    # 3 tokens, 2 heads of 2 features
//!     split = lambda t: t.reshape(3, 2, 2).transpose(1, 0, 2)
//!     q, k, v = (split(linear(x, 4, 4)) for _ in range(3))
//!     wo, bo = param(4, 4), param(4)
//!     if qk: q = ln(q); k = ln(k)
//!     s = np.where(np.tril(np.ones((3, 3))) > 0, q @ k.transpose(0, 2, 1)/np.sqrt(2), -np.inf)
//!     return (softmax(s) @ v).transpose(1, 0, 2).reshape(3, 4) @ wo + bo
//! def ffn(x):
//!     h = linear(x, 4, 3)
//!     return linear(h*(1 + np.vectorize(erf)(h/np.sqrt(2)))/2, 3, 4)
//! x = np.sin(0.7*np.arange(12) + 0.3).reshape(3, 4)
//! ```

use super::*;
use burn::nn::attention::{MhaInput, MultiHeadAttentionConfig, generate_autoregressive_mask};
use layernorm_burn::transformer::CausalAttentionConfig;

fn by_sine<M: Module>(module: M) -> M {
    let sines =
        |index: usize, len: usize| (0..len).map(|i| (1.0 + 7.0 * index as f64 + i as f64).sin()).collect();
    module.map(&mut Fill(0, DType::F64, sines))
}

fn x() -> Tensor<3> {
    let numbers: Vec<f64> = (0..12).map(|i| (0.7 * f64::from(i) + 0.3).sin()).collect();
    Tensor::from_data(TensorData::new(numbers, [1, 3, 4]), (&Device::flex(), DType::F64))
}

#[track_caller]
fn expect(y: Tensor<3>, expected: &[f64]) {
    let y = vec_of::<f64, 3>(y);
    assert_eq!(y.len(), expected.len(), "one expected number for each");
    for (got, want) in y.iter().zip(expected) {
        assert!((got - want).abs() <= 1e-13 * (1.0 + want.abs()), "{got} and not {want}");
    }
}

#[test]
fn attention() {
    let plain = by_sine(CausalAttentionConfig::new(4, 2).init(&Device::flex()));
    #[rustfmt::skip]
    expect(plain.forward(x()), &[
        -0.356660522058139, 0.941175330134028, 1.37369892425338, 0.543250062551346,
        -0.308558177185007, 0.920353413985177, 1.30309632076462, 0.487778479769648,
        -0.311700791938275, 0.934628267460857, 1.32166440801557, 0.493568387008463,
    ]);
    let config = CausalAttentionConfig::new(4, 2).with_qk_norm(Some(NormConfig::layer()));
    #[rustfmt::skip]
    expect(by_sine(config.init(&Device::flex())).forward(x()), &[
        -0.356660522058139, 0.941175330134028, 1.37369892425338, 0.543250062551346,
        -0.293864694555424, 0.929013911558, 1.29776141175216, 0.473353054914767,
        -0.29686653922835, 0.942697426234079, 1.31554972548882, 0.478891674097532,
    ]);
}

#[test]
fn placements() {
    // y = x; then for each sublayer F with its norms N, in the order of the fields:
    // none: y = y + F(y); post: y = N(y + F(y)); pre: y = y + F(N(y)); sandwich: y = y + N'(F(N(y))).
    // The last token:
    let expected = [
        [0.332609928963076, 0.999016789897715, 0.886839143041531, 0.34121955383733],
        [-1.25919440283452, 0.973951318671406, 0.880080453982287, 1.94031998441853],
        [-1.9182515416593, -1.03590861207751, 0.938750839750178, 2.43224097467897],
        [-1.94668586675834, -0.14339408654598, -1.70399298755506, -2.09952503509231],
    ];
    for (placement, expected) in PLACEMENTS.into_iter().zip(expected) {
        let block = by_sine(block(placement).init(&Device::flex()));
        expect(block.forward(x()).slice([0..1, 2..3]), &expected);
    }
}

#[test]
fn a_stack_ends_with_a_norm_where_the_stream_has_none() {
    for placement in PLACEMENTS {
        let config = TransformerConfig::new(2, block(placement)).with_embedding_norm(true);
        let stack = by_sine(config.init(&Device::flex()));
        let embedded = stack.embedding_norm.as_ref().expect("it was asked for").forward(x());
        let by_hand = stack.blocks[1].forward(stack.blocks[0].forward(embedded));
        let by_hand = match placement {
            Placement::None | Placement::Post => by_hand,
            _ => stack.final_norm.as_ref().expect("a final norm").forward(by_hand),
        };
        assert_eq!(stack.final_norm.is_some(), placement.needs_final_norm());
        assert_eq!(vec_of::<f64, 3>(stack.forward(x())), vec_of::<f64, 3>(by_hand), "{placement:?}");
    }
}

#[test]
fn attention_is_that_of_burn() {
    let device = Device::flex();
    let ours = filled(CausalAttentionConfig::new(12, 3).init(&device), DType::F32);
    let theirs = MultiHeadAttentionConfig::new(12, 3).with_dropout(0.0).init(&device);
    let theirs = theirs.try_load_record(ours.clone().into_record()).expect("the same names and shapes");
    let x = tensor([2, 7, 12], 5, &device, DType::F32);
    let input = MhaInput::self_attn(x.clone()).mask_attn(generate_autoregressive_mask(2, 7, &device));
    let (ours, theirs) = (vec_of::<f32, 3>(ours.forward(x)), vec_of::<f32, 3>(theirs.forward(input).context));
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!((ours - theirs).abs() <= 2e-6 * (1.0 + theirs.abs()), "{ours} and {theirs}");
    }
}
