//! What a fuzzer's bytes become: a call of a norm, whose results must have the same bits at every level as at the portable one,
//! and, where all goes in and comes out finite, lie within the bounds of `docs/numerics.md` around the f64 reference.
//!
//! The stable tests include this file too, and run it over the corpus (`crates/layernorm/tests/corpus.rs`).

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::missing_assert_message,
    clippy::cast_possible_truncation,
    reason = "for a program, which is also a part of a test; its values say what went wrong"
)]

use half::{bf16, f16};
use layernorm::reference::{self, Affine};
use layernorm::{
    Companion, E4M3, E5M2, Element, Gradients, Level, ParamGradients, Params, Quantum, Rows, RowsMut, Run,
    Scale, StatsMut, StatsRef, Threads, Workspace, narrow, widen,
};
use std::fmt::Debug;

/// A number of some type, from bits.
trait Number: Element + Default + Debug {
    const GREATEST: f64;
    /// Half of a step beside a number of this size, beyond what f32 has; 0 in f32 and f64.
    fn half_ulp(at: f64) -> f64;
    fn of_bytes(bytes: [u8; 8]) -> Self;
    fn of(value: f64) -> Self;
    fn f64(self) -> f64;
    /// Any NaN is like any other.
    fn bits(self) -> u64;
}

macro_rules! number {
    ($t:ty, $bits:ty, $greatest:expr, $of:expr, $half_ulp:expr) => {
        impl Number for $t {
            const GREATEST: f64 = $greatest;

            fn half_ulp(at: f64) -> f64 {
                $half_ulp(at)
            }
            fn of_bytes(bytes: [u8; 8]) -> Self {
                Self::from_bits(u64::from_le_bytes(bytes) as $bits)
            }
            fn of(value: f64) -> Self {
                $of(value)
            }
            fn f64(self) -> f64 {
                self.into()
            }
            fn bits(self) -> u64 {
                if self.is_nan() { u64::MAX } else { self.to_bits().into() }
            }
        }
    };
}
number!(f32, u32, f32::MAX as f64, |x| x as f32, |_| 0.0);
number!(f64, u64, f64::MAX, |x| x, |_| 0.0);
number!(f16, u16, 65504.0, f16::from_f64, |at: f64| at.abs() * 2f64.powi(-11) + 2f64.powi(-25));
number!(bf16, u16, f64::from_bits(0x47ef_e000_0000_0000), bf16::from_f64, |at: f64| at.abs() * 2f64.powi(-8)
    + 2f64.powi(-134));

/// The bytes, taken from the front; zeros when they are over.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % end
    }

    /// Of any bits, or near to 1, or the number before with one bit changed, as a byte says.
    fn numbers<T: Number>(&mut self, len: usize) -> Vec<T> {
        let mut numbers = Vec::with_capacity(len);
        let mut last = [0u8; 8];
        for _ in 0..len {
            let kind = self.byte();
            numbers.push(match kind % 4 {
                0 => {
                    last = [0; 8].map(|_| self.byte());
                    T::of_bytes(last)
                }
                1 => {
                    last[usize::from(kind >> 2) % size_of::<T>()] ^= 1 << (kind >> 5);
                    T::of_bytes(last)
                }
                2 => T::of(f64::from(kind as i8)),
                _ => T::of(f64::from(i16::from_le_bytes([self.byte(), kind])) / 4096.0),
            });
        }
        numbers
    }

    fn parameter<P: Number>(&mut self, n: usize) -> Option<Vec<P>> {
        match self.byte() % 3 {
            0 => None,
            1 => Some(self.numbers(1)),
            _ => Some(self.numbers(n)),
        }
    }
}

#[derive(Debug)]
struct Case<E, P> {
    layer: bool,
    n: usize,
    strides: [usize; 4],
    x: Vec<E>,
    dy: Vec<E>,
    weight: Option<Vec<P>>,
    bias: Option<Vec<P>>,
    eps: f64,
    first_row: usize,
}

/// What comes out: the bits of everything, and the numbers that the reference is compared with.
#[derive(Debug, Clone, PartialEq)]
struct Outputs {
    bits: Vec<Vec<u64>>,
    bytes: Vec<Vec<u8>>,
    y: Vec<f64>,
    rstd: Vec<f64>,
}

pub fn norms(data: &[u8]) {
    let mut bytes = Bytes(data);
    match bytes.byte() % 6 {
        0 => call::<f32, f32>(bytes),
        1 => call::<f64, f64>(bytes),
        2 => call::<f16, f16>(bytes),
        3 => call::<f16, f32>(bytes),
        4 => call::<bf16, bf16>(bytes),
        _ => call::<bf16, f32>(bytes),
    }
}

fn call<E: Number<Acc: Number>, P: Number + Companion<E>>(mut bytes: Bytes<'_>) {
    let shape = bytes.byte();
    // Mostly short rows; lengths at both sides of a block and of a piece, too.
    let n = match shape & 3 {
        0 => 1 + bytes.below(70),
        1 => 250 + bytes.below(14),
        2 => 1 + bytes.below(1100),
        _ => 1 + bytes.below(9),
    };
    let rows = 1 + usize::from(shape >> 3) % (4000 / n).clamp(1, 20);
    let strides = [0; 4].map(|_| n + usize::from(bytes.byte() % 20));
    let eps = match bytes.byte() % 6 {
        0 => 0.0,
        1 => 1e-5,
        2 => 1e-12,
        3 => f64::from(bytes.byte()),
        4 => 1e30,
        _ => f64::from_bits(u64::from_le_bytes([0; 8].map(|_| bytes.byte()))).abs(),
    };
    let case = Case::<E, P> {
        layer: shape & 4 == 0,
        n,
        strides,
        first_row: bytes.below(5000),
        eps: if E::Acc::of(eps).f64().is_finite() { eps } else { 1.0 },
        weight: bytes.parameter(n),
        bias: bytes.parameter(n),
        x: bytes.numbers(rows * n),
        dy: bytes.numbers(rows * n),
    };
    let expected = case.run(Level::Portable);
    for level in Level::available().skip(1) {
        let got = case.run(level);
        assert_eq!(got.bits, expected.bits, "{level}: {case:?}");
        assert_eq!(got.bytes, expected.bytes, "{level}: {case:?}");
    }
    // The reference is f64, so it is no truth for f64; and beyond 2^24 or so features count is rounded.
    if size_of::<E>() < 8 {
        case.compare(&expected);
    }
}

impl<E: Number<Acc: Number>, P: Number + Companion<E>> Case<E, P> {
    fn params(&self) -> Params<'_, P> {
        Params { weight: self.weight.as_deref(), bias: self.bias.as_deref(), eps: self.eps }
    }

    /// Rows at a stride; between them is what a read would show as NaN.
    fn apart(&self, numbers: &[E], stride: usize) -> Vec<E> {
        let mut all = Vec::new();
        for row in numbers.chunks(self.n) {
            all.extend_from_slice(row);
            all.resize(all.len() + stride - self.n, E::of(f64::NAN));
        }
        all
    }

    fn run(&self, level: Level) -> Outputs {
        let run = Run::default().with_level(level).with_threads(Threads::One);
        let (n, rows) = (self.n, self.x.len() / self.n);
        let [x_stride, dy_stride, y_stride, dx_stride] = self.strides;
        let (x, dy) = (self.apart(&self.x, x_stride), self.apart(&self.dy, dy_stride));
        let (mut y, mut dx) = (vec![E::of(77.0); rows * y_stride], vec![E::of(77.0); rows * dx_stride]);
        let zeros = || vec![E::Acc::default(); rows];
        let [mut m, mut c, mut rstd] = [zeros(), zeros(), zeros()];
        let of = |parameter: &Option<Vec<P>>| vec![E::Acc::default(); parameter.as_ref().map_or(n, Vec::len)];
        let (mut dweight, mut dbias) = (of(&self.weight), of(&self.bias));
        {
            let x = Rows::strided(&x, rows, n, x_stride).unwrap();
            let dy = Rows::strided(&dy, rows, n, dy_stride).unwrap();
            let y = RowsMut::strided(&mut y, rows, n, y_stride).unwrap();
            let dx = Some(RowsMut::strided(&mut dx, rows, n, dx_stride).unwrap());
            let mut workspace = Workspace::new();
            let of_params = ParamGradients {
                dweight: Some(&mut dweight),
                dbias: Some(&mut dbias),
                accumulate: false,
                first_row: self.first_row,
                workspace: &mut workspace,
            };
            let gradients = Gradients { dx, params: Some(of_params) };
            if self.layer {
                let saved = StatsMut { m: &mut m, c: &mut c, rstd: &mut rstd };
                layernorm::layer_norm(x, self.params(), y, Some(saved), run).unwrap();
                let saved = StatsRef { m: &m, c: &c, rstd: &rstd };
                layernorm::layer_norm_backward(x, dy, self.params(), Some(saved), gradients, run).unwrap();
            } else {
                layernorm::rms_norm(x, self.params(), y, Some(&mut rstd), run).unwrap();
                layernorm::rms_norm_backward(x, dy, self.params(), Some(&rstd), gradients, run).unwrap();
            }
        }
        let taken = |all: &[E], stride: usize| -> Vec<E> {
            for row in all.chunks(stride) {
                assert!(row[n..].iter().all(|x| x.f64() == 77.0 || x.bits() == E::of(77.0).bits()));
            }
            all.chunks(stride).flat_map(|row| row[..n].to_vec()).collect()
        };
        let (y, dx) = (taken(&y, y_stride), taken(&dx, dx_stride));
        let mut bits: Vec<Vec<u64>> =
            [&y, &dx].map(|numbers| numbers.iter().map(|x| x.bits()).collect()).into();
        bits.extend(
            [&m, &c, &rstd, &dweight, &dbias]
                .map(|numbers| numbers.iter().map(|x| x.bits()).collect::<Vec<u64>>()),
        );
        let mut wide = vec![E::Acc::default(); y.len()];
        widen(&y, &mut wide, run).unwrap();
        let mut back = vec![E::default(); y.len()];
        narrow(&wide, &mut back, run).unwrap();
        bits.push(back.iter().map(|x| x.bits()).collect());
        assert_eq!(bits[0], bits[bits.len() - 1], "widened and rounded back");
        let bytes = vec![
            self.quantized::<i8>(&y, |byte| byte as u8, run),
            self.quantized::<E4M3>(&y, |byte| byte.0, run),
            self.quantized::<E5M2>(&y, |byte| byte.0, run),
        ];
        Outputs {
            bits,
            bytes,
            y: y.iter().map(|y| y.f64()).collect(),
            rstd: rstd.iter().map(|r| r.f64()).collect(),
        }
    }

    /// The fused norm, which must be what comes of y.
    fn quantized<Q: Quantum + Default>(&self, y: &[E], byte: fn(Q) -> u8, run: Run) -> Vec<u8> {
        let mut results = Vec::new();
        for fused in [true, false] {
            let mut to = vec![Q::default(); y.len()];
            let mut scales = vec![0.0; y.len() / self.n];
            let (q, scale) = (RowsMut::new(&mut to, self.n).unwrap(), Scale::OfRows(&mut scales));
            let x = Rows::new(if fused { &self.x } else { y }, self.n).unwrap();
            match (fused, self.layer) {
                (false, _) => layernorm::quantize(x, q, scale, run),
                (true, true) => layernorm::layer_norm_quantized(x, self.params(), q, scale, run),
                (true, false) => layernorm::rms_norm_quantized(x, self.params(), q, scale, run),
            }
            .unwrap();
            let mut bytes: Vec<u8> = to.into_iter().map(byte).collect();
            bytes.extend(scales.iter().flat_map(|scale| scale.bits().to_le_bytes()));
            results.push(bytes);
        }
        assert_eq!(results[0], results[1], "fused and by itself: {self:?}");
        results.swap_remove(0)
    }

    /// y and rstd against the reference, row by row, within what is proved for any finite row.
    fn compare(&self, got: &Outputs) {
        let (n, u) = (self.n, 2f64.powi(-24));
        let spread = |values: &Option<Vec<P>>, absent: f64| -> Vec<f64> {
            (0..n).map(|j| values.as_ref().map_or(absent, |of| of[j % of.len()].f64())).collect()
        };
        let (weight, bias) = (spread(&self.weight, 1.0), spread(&self.bias, 0.0));
        if !weight.iter().chain(&bias).all(|x| x.is_finite()) {
            return;
        }
        let eps = f64::from(self.eps as f32);
        let blocks = (n as f64 / 256.0).log2().max(0.0).ceil();
        let times = if self.layer { 63.0 + 3.9 * blocks } else { 10.5 + blocks / 2.0 };
        for (row, x) in self.x.chunks(n).enumerate() {
            let x: Vec<f64> = x.iter().map(|x| x.f64()).collect();
            if !x.iter().all(|x| x.is_finite()) {
                continue;
            }
            let norm = if self.layer { reference::layer_norm } else { reference::rms_norm };
            let plain = norm(&x, n, Affine::NONE, eps);
            let exact = norm(&x, n, Affine::new(&weight, &bias), eps);
            for (j, weight) in weight.iter().enumerate() {
                let (y, exact, x_hat) = (got.y[row * n + j], exact.y[j], plain.y[j].abs());
                let measure = weight.abs() * if self.layer { x_hat.max(1.0) } else { x_hat };
                let tiny = 2f64.powi(-149) * weight.abs().max(1.0);
                // A thousandth for what the bounds leave out, and the reference's own error.
                let most = 1.001 * times * u * measure + u * exact.abs() + tiny;
                let most = most + E::half_ulp(exact.abs() + most);
                let overflows = !y.is_finite() && exact.abs() + most >= E::GREATEST;
                assert!(
                    (y - exact).abs() <= most || overflows,
                    "y[{row}][{j}] = {y:e}, {exact:e} +- {most:e}: {self:?}"
                );
            }
            let exact = plain.rstd[0];
            let most = 1.001 * times * u * exact + 2f64.powi(-149);
            let rstd = got.rstd[row];
            let overflows = rstd.is_infinite() && exact * (1.0 + times * u) >= f64::from(f32::MAX);
            assert!((rstd - exact).abs() <= most || overflows, "rstd[{row}] = {rstd:e}, {exact:e}: {self:?}");
        }
    }
}
